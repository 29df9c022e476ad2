"""The one training loop. A stage is a `Definition`, which `train` carries out."""

import errno
import functools
import math
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
from clu import parameter_overview
from jax.sharding import Mesh
from ml_collections import ConfigDict

from stormpsr_jax.base import interruption, memory
from stormpsr_jax.base.progress import Bar
from stormpsr_jax.networks import architectures
from stormpsr_jax.training import hosts, sharding
from stormpsr_jax.training.checkpoint import BEST, Checkpoints, load_best, save_best
from stormpsr_jax.training.definition import Definition
from stormpsr_jax.training.metrics import MetricWriter
from stormpsr_jax.training.pace import Pace
from stormpsr_jax.training.step import Params, TrainState, jit_step, jit_steps, new_state

# Dispatches in flight before the host looks at their losses: the device never waits for the host,
# and a non-finite loss is still noticed within this many.
LAG = 2
CHECKPOINT_SECONDS = 600.0
# Errors of a disk that has no room for this user, and what to say of them.
_FULL = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "the quota of the disk is used up"}


class NonFiniteLossError(FloatingPointError):
    """The loss or its gradient was NaN or infinite."""


def train(
    workdir: Path,
    stage: Definition,
    *,
    config: ConfigDict,
    mesh: Mesh,
    rng: jax.Array,
    log_every: int,
    checkpoint_every: int,
    dtype: str = "float32",
    profile_steps: tuple[int, int] | None = None,
) -> dict[str, Any]:
    """Trains one stage, or continues it where its newest checkpoint is.

    The best weights are in WORKDIR/best.safetensors at the end.

    Args:
        workdir: this stage's own folder; its name is the stage's name.
        stage: what to train.
        config: steps, and eval_every in steps.
        mesh: of `make_mesh`.
        rng: key of the stage; step i uses fold_in(rng, i).
        log_every, checkpoint_every: steps from one log row, or checkpoint, to the next. One is also
            made at the first log row CHECKPOINT_SECONDS after the last.
        dtype: of activations, for the log.
        profile_steps: (a, b) records steps a … b, counted from 1, for TensorBoard's profiler and
            Perfetto, under WORKDIR/profile.

    Returns:
        "steps", "best_step" and "metrics" of the last evaluation.

    Raises:
        NonFiniteLossError: names the step and the last good checkpoint.
        MemoryError: no memory for the batch; names the field to lower.
        OSError: the disk, or this user's quota of it, is full.
        SystemExit: after SIGTERM or Ctrl-C, once everything is saved, with the status of
            `interruption`. Several processes stop together at a step they agree on.
    """
    workdir = Path(workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    batch_field = f"{workdir.name}.{stage.batch_field}"
    with explained(workdir, batch_field), interruption.noted() as stop_asked:
        checkpoints, begun = Checkpoints(workdir), time.monotonic()
        try:
            every = log_every, checkpoint_every
            loop = _Loop(workdir, stage, config, every, mesh, rng, dtype, checkpoints)
            try:
                if stage.evaluate and stage.evaluate_start and loop.step == 0:
                    with loop.pace.apart():
                        loop.judge(stage.evaluate)
                loop.run(stop_asked, profile_steps)
            finally:
                loop.close()
            checkpoints.latest()  # waits until the last checkpoint is on disk
            if loop.judged and jax.process_index() == 0:
                share = loop.judged / (time.monotonic() - begun)
                print(f"{workdir.name}: evaluations took {share:.0%} of the time", flush=True)
        finally:
            checkpoints.close()
    return {"steps": loop.step, "best_step": loop.best_step, "metrics": loop.metrics}


class _Loop:
    """What the loop holds between steps."""

    def __init__(
        self,
        workdir: Path,
        stage: Definition,
        config: ConfigDict,
        every: tuple[int, int],
        mesh: Mesh,
        rng: jax.Array,
        dtype: str,
        checkpoints: Checkpoints,
    ):
        self.workdir, self.stage, self.config, self.mesh = workdir, stage, config, mesh
        self.log_every, self.checkpoint_every = every
        self.checkpoints = checkpoints
        params, batch_stats = jax.tree.map(np.asarray, stage.init())
        optimizer = stage.optimizer(params)
        if jax.process_index() == 0:
            count = parameter_overview.count_parameters
            parts = ", ".join(f"{name} {count({name: part}):,}" for name, part in params.items())
            print(f"{count(params):,} parameters: {parts}", flush=True)

        create = functools.partial(new_state, optimizer)
        start = (params, batch_stats, np.asarray(jax.random.key_data(rng)))
        abstract = jax.eval_shape(create, *start)
        shardings = sharding.state_shardings(abstract, mesh)
        # Restore precedence: this workdir's newest readable checkpoint; else what `init` made, that
        # is init_from where the config names weights, and scratch otherwise.
        restored = checkpoints.restore(
            jax.tree.map(
                lambda a, s: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=s), abstract, shardings
            ),
            functools.partial(_check_best, workdir, (abstract.params, abstract.batch_stats)),
        )
        self.step, self.best_step, self.best_value = 0, None, None
        self.metrics: dict[str, float] = {}
        self.judged = 0.0  # seconds
        self.state: TrainState
        self.sums: dict[str, jax.Array] | None = None
        if restored is not None:
            self.step, self.state, values = restored
            self.best_step, self.best_value = values["best_step"], values["best_value"]
            self.metrics, self.sums = values["metrics"], self.put_sums(values["sums"])
        else:
            self.state = jax.jit(create, out_shardings=shardings)(*start)
        self.data = stage.data(self.step)
        self.saved_step, self.saved_time = self.step, time.monotonic()
        self.pending: deque[tuple[int, int, jax.Array]] = deque()  # step before, steps, losses
        self.loss = math.nan  # of the last step looked at
        whole = sharding.replicated(mesh)
        self.held = sharding.put(stage.held(), whole) if stage.held else {}
        self.several = stage.steps_per_dispatch > 1 or bool(self.held)
        self.room = max(stage.steps_per_dispatch, 2)  # batches: XLA may compile one in another way
        make = jit_steps if self.several else jit_step
        self.train_step = make(stage.loss_fn, optimizer, shardings, mesh)
        self.pace = Pace(self.step, mesh, dtype, stage.unit)
        self.writer = MetricWriter(workdir, self.step)
        self.progress: Bar | None = None

    def run(self, stop_asked: list, profile_steps: tuple[int, int] | None) -> None:
        """Takes the remaining steps."""
        config, last = self.config, self.config.steps
        first_profiled, last_profiled = profile_steps or (0, 0)
        if first_profiled > last:
            print(f"{self.workdir.name}: no profile, it has only {last} steps", flush=True)
        elif 0 < first_profiled <= self.step:
            print(f"{self.workdir.name}: no profile, it goes on after step {self.step}", flush=True)
        profiling = False
        self.progress = progress = Bar(
            total=last,
            initial=self.step,
            desc=self.workdir.name,
            unit="step",
            disable=jax.process_index() != 0,
        )
        train_step: jax.stages.Compiled | None = None
        while self.step < last:
            if self.step + 1 == first_profiled:
                self.check_losses(0)  # waits, so that no earlier step is in the trace
                jax.profiler.start_trace(self.workdir / "profile")
                profiling = True
            with self.pace.waiting():
                count = self.steps_until(first_profiled - 1, last_profiled)
                batch, count = self.next_batches(count, stop_asked)
            if train_step is None:
                with self.pace.apart():
                    train_step = self.compile(batch)
            self.state, self.sums, losses = train_step(self.state, self.sums, *batch)
            del batch  # on CPU it still is the loaders' shared memory
            self.pending.append((self.step, count, losses))
            self.step += count
            self.check_losses(LAG)
            if not math.isnan(self.loss):  # there is one to show
                progress.set_postfix(loss=f"{self.loss:.4g}", refresh=False)
            progress.update(count)
            if profiling and self.step in (last_profiled, last):
                self.check_losses(0)
                jax.profiler.stop_trace()
                profiling = False
                print(f"{self.workdir.name}: profile in {self.workdir / 'profile'}", flush=True)
            overdue = False
            if self.step % self.log_every == 0 or self.step == last:
                self.check_losses(0)
                self.log()
                late = time.monotonic() - self.saved_time > CHECKPOINT_SECONDS
                overdue = bool(hosts.of_process_0(late))
            evaluate = self.stage.evaluate
            if evaluate and (self.step % config.eval_every == 0 or self.step == last):
                self.check_losses(0)
                with self.pace.apart():
                    self.judge(evaluate)
            stop = bool(stop_asked) or interruption.all_stop()
            due = self.step % self.checkpoint_every == 0 or self.step == last
            if overdue or stop or due:
                self.save()
            if stop and self.step < last:
                progress.close()
                self.checkpoints.latest()
                interruption.end(
                    f"{self.workdir.name}: stopped and saved at step {self.step}; run the same "
                    "command again to go on"
                )
        progress.close()
        if self.best_step is None:
            self.best_step = self.step
            save_best(self.workdir, self.state.params, self.state.batch_stats)

    def close(self) -> None:
        """Ends the loaders, closes the logs, and ends the bar, before somebody says what failed."""
        if self.progress is not None:
            self.progress.close()
        self.data.close()
        self.writer.close()

    def compile(self, batch: tuple) -> jax.stages.Compiled:
        """Compiles the step for `next_batches`; MemoryError if what it needs is not there.

        An accelerator refuses by itself what it has no room for. The system would give a CPU more
        than there is, and then end the process.
        """
        traced = self.train_step.trace(self.state, self.sums, *batch)
        self.pace.operations = architectures.cost_of(traced.jaxpr).operations
        compiled = traced.lower().compile()
        analysis = compiled.memory_analysis()
        if analysis is not None and self.mesh.devices.flat[0].platform == "cpu":
            local = [d for d in self.mesh.devices.flat if d.process_index == jax.process_index()]
            memory.check_fits(analysis.temp_size_in_bytes * len(local), "a step")
        return compiled

    def steps_until(self, *further: int) -> int:
        """The steps of a dispatch: at most up to the next one after which something is done."""
        last, most = self.config.steps, self.stage.steps_per_dispatch
        every = [self.log_every, self.checkpoint_every]
        every += [self.config.eval_every] if self.stage.evaluate else []
        ends = [self.step - self.step % each + each for each in every]
        ends += [step for step in further if step > self.step]
        return min(most, last - self.step, *(end - self.step for end in ends))

    def next_batches(self, count: int, stop_asked: list) -> tuple[tuple, int]:
        """The arguments of the step after state and sums, and of how many steps they are.

        Of fewer than `count` where the run was asked to stop, so that it does not matter for this
        how many steps are in a dispatch.
        """
        drawn = [self.next_arrays()]
        while len(drawn) < count and not stop_asked:
            drawn.append(self.next_arrays())
        arguments: tuple
        if self.several:
            # Always as many, of which the last ones may be empty: there is one program for all.
            whole = {n: np.zeros((self.room, *a.shape), a.dtype) for n, a in drawn[0].items()}
            for i, arrays in enumerate(drawn):
                for name, array in arrays.items():
                    whole[name][i] = array
            batches = sharding.put(whole, sharding.batch_sharding(self.mesh, axis=1))
            arguments = self.held, batches, np.int32(len(drawn))
        else:
            batches = sharding.put(drawn[0], sharding.batch_sharding(self.mesh))
            arguments = (batches,)
        if self.sums is None:
            one = {n: a.shape[1:] if self.several else a.shape for n, a in batches.items()}
            shapes = {n: jax.ShapeDtypeStruct(s, batches[n].dtype) for n, s in one.items()}
            args = (self.state.params, self.state.batch_stats, self.held | shapes)
            _, (metrics, _) = jax.eval_shape(self.stage.loss_fn, *args, jax.random.key(0))
            self.sums = self.put_sums(dict.fromkeys(("count", "loss", "grad_norm", *metrics), 0))
        return arguments, len(drawn)

    def next_arrays(self) -> dict[str, np.ndarray]:
        """This process's part of the next batch."""
        arrays = next(self.data)
        self.pace.rows = len(next(iter(arrays.values()))) * jax.process_count()
        return arrays

    def put_sums(self, sums: Mapping[str, float]) -> dict[str, jax.Array]:
        """Puts sums where the step leaves them; from anywhere else, it would compile twice."""
        values = {name: np.float32(value) for name, value in sums.items()}
        return jax.device_put(values, sharding.replicated(self.mesh))

    def check_losses(self, in_flight: int) -> None:
        """Looks at the losses of all dispatches but the last `in_flight`."""
        while len(self.pending) > in_flight:
            before, count, losses = self.pending.popleft()
            found = np.ravel(losses)[:count]
            self.loss = float(found[-1])
            if not np.isfinite(found).all():
                step = before + 1 + int(np.flatnonzero(~np.isfinite(found))[0])
                good = self.checkpoints.latest()
                raise NonFiniteLossError(
                    f"stage {self.workdir.name!r}: the loss or its gradient is not finite at step "
                    f"{step}; last good checkpoint: {good or 'none yet'}. Lower "
                    f"--config.{self.workdir.name}.optimizer.lr or set .clip_norm; on a GPU with "
                    "dtype=bfloat16 also try --config.attention=xla"
                )

    def log(self) -> None:
        sums = jax.device_get(self.sums)
        count = float(sums["count"])
        row = {name: float(value) / count for name, value in sums.items() if name != "count"}
        # The rate of the update just made, which had step - 1 updates before it.
        row["lr"] = float(self.stage.schedule(self.step - 1))
        self.writer.write(self.step, row, self.pace.lap(self.step))
        self.sums = self.put_sums(dict.fromkeys(sums, 0))

    def judge(self, evaluate: Callable[[Params, Params], dict[str, float]]) -> None:
        begun = time.monotonic()
        weights = hosts.on_every_host((self.state.params, self.state.batch_stats))
        found = evaluate(*weights)
        self.metrics = {name: float(value) for name, value in found.items()}
        row = {f"val/{name}": value for name, value in self.metrics.items()}
        seconds = time.monotonic() - begun
        self.judged += seconds
        self.writer.write(self.step, row, {"evaluation_seconds": seconds})
        if not self.stage.best:
            return
        value = self.metrics[self.stage.best]
        better = math.isfinite(value) and (self.best_value is None or value > self.best_value)
        # A resumed run comes to the same evaluations, so the file may be ahead of its checkpoint.
        if hosts.of_process_0(better):  # hosts of different kinds may differ in the last digit
            self.best_step, self.best_value = self.step, value
            save_best(self.workdir, self.state.params, self.state.batch_stats)

    def save(self) -> None:
        if self.saved_step == self.step:
            return
        self.check_losses(0)
        values = {
            "best_step": self.best_step,
            "best_value": self.best_value,
            "metrics": self.metrics,
            # float32 -> JSON -> float32 is exact, so an open log row continues where it was.
            "sums": {name: float(value) for name, value in jax.device_get(self.sums).items()},
        }
        self.checkpoints.save(self.step, self.state, values)
        self.saved_step, self.saved_time = self.step, time.monotonic()


def _check_best(workdir: Path, abstract: tuple[Any, Any], values: dict) -> None:
    """Raises ValueError if the best weights, which a checkpoint counts on, are damaged or gone."""
    if values["best_step"] is None:
        return
    shapes = [jax.tree.map(np.shape, tree) for tree in (load_best(workdir), abstract)]
    if shapes[0] != shapes[1]:
        raise ValueError(f"{workdir / BEST} holds the weights of another network")


@contextmanager
def explained(workdir: Path, batch_field: str) -> Iterator[None]:
    """Turns the two failures of a machine that is too small into errors that say what to do.

    `batch_field`: the field of the config that sets how many rows a batch has.
    """
    try:
        yield
    except Exception as error:
        stage, text = workdir.name, str(error)
        # The disk is looked at first: orbax reports a full one as RESOURCE_EXHAUSTED too.
        for number, what in _FULL.items():
            if getattr(error, "errno", None) == number or os.strerror(number) in text:
                raise OSError(
                    number,
                    f"stage {stage!r}: {what}; free some space and run the same command again, "
                    "it continues from what is complete",
                    str(workdir),
                ) from error
        if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in text or "MemoryError" in text:
            raise MemoryError(
                f"stage {stage!r}: not enough memory for a batch; lower "
                f"--config.{batch_field} ({text.splitlines()[0][:200] if text else ''})"
            ) from error
        raise
