"""The one training loop: a stage is a `Definition`, which `train` carries out."""

import errno
import functools
import math
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
from clu import parameter_overview
from jax.sharding import Mesh

from stormpsr_jax.base import interruption
from stormpsr_jax.base.progress import Bar
from stormpsr_jax.data.pipelines import BatchIterator
from stormpsr_jax.training import devices, hosts
from stormpsr_jax.training.checkpoint import Checkpoints, save_best
from stormpsr_jax.training.metrics import MetricWriter, Pace
from stormpsr_jax.training.step import (
    Batch,
    Definition,
    Params,
    TrainState,
    compiled,
    jit_step,
    new_state,
    sum_names,
)

# Dispatches in flight before the host looks at their losses: the device never waits for the host,
# and a non-finite loss is still noticed within this many.
LAG = 2
# Errors of a disk that has no room for this user, and what to say of them.
_FULL = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "the quota of the disk is used up"}


def train(
    workdir: Path,
    definition: Definition,
    *,
    steps: int,
    eval_every: int,
    mesh: Mesh,
    rng: jax.Array,
    log_every: int,
    checkpoint_every: int,
    profile_steps: tuple[int, int] | None = None,
) -> dict[str, Any]:
    """Trains one stage, or continues it where its newest checkpoint is.

    The best weights are in WORKDIR/best.safetensors at the end.

    Args:
        workdir: this stage's own folder, which has its name.
        eval_every, log_every, checkpoint_every: steps from one evaluation, log row or checkpoint
            to the next; all come after the last step too.
        rng: key of the stage; step i uses fold_in(rng, i).
        profile_steps: (a, b) records steps a … b, counted from 1, for TensorBoard's profiler and
            Perfetto, under WORKDIR/profile.

    Returns:
        "steps", "best_step" and "metrics" of the last evaluation.

    Raises:
        FloatingPointError: the loss or its gradient is NaN or infinite.
        MemoryError, OSError: as of `explained`.
        SystemExit: after SIGTERM or Ctrl-C, once everything is saved, with the status of
            `interruption`. Several processes stop together at a step they agree on.
    """
    workdir = Path(workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    name, evaluate, shows = workdir.name, definition.evaluate, jax.process_index() == 0
    every = [log_every, checkpoint_every, *([eval_every] if evaluate else [])]
    with (
        explained(workdir, f"{name}.{definition.batch_field}"),
        interruption.noted() as stop_asked,
        closing(Checkpoints(workdir)) as checkpoints,
        ExitStack() as parts,
    ):
        step, state, sums, kept, jitted = _begin(definition, mesh, rng, checkpoints)
        feed = Feed(definition, parts.enter_context(closing(definition.data(step))), mesh)
        pace = Pace(step, definition.unit)
        writer = parts.enter_context(closing(MetricWriter(workdir, step)))
        losses, best = Losses(name, checkpoints), Best(workdir, definition.best, writer, kept)
        if evaluate and definition.evaluate_start and step == 0:
            with pace.spent("apart"):
                best.judge(evaluate, step, state)
        first, last = profile_steps or (0, 0)
        bar = Bar(total=steps, initial=step, desc=name, unit="step", disable=not shows)
        parts.enter_context(closing(bar))
        profile = parts.enter_context(ExitStack())
        program: jax.stages.Compiled | None = None

        def due(every: int) -> bool:
            return step % every == 0 or step == steps

        while step < steps:
            if step + 1 == first:
                losses.look()  # waits, so that no earlier step is in the trace
                profile.callback(print, f"{name}: profile in {workdir / 'profile'}", flush=True)
                profile.enter_context(jax.profiler.trace(workdir / "profile"))
            # The next step after which something is done: no dispatch goes on beyond it.
            ends = [steps, *(n for n in (first - 1, last) if n > step)]
            end = min(*ends, *(step - step % n + n for n in every))
            with pace.spent("waiting"):
                batches, count = feed.take(end - step, stop_asked)
            if program is None:
                with pace.spent("apart"):
                    if sums is None:
                        names = sum_names(definition.loss_fn, state, feed.example(batches))
                        sums = _put_sums(dict.fromkeys(names, 0), mesh)
                    program, pace.operations = compiled(jitted, mesh, state, sums, *batches)
                    pace.rows = feed.rows
            state, sums, of_steps = program(state, sums, *batches)
            del batches  # on CPU they still are the loaders' shared memory
            losses.add(step, count, of_steps)
            step += count
            losses.look(LAG)
            if not math.isnan(losses.last):  # there is one to show
                bar.set_postfix(loss=f"{losses.last:.4g}", refresh=False)
            bar.update(count)
            if step == end:
                losses.look()
            if step in (last, steps):
                profile.close()
            if due(log_every):
                row = _floats(sums)
                row = {name: row[name] / row["count"] for name in row if name != "count"}
                # The rate of the update just made, which had step - 1 updates before it.
                row["lr"] = float(definition.schedule(step - 1))
                writer.write(step, row, pace.lap(step))
                sums = _put_sums(dict.fromkeys(sums, 0), mesh)
            if evaluate and due(eval_every):
                with pace.spent("apart"):
                    best.judge(evaluate, step, state)
            stop = bool(stop_asked) or interruption.all_stop()
            if stop or due(checkpoint_every):
                losses.look()
                # float32 -> JSON -> float32 is exact, so an open log row continues where it was.
                checkpoints.save(step, state, best.found | {"sums": _floats(sums)})
            if stop and step < steps:
                bar.close()
                checkpoints.latest()
                interruption.end(
                    f"{name}: stopped and saved at step {step}; run the same command again to go on"
                )
        bar.close()
        if best.found["best_step"] is None:
            best.keep(step, state)
        checkpoints.latest()  # waits until the last one is on disk
    return {"steps": step, "best_step": best.found["best_step"], "metrics": best.found["metrics"]}


def _begin(
    definition: Definition, mesh: Mesh, rng: jax.Array, checkpoints: Checkpoints
) -> tuple[int, TrainState, dict[str, jax.Array] | None, dict[str, Any], jax.stages.Wrapped]:
    """Returns step, state, sums (None: before the first), `Best.found`, and the jitted step."""
    params, batch_stats = jax.tree.map(np.asarray, definition.init())
    optimizer = definition.optimizer(params)
    if jax.process_index() == 0:
        count = parameter_overview.count_parameters
        parts = ", ".join(f"{name} {count({name: part}):,}" for name, part in params.items())
        print(f"{count(params):,} parameters: {parts}", flush=True)
    create = functools.partial(new_state, optimizer)
    start = params, batch_stats, np.asarray(jax.random.key_data(rng))
    abstract = jax.eval_shape(create, *start)
    shardings = devices.state_shardings(abstract, mesh)
    jitted = jit_step(definition.loss_fn, optimizer, shardings, mesh, several=definition.several)

    # Restore precedence: this workdir's newest readable checkpoint; else what `init` made, that is
    # init_from where the config names weights, and scratch otherwise.
    wanted = jax.tree.map(
        lambda a, s: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=s), abstract, shardings
    )
    if restored := checkpoints.restore(wanted):
        step, state, found = restored
        return step, state, _put_sums(found.pop("sums"), mesh), found, jitted
    state = jax.jit(create, out_shardings=shardings)(*start)
    return 0, state, None, {"best_step": None, "best_value": None, "metrics": {}}, jitted


def _put_sums(sums: Mapping[str, float], mesh: Mesh) -> dict[str, jax.Array]:
    """Puts sums where the step leaves them; from anywhere else, it would compile twice."""
    values = {name: np.float32(value) for name, value in sums.items()}
    return jax.device_put(values, devices.replicated(mesh))


def _floats(sums: dict[str, jax.Array]) -> dict[str, float]:
    return {name: float(value) for name, value in jax.device_get(sums).items()}


class Feed:
    """Draws the batches of each dispatch and puts them on the devices; `rows`: of a global one."""

    def __init__(self, definition: Definition, data: BatchIterator, mesh: Mesh):
        """`data`: of the definition, from a step on."""
        self._data, self._several = data, definition.several
        held = definition.held() if definition.held else {}
        self._held = devices.put(held, devices.replicated(mesh))
        self._most = definition.steps_per_dispatch
        self._sharding = devices.batch_sharding(mesh, axis=int(self._several))

    def take(self, most: int, stop_asked: list) -> tuple[tuple, int]:
        """Returns the step's arguments after state and sums, and of how many steps they are.

        Of as many as a dispatch may have, at most `most`, and fewer where the run was asked to
        stop, so that it does not matter for this how many they may be.
        """
        drawn = [next(self._data)]
        self.rows = len(next(iter(drawn[0].values()))) * jax.process_count()
        while len(drawn) < min(most, self._most) and not stop_asked:
            drawn.append(next(self._data))
        if not self._several:
            return (devices.put(drawn[0], self._sharding),), 1
        # Always as many, of which the last ones may be empty: there is one program for all.
        room = max(self._most, 2)  # XLA may compile one in another way
        empty = {name: np.zeros_like(array) for name, array in drawn[0].items()}
        padded = drawn + [empty] * (room - len(drawn))
        whole = {name: np.stack([batch[name] for batch in padded]) for name in empty}
        return (self._held, devices.put(whole, self._sharding), np.int32(len(drawn))), len(drawn)

    def example(self, arguments: tuple) -> Batch:
        """The shapes of one batch, of what `take` returned."""
        if not self._several:
            return arguments[0]
        return self._held | jax.eval_shape(lambda b: {n: a[0] for n, a in b.items()}, arguments[1])


class Losses:
    """The losses of dispatches in flight; `last`: of the steps looked at."""

    def __init__(self, stage: str, checkpoints: Checkpoints):
        """Of a stage; `checkpoints` tell which is the last good one."""
        self._stage, self._checkpoints, self.last = stage, checkpoints, math.nan
        self._pending: deque[tuple[int, int, jax.Array]] = deque()

    def add(self, before: int, count: int, losses: jax.Array) -> None:
        """Takes the losses of the `count` steps after a step."""
        self._pending.append((before, count, losses))

    def look(self, in_flight: int = 0) -> None:
        """Looks at all but those of the last `in_flight` dispatches; FloatingPointError of NaN."""
        while len(self._pending) > in_flight:
            before, count, losses = self._pending.popleft()
            found = np.ravel(losses)[:count]
            self.last = float(found[-1])
            if not np.isfinite(found).all():
                step = before + 1 + int(np.flatnonzero(~np.isfinite(found))[0])
                good = self._checkpoints.latest()
                raise FloatingPointError(
                    f"stage {self._stage!r}: the loss or its gradient is not finite at step "
                    f"{step}; last good checkpoint: {good or 'none yet'}. Lower "
                    f"--config.{self._stage}.optimizer.lr or set .clip_norm; on a GPU with "
                    "dtype=bfloat16 also try --config.attention=xla"
                )


class Best:
    """Judges weights, and keeps the best ones in WORKDIR/best.safetensors.

    Attributes:
        found: best_step, best_value, and metrics of the last evaluation; checkpoints have it.
    """

    def __init__(self, workdir: Path, metric: str, writer: MetricWriter, found: dict[str, Any]):
        """Goes on from `found`; `metric`: that is maximised, "" keeps the last weights."""
        self._workdir, self._metric, self._writer = workdir, metric, writer
        self.found = found

    def judge(
        self, evaluate: Callable[[Params, Params], dict[str, float]], step: int, state: TrainState
    ) -> None:
        """Evaluates the weights after a step, logs what is found, and keeps them if they are best.

        A resumed run comes to the same evaluations, so the file may be ahead of its checkpoint.
        """
        begun = time.monotonic()
        weights = hosts.on_every_host((state.params, state.batch_stats))
        metrics = {name: float(value) for name, value in evaluate(*weights).items()}
        seconds = time.monotonic() - begun
        row = {f"val/{name}": value for name, value in metrics.items()}
        self._writer.write(step, row, {"evaluation_seconds": seconds})
        self.found = self.found | {"metrics": metrics}
        if self._metric:
            value, best = metrics[self._metric], self.found["best_value"]
            better = math.isfinite(value) and (best is None or value > best)
            if hosts.of_process_0(better):  # hosts may differ in the last digit
                self.keep(step, state, value)

    def keep(self, step: int, state: TrainState, value: float | None = None) -> None:
        """Keeps the weights after a step as the best ones."""
        self.found = self.found | {"best_step": step, "best_value": value}
        save_best(self._workdir, state.params, state.batch_stats)


@contextmanager
def explained(workdir: Path, batch_field: str) -> Iterator[None]:
    """Turns a lack of memory, or of room on the disk, into errors that say what to do.

    `batch_field`: the field of the config that sets how many rows a batch has.
    """
    try:
        yield
    except Exception as error:
        stage, text = workdir.name, str(error)
        # The disk is looked at first: orbax reports a full one as RESOURCE_EXHAUSTED too.
        for number, reason in _FULL.items():
            if getattr(error, "errno", None) == number or os.strerror(number) in text:
                raise OSError(
                    number,
                    f"stage {stage!r}: {reason}; free some space and run the same command again, "
                    "it continues from what is complete",
                    str(workdir),
                ) from error
        if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in text or "MemoryError" in text:
            raise MemoryError(
                f"stage {stage!r}: not enough memory for a batch; lower "
                f"--config.{batch_field}, or set --config.encoder.remat=dots where the encoder "
                f"learns ({text.splitlines()[0][:200] if text else ''})"
            ) from error
        raise
