"""The metrics of a stage: metrics.jsonl and pace.jsonl, and a file for TensorBoard."""

import contextlib
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

import jax
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.summary import scalar

from stormpsr_jax.base import files


class MetricWriter:
    """Appends rows to WORKDIR/metrics.jsonl, and gives them to TensorBoard.

    Only process 0 writes. Rows beyond `step`, the step that training resumes from, are cut, so that
    the file of an interrupted run equals that of an undisturbed one. Timings differ from run to run
    and therefore have a file of their own, WORKDIR/pace.jsonl.

    Files are written by the thread that calls: where the disk is full it gets the OSError.
    """

    def __init__(self, workdir: Path, step: int = 0):
        """Opens all, in the stage's folder."""
        self._rows: TextIO | None = None
        if jax.process_index() != 0:
            return
        self._rows = _open(workdir / "metrics.jsonl", step)
        self._pace = _open(workdir / "pace.jsonl", step)
        self._board = TensorBoard(workdir, step)

    def write(
        self,
        step: int,
        scalars: Mapping[str, float],
        timings: Mapping[str, float] | None = None,
    ) -> None:
        """Writes one row {"step": step, **scalars}, and another of `timings`."""
        if self._rows is None:
            return
        # Rows reach the file before the checkpoint of the same step is made.
        print(json.dumps({"step": step, **scalars}), file=self._rows, flush=True)
        if timings:
            print(json.dumps({"step": step, **timings}), file=self._pace, flush=True)
        known = {n: v for n, v in {**scalars, **(timings or {})}.items() if v is not None}
        self._board.write(step, known)

    def close(self) -> None:
        """Closes all."""
        if self._rows is None:
            return
        for file in (self._rows, self._pace):
            # All rows are out already, except those that there was no room for.
            with contextlib.suppress(OSError):
                file.close()
        self._board.close()


class TensorBoard:
    """A file of events in FOLDER/tensorboard, written by the thread that calls.

    Where the disk is full that thread gets the OSError, and no other thread is left that it would
    wait for.
    """

    def __init__(self, folder: Path, step: int = 0):
        """Opens a new file, from which on TensorBoard drops what others have after `step`."""
        (folder := folder / "tensorboard").mkdir(parents=True, exist_ok=True)
        self._file = EventsWriter(str(folder / "events"), f".{time.time_ns()}")
        start = SessionLog(status=SessionLog.SessionStatus.Value("START"))
        self._add(step=step + 1, session_log=start)

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Takes the scalars of a step; OSError if there is no room for them."""
        for name, value in scalars.items():
            self._add(step=step, summary=scalar(name, value))
        self._file.flush()

    def _add(self, **content: Any) -> None:
        self._file.write_event(Event(wall_time=time.time(), **content))

    def close(self) -> None:
        """Ends it: all rows are out already, except those that there was no room for."""
        with contextlib.suppress(OSError):
            self._file.close()


def _open(path: Path, step: int) -> TextIO:
    """Opens a file for further rows, behind those up to a step; none are kept of step 0."""
    # A run from step 0 writes its row of step 0 again.
    rows = read_metrics(path) if step and path.exists() else []
    files.write_text(path, "".join(json.dumps(row) + "\n" for row in rows if row["step"] <= step))
    return path.open("a")


def read_metrics(path: Path) -> list[dict]:
    """Returns the rows of a metrics.jsonl; a last row cut short by a crash is left out.

    Raises:
        ValueError: another row is damaged; names file and line.
    """
    rows = []
    for number, line in enumerate(files.read_text(path).splitlines(keepends=True), start=1):
        if not line.endswith("\n"):
            continue
        try:
            row = json.loads(line)
            files.field(row, "step", int, str(path))
        except (ValueError, RecursionError) as error:
            raise ValueError(
                f"{path}: line {number}: is damaged ({error}); it is a log: remove the line"
            ) from error
        rows.append(row)
    return rows
