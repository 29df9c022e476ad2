"""The one training loop. A stage is a `Definition`, which `train` carries out."""

import dataclasses
import errno
import functools
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from clu import parameter_overview
from jax.sharding import Mesh
from ml_collections import ConfigDict

from stormpsr_jax.base import interruption, memory
from stormpsr_jax.base.progress import Bar
from stormpsr_jax.data.pipelines import Batches
from stormpsr_jax.training import hosts, sharding
from stormpsr_jax.training.checkpoint import BEST, Checkpoints, load_best, save_best
from stormpsr_jax.training.metrics import MetricWriter
from stormpsr_jax.training.sinks import Sinks

# Steps in flight before the host looks at a loss: the device never waits for the host, and a
# non-finite loss is still noticed within this many steps.
LAG = 2


@flax.struct.dataclass
class TrainState:
    """All that a step changes; `rng` is the raw data of the stage's key and stays as it is."""

    step: jax.Array
    params: Any
    opt_state: Any
    batch_stats: Any
    rng: jax.Array


Params = Mapping[str, Any]  # a nested dict of arrays
Batch = dict[str, jax.Array]
Loss = tuple[jax.Array, tuple[dict[str, jax.Array], Params]]  # and metrics, batch_stats
LossFn = Callable[[Params, Params, Batch, jax.Array], Loss]


class NonFiniteLossError(FloatingPointError):
    """The loss or its gradient was NaN or infinite."""


def make_step(loss_fn: LossFn, optimizer: optax.GradientTransformation) -> Callable:
    """Returns the pure step (state, sums, batch) -> (state, sums, loss).

    `sums` accumulates "count", "loss", "grad_norm" and the metrics of `loss_fn` between log rows.
    The loss returned is NaN also where only the gradient is not finite.
    """

    def step(state: TrainState, sums: dict, batch: Batch) -> tuple[TrainState, dict, jax.Array]:
        rng = jax.random.fold_in(jax.random.wrap_key_data(state.rng), state.step)
        gradient = jax.value_and_grad(loss_fn, has_aux=True)
        (loss, (metrics, batch_stats)), grads = gradient(
            state.params, state.batch_stats, batch, rng
        )
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        grad_norm = optax.tree.get(opt_state, "grad_norm", optax.global_norm(updates))
        state = dataclasses.replace(
            state,
            step=state.step + 1,
            params=optax.apply_updates(state.params, updates),
            opt_state=opt_state,
            batch_stats=batch_stats,
        )
        row = {"count": 1.0, "loss": loss, "grad_norm": grad_norm, **metrics}
        sums = {name: sums[name] + jnp.asarray(row[name], jnp.float32) for name in sums}
        return state, sums, jnp.where(jnp.isfinite(grad_norm), loss, jnp.nan)

    return step


def new_state(
    optimizer: optax.GradientTransformation, params: Params, batch_stats: Params, rng: jax.Array
) -> TrainState:
    """Returns the state before the first step; `rng` is the raw data of the stage's key."""
    return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params), batch_stats, rng)


def jit_step(
    loss_fn: LossFn, optimizer: optax.GradientTransformation, shardings: Any, mesh: Mesh
) -> jax.stages.Wrapped:
    """Returns the jitted step of `make_step`, its state donated and laid out as `shardings`.

    Parameters that are split over fsdp are gathered before anything is computed with them, and all
    activations stay split by the batch.
    """
    whole = sharding.replicated(mesh)

    def with_whole_params(params: Params, *rest: Any) -> Loss:
        # Without this, XLA computes each part of a gradient on the device that holds this part of
        # the parameter, and sends the whole batch's activations there, several times per layer.
        return loss_fn(jax.lax.with_sharding_constraint(params, whole), *rest)

    return jax.jit(
        make_step(with_whole_params, optimizer),
        in_shardings=(shardings, whole, sharding.batch_sharding(mesh)),
        out_shardings=(shardings, whole, whole),
        donate_argnums=(0, 1),
    )


@dataclasses.dataclass(frozen=True)
class Definition:
    """What a stage trains, on which data, and how it is judged; `train` does the rest.

    Attributes:
        model: the Flax module or modules, for who wants to apply what was trained.
        init: () -> (params, batch_stats), scratch or init_from. Called unless the stage is done.
        loss_fn: (params, batch_stats, batch, rng) -> (loss, (scalar metrics, new batch_stats)).
        data: step -> endless iterator over what the steps after it take: dicts of this process's
            arrays (B_local, …), the same whenever and wherever it is asked for. It is closed at
            the end.
        optimizer: params -> optax transformation (see `make_optimizer`).
        schedule: step -> learning rate, for the log.
        evaluate: (params, batch_stats) on the mesh -> metrics; every eval_every steps and at the
            end. None: the last weights are the best.
        best: name of the metric of `evaluate` that is maximised; "" keeps the last weights.
        evaluate_start: also evaluate what `init` made, so that a stage which starts from trained
            weights never hands on worse ones.
        batch_field: field of the stage's config that sets the batch size, for error messages.
        export: called by process 0 with the params to hand on and the last metrics, before the
            stage counts as done.
    """

    model: Any
    init: Callable[[], tuple[Params, Params]]
    loss_fn: LossFn
    data: Batches
    optimizer: Callable[[Params], optax.GradientTransformation]
    schedule: optax.Schedule
    evaluate: Callable[[Params, Params], dict[str, float]] | None = None
    best: str = ""
    evaluate_start: bool = False
    batch_field: str = "batch"
    export: Callable[[dict, dict[str, float]], None] | None = None


def train(
    workdir: Path,
    stage: Definition,
    *,
    config: ConfigDict,
    mesh: Mesh,
    rng: jax.Array,
    checkpoint_seconds: float = 600.0,
    profile_steps: tuple[int, int] | None = None,
    sinks: Sinks | None = None,
) -> dict[str, Any]:
    """Trains one stage, or continues it where its newest checkpoint is.

    The best weights are in WORKDIR/best.safetensors at the end.

    Args:
        workdir: this stage's own folder; its name is the stage's name.
        stage: what to train.
        config: steps, log_every, eval_every, checkpoint_every, all in steps.
        mesh: of `make_mesh`.
        rng: key of the stage; step i uses fold_in(rng, i).
        checkpoint_seconds: a checkpoint is also made at the first log row this long after the last.
        profile_steps: (a, b) records steps a … b, counted from 1, for TensorBoard's profiler and
            Perfetto, under WORKDIR/profile.
        sinks: of metrics; None is TensorBoard alone.

    Returns:
        "steps", "best_step" and "metrics" of the last evaluation.

    Raises:
        NonFiniteLossError: names the step and the last good checkpoint.
        MemoryError: no memory for the batch; names the field to lower.
        OSError: the disk is full.
        SystemExit: after SIGTERM or Ctrl-C, once everything is saved, with the status of
            `interruption`. Several processes stop together at a step they agree on.
    """
    workdir = Path(workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    with explained(workdir, stage.batch_field), interruption.noted() as stop_asked:
        checkpoints = Checkpoints(workdir)
        try:
            loop = _Loop(workdir, stage, config, mesh, rng, checkpoints, sinks)
            try:
                if stage.evaluate and stage.evaluate_start and loop.step == 0:
                    loop.judge(stage.evaluate)
                loop.run(checkpoint_seconds, stop_asked, profile_steps)
            finally:
                loop.close()
            checkpoints.latest()  # waits until the last checkpoint is on disk
            if stage.export and jax.process_index() == 0:
                stage.export(load_best(workdir)[0], loop.metrics)
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
        mesh: Mesh,
        rng: jax.Array,
        checkpoints: Checkpoints,
        sinks: Sinks | None,
    ):
        self.workdir, self.stage, self.config, self.mesh = workdir, stage, config, mesh
        self.checkpoints = checkpoints
        params, batch_stats = jax.tree.map(np.asarray, stage.init())
        optimizer = stage.optimizer(params)
        if jax.process_index() == 0:
            print(parameter_overview.get_parameter_overview(params, include_stats=False))

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
        self.sums: dict[str, jax.Array] | None = None
        if restored is not None:
            self.step, self.state, values = restored
            self.best_step, self.best_value = values["best_step"], values["best_value"]
            self.metrics, self.sums = values["metrics"], self.put_sums(values["sums"])
        else:
            self.state = jax.jit(create, out_shardings=shardings)(*start)
        self.data = stage.data(self.step)
        self.saved_step, self.saved_time = self.step, time.monotonic()
        self.pending: deque[tuple[int, jax.Array]] = deque()
        self.loss = math.nan  # of the last step looked at
        self.train_step = jit_step(stage.loss_fn, optimizer, shardings, mesh)
        self.writer = MetricWriter(workdir, self.step, sinks)
        self.progress: Bar | None = None

    def run(
        self,
        checkpoint_seconds: float,
        stop_asked: list,
        profile_steps: tuple[int, int] | None,
    ) -> None:
        """Takes the remaining steps."""
        config, last = self.config, self.config.steps
        first_profiled, last_profiled = profile_steps or (0, 0)
        if first_profiled > last:
            print(f"{self.workdir.name}: no profile, it has only {last} steps", flush=True)
        profiling = False
        self.progress = progress = Bar(
            total=last,
            initial=self.step,
            desc=self.workdir.name,
            unit="step",
            disable=jax.process_index() != 0,
        )
        train_step: jax.stages.Compiled | None = None
        logged_time, logged_step, waited = time.monotonic(), self.step, 0.0
        while self.step < last:
            if self.step + 1 == first_profiled:
                self.check_losses(0)  # waits, so that no earlier step is in the trace
                jax.profiler.start_trace(self.workdir / "profile")
                profiling = True
            waited -= time.monotonic()
            batch = self.next_batch()
            waited += time.monotonic()
            if train_step is None:
                train_step = self.compile(batch)
            self.state, self.sums, loss = train_step(self.state, self.sums, batch)
            del batch  # on CPU it still is the loaders' shared memory
            self.step += 1
            self.pending.append((self.step, loss))
            self.check_losses(LAG)
            if not math.isnan(self.loss):  # there is one to show
                progress.set_postfix(loss=f"{self.loss:.4g}", refresh=False)
            progress.update()
            if profiling and self.step in (last_profiled, last):
                self.check_losses(0)
                jax.profiler.stop_trace()
                profiling = False
                print(f"{self.workdir.name}: profile in {self.workdir / 'profile'}", flush=True)
            overdue = False
            if self.step % config.log_every == 0 or self.step == last:
                self.check_losses(0)
                elapsed = time.monotonic() - logged_time
                self.log(elapsed / (self.step - logged_step), waited / elapsed)
                logged_time, logged_step, waited = time.monotonic(), self.step, 0.0
                overdue = hosts.agreed(time.monotonic() - self.saved_time > checkpoint_seconds)
            evaluate = self.stage.evaluate
            if evaluate and (self.step % config.eval_every == 0 or self.step == last):
                self.check_losses(0)
                self.judge(evaluate)
            stop = bool(stop_asked) or interruption.all_stop()
            if overdue or stop or self.step % config.checkpoint_every == 0 or self.step == last:
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

    def compile(self, batch: Batch) -> jax.stages.Compiled:
        """Compiles the step; MemoryError if what it needs is not there.

        An accelerator refuses by itself what it has no room for. The system would give a CPU more
        than there is, and then end the process.
        """
        compiled = self.train_step.lower(self.state, self.sums, batch).compile()
        analysis = compiled.memory_analysis()
        if analysis is not None and self.mesh.devices.flat[0].platform == "cpu":
            local = [d for d in self.mesh.devices.flat if d.process_index == jax.process_index()]
            memory.check_fits(analysis.temp_size_in_bytes * len(local), "a step")
        return compiled

    def next_batch(self) -> Batch:
        try:
            arrays = next(self.data)
        except StopIteration:
            raise ValueError(
                f"stage {self.workdir.name!r}: the data ended at step {self.step} of "
                f"{self.config.steps}; training data must repeat"
            ) from None
        batch = sharding.put_batch(arrays, self.mesh)
        if self.sums is None:
            args = (self.state.params, self.state.batch_stats, batch, jax.random.key(0))
            _, (metrics, _) = jax.eval_shape(self.stage.loss_fn, *args)
            self.sums = self.put_sums(dict.fromkeys(("count", "loss", "grad_norm", *metrics), 0))
        return batch

    def put_sums(self, sums: Mapping[str, float]) -> dict[str, jax.Array]:
        """Puts sums where the step leaves them; from anywhere else, it would compile twice."""
        values = {name: np.float32(value) for name, value in sums.items()}
        return jax.device_put(values, sharding.replicated(self.mesh))

    def check_losses(self, in_flight: int) -> None:
        """Looks at the losses of all steps but the last `in_flight`."""
        while len(self.pending) > in_flight:
            step, loss = self.pending.popleft()
            self.loss = float(loss)
            if not math.isfinite(self.loss):
                good = self.checkpoints.latest()
                raise NonFiniteLossError(
                    f"stage {self.workdir.name!r}: the loss or its gradient is not finite at step "
                    f"{step}; last good checkpoint: {good or 'none yet'}. Lower "
                    f"--config.{self.workdir.name}.optimizer.lr or set .clip_norm"
                )

    def log(self, seconds_per_step: float, data_wait: float) -> None:
        sums = jax.device_get(self.sums)
        count = float(sums["count"])
        row = {name: float(value) / count for name, value in sums.items() if name != "count"}
        # The rate of the update just made, which had step - 1 updates before it.
        row["lr"] = float(self.stage.schedule(self.step - 1))
        timings = {"steps_per_second": 1 / seconds_per_step, "data_wait_share": data_wait}
        self.writer.write(self.step, row, timings)
        self.sums = self.put_sums(dict.fromkeys(sums, 0))

    def judge(self, evaluate: Callable[[Params, Params], dict[str, float]]) -> None:
        weights = hosts.on_every_host((self.state.params, self.state.batch_stats))
        found = evaluate(*weights)
        self.metrics = {name: float(value) for name, value in found.items()}
        self.writer.write(self.step, {f"val/{name}": v for name, v in self.metrics.items()})
        best = self.stage.best
        if not best:
            return
        if best not in self.metrics:
            raise ValueError(f"evaluate gave {sorted(self.metrics)}, not the metric {best!r}")
        value = self.metrics[best]
        better = math.isfinite(value) and (self.best_value is None or value > self.best_value)
        # A resumed run comes to the same evaluations, so the file may be ahead of its checkpoint.
        if hosts.agreed(better):  # hosts of different kinds may differ in the last digit
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

    Args:
        workdir: the stage's folder; its name is the stage's name.
        batch_field: field of the stage's config that sets the batch size.
    """
    try:
        yield
    except Exception as error:
        stage, text = workdir.name, str(error)
        # The disk is looked at first: orbax reports a full one as RESOURCE_EXHAUSTED too.
        if getattr(error, "errno", None) == errno.ENOSPC or "No space left on device" in text:
            raise OSError(
                errno.ENOSPC,
                f"stage {stage!r}: the disk is full; free some space and run the same command "
                "again, it continues from what is complete",
                str(workdir),
            ) from error
        if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in text or "MemoryError" in text:
            raise MemoryError(
                f"stage {stage!r}: not enough memory for a batch; lower "
                f"--config.{stage}.{batch_field} ({text.splitlines()[0][:200] if text else ''})"
            ) from error
        raise
