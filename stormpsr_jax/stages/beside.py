"""Trains the detector beside the other stages, in a process of its own.

On CPUs no stage of small networks keeps more than one core and a half busy, and the detector reads
nothing that the others make but the data. The process has a work folder of its own,
WORKDIR/beside, with its output in log.txt; what it has finished is taken over from there.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path

import jax
from ml_collections import ConfigDict

from stormpsr_jax.base import interruption
from stormpsr_jax.base.errors import tell
from stormpsr_jax.base.processes import deaf_to_ctrl_c, exit_with_parent
from stormpsr_jax.stages import detector
from stormpsr_jax.stages.context import Context
from stormpsr_jax.training import hosts

_LOG = "log.txt"
_POLL = 0.5  # seconds


class Beside:
    """The process, from `start` on; it is stopped where the run ends before it.

    Attributes:
        folder: its work folder, in that of the run.
    """

    def __init__(self, context: Context, run: Callable[[ConfigDict, Path], None], wanted: bool):
        """Starts nothing yet; `run`: what runs the stages of a config in a work folder."""
        self.folder = context.workdir / "beside"
        self._context, self._run, self._wanted = context, run, wanted
        self._process: multiprocessing.process.BaseProcess | None = None

    def start(self) -> None:
        """Starts it, unless it was, is not wanted or there is no core for it."""
        context, name = self._context, detector.STAGE.name
        if (
            self._process is not None
            or not self._wanted
            or not detector.STAGE.is_chosen(context)
            or (context.workdir / name).exists()  # begun here
            or (jax.default_backend(), jax.process_count()) != ("cpu", 1)
            or hosts.cores() < 2
        ):
            return
        config = context.config.copy_and_resolve_references()
        config.stages = (name,)
        config.data.dir = str(context.data_dir.resolve())
        self.folder.mkdir(exist_ok=True)
        process = multiprocessing.get_context("spawn").Process(
            target=_train, args=(self._run, config, self.folder.resolve())
        )
        with deaf_to_ctrl_c():
            process.start()
        self._process = process
        print(f"{name}: trains beside the others, see {self.folder / _LOG}", flush=True)

    def wait(self) -> None:
        """Waits until it has ended, and shows its progress."""
        if self._process is None:
            return
        with open(self.folder / _LOG, encoding="utf-8", errors="replace") as log:
            log.seek(0, os.SEEK_END)
            with interruption.noted():
                while self._process.exitcode is None:
                    self._process.join(_POLL)
                    print(log.read(), end="", flush=True)
                    interruption.end_if_asked("stopped; run the same command again")
        if self._process.exitcode:
            tell("warning", f"{self.folder / _LOG}: did not get to its end; it is trained here")

    def close(self) -> None:
        """Stops it; it saves what it has, and goes on with the next run."""
        if self._process is not None and self._process.exitcode is None:
            self._process.terminate()
            self._process.join()


def _train(run: Callable[[ConfigDict, Path], None], config: ConfigDict, folder: Path) -> None:
    exit_with_parent()
    with open(folder / _LOG, "a", encoding="utf-8") as log:
        for number in (1, 2):
            os.dup2(log.fileno(), number)
    with interruption.handled():
        run(config, folder)
