"""Where the metrics of a run go besides metrics.jsonl: TensorBoard files, Weights & Biases."""

import contextlib
import dataclasses
import importlib.util
import os
import secrets
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import jax
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.summary import scalar

from stormpsr_jax.base import files, installed


class Sink(Protocol):
    """Takes the rows of one stage."""

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Takes the scalars of a step; OSError if there is no room for them."""

    def close(self) -> None:
        """Ends it; raises nothing."""


@dataclasses.dataclass(frozen=True)
class Sinks:
    """The sinks of a run.

    Attributes:
        names: as config.metrics_to has them.
        config: of the run, for Weights & Biases.
    """

    names: tuple[str, ...] = ("tensorboard",)
    config: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def open(self, folder: Path, step: int = 0) -> list[Sink]:
        """Opens those of a stage, by its folder, on process 0, and none on the others."""
        if jax.process_index() != 0:
            return []
        return [SINKS[name](folder, step, self.config) for name in self.names]


def find_errors(names: tuple[str, ...]) -> list[str]:
    """Says why rows could not go to Weights & Biases, if they are to."""
    if "wandb" not in names:
        return []
    spec = importlib.util.find_spec("wandb")
    if spec is None or spec.origin is None:  # a folder of that name is no package
        return [f"--config.metrics_to has 'wandb', which needs {installed.extra('wandb')}"]
    import wandb

    if wandb.setup().settings.mode == "online" and not wandb.login(prompt=False, verify=False):
        return [
            "--config.metrics_to has 'wandb', and there is no key for it: give the command `wandb "
            "login`, or set WANDB_MODE=offline, which keeps the rows for `wandb sync`"
        ]
    return []


class TensorBoard:
    """A file of events in a folder, written by the thread that calls.

    Where the disk is full that thread gets the OSError, and no other thread is left that it would
    wait for.
    """

    def __init__(self, folder: Path, step: int, config: Mapping[str, Any]):
        """Opens a new file, from which on TensorBoard drops what others have after `step`."""
        del config
        (folder := folder / "tensorboard").mkdir(parents=True, exist_ok=True)
        self._file = EventsWriter(str(folder / "events"), f".{time.time_ns()}")
        start = SessionLog(status=SessionLog.SessionStatus.Value("START"))
        self._add(step=step + 1, session_log=start)

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """As `Sink` says."""
        for name, value in scalars.items():
            self._add(step=step, summary=scalar(name, value))
        self._file.flush()

    def _add(self, **content: Any) -> None:
        self._file.write_event(Event(wall_time=time.time(), **content))

    def close(self) -> None:
        """As `Sink` says: all rows are out already, except those that there was no room for."""
        with contextlib.suppress(OSError):
            self._file.close()


class WandB:
    """The run of Weights & Biases that belongs to a work folder: all stages, also when resumed.

    Its name in `WORKDIR/wandb_run` stays the same. Metrics are called STAGE/NAME, over STAGE/step.
    WANDB_PROJECT, WANDB_ENTITY and WANDB_MODE say where they go; files, code, and what the machine
    is called and does are not sent. If it fails once the run has begun, training goes on without.
    """

    def __init__(self, folder: Path, step: int, config: Mapping[str, Any]):
        """Begins the run, or goes on with it.

        Raises:
            ValueError: it cannot be begun; says what to do.
        """
        import wandb

        del step
        workdir, stage = folder.parent, folder.name
        self._stage = stage
        self._run: wandb.Run | None = None
        path = workdir / "wandb_run"
        known = files.read_text(path).strip() if path.exists() else None
        settings = wandb.Settings(
            silent=True,
            console="off",
            disable_code=True,
            disable_git=True,
            x_disable_meta=True,
            x_disable_stats=True,
        )
        try:
            self._run = wandb.init(
                project=os.environ.get("WANDB_PROJECT", "stormpsr_jax"),
                id=known or secrets.token_hex(4),
                name=workdir.name,
                resume="allow",
                dir=workdir,
                config=dict(config),
                settings=settings,
            )
        except wandb.Error as error:
            if known:
                self._give_up(error)
                return
            raise ValueError(
                f"Weights & Biases does not begin a run ({_first_line(error)}); set "
                "WANDB_MODE=offline, or leave 'wandb' out of --config.metrics_to"
            ) from error
        if not known:
            files.write_text(path, f"{self._run.id}\n")
        self._guarded(lambda run: run.define_metric(f"{stage}/*", step_metric=f"{stage}/step"))

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """As `Sink` says."""
        row = {f"{self._stage}/{name}": value for name, value in scalars.items()}
        self._guarded(lambda run: run.log({f"{self._stage}/step": step, **row}))

    def close(self) -> None:
        """As `Sink` says; waits until all rows are sent."""
        self._guarded(lambda run: run.finish())

    def _guarded(self, function: Callable[[Any], Any]) -> None:
        if self._run is None:
            return
        try:
            function(self._run)
        except Exception as error:  # of a service in another process, nearly any
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        self._run = None
        print(
            f"{self._stage}: Weights & Biases failed ({_first_line(error)}) and gets no more rows "
            "of this stage; metrics.jsonl has all",
            flush=True,
        )


# By name, as config.metrics_to has them: (folder of a stage, step that it resumes from, config).
SINKS: dict[str, Callable[[Path, int, Mapping[str, Any]], Sink]] = {
    "tensorboard": TensorBoard,
    "wandb": WandB,
}


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
