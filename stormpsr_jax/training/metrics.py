"""What a stage logs: metrics.jsonl, pace.jsonl, a file for TensorBoard, and how fast it trains."""

import collections
import contextlib
import json
import time
from collections.abc import Iterator, Mapping
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
        self._writes = jax.process_index() == 0
        if self._writes:
            self._rows = _open(workdir / "metrics.jsonl", step)
            self._pace = _open(workdir / "pace.jsonl", step)
            self._board = TensorBoard(workdir, step)

    def write(
        self, step: int, scalars: Mapping[str, float], timings: Mapping[str, float] | None = None
    ) -> None:
        """Writes one row {"step": step, **scalars}, and another of `timings`."""
        if not self._writes:
            return
        for file, row in ((self._rows, scalars), (self._pace, timings or {})):
            if row:  # it reaches the file before the checkpoint of the same step is made
                print(json.dumps({"step": step, **row}), file=file, flush=True)
        self._board.write(step, {**scalars, **(timings or {})})

    def close(self) -> None:
        """Closes all: all rows are out already, except those that there was no room for."""
        for part in (self._rows, self._pace, self._board) if self._writes else ():
            with contextlib.suppress(OSError):
                part.close()


class TensorBoard:
    """A file of events in FOLDER/tensorboard; who writes gets the OSError of a full disk."""

    def __init__(self, folder: Path, step: int = 0):
        """Opens a new file, from which on TensorBoard drops what others have after `step`."""
        (folder := folder / "tensorboard").mkdir(parents=True, exist_ok=True)
        self._file = EventsWriter(str(folder / "events"), f".{time.time_ns()}")
        start = SessionLog(status=SessionLog.SessionStatus.Value("START"))
        self._add(step=step + 1, session_log=start)

    def write(self, step: int, scalars: Mapping[str, float | None]) -> None:
        """Takes the scalars of a step, without None; OSError if there is no room for them."""
        for name, value in scalars.items():
            if value is not None:
                self._add(step=step, summary=scalar(name, value))
        self._file.flush()

    def _add(self, **content: Any) -> None:
        self._file.write_event(Event(wall_time=time.time(), **content))

    def close(self) -> None:
        """Ends it."""
        self._file.close()


def _open(path: Path, step: int) -> TextIO:
    """Opens a file for further rows, behind those up to a step; none are kept of step 0."""
    # A run from step 0 writes its row of step 0 again.
    rows = read_metrics(path) if step and path.exists() else []
    files.write_text(path, "".join(json.dumps(row) + "\n" for row in rows if row["step"] <= step))
    return path.open("a")


def read_metrics(path: Path) -> list[dict]:
    """The rows of a metrics.jsonl, without a last one cut short by a crash.

    ValueError names file and line of another row that is damaged.
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


class Pace:
    """The clock of a stage, which is set back at each log row.

    Its figures differ from run to run, so they are no part of metrics.jsonl.

    Attributes:
        operations: multiplications and additions of matrix products and convolutions in a step, on
            all devices; what is computed twice to save memory counts twice.
        rows: of a global batch.
    """

    def __init__(self, step: int, unit: str):
        """Begins at a step; `unit`: what a row of a batch is, "pictures" or "clips"."""
        self._unit, self.operations, self.rows = unit, 0.0, 0
        self._begin(step)

    def _begin(self, step: int) -> None:
        self._step, self._since = step, time.monotonic()
        self._spent: dict[str, float] = collections.defaultdict(float)  # seconds

    @contextlib.contextmanager
    def spent(self, part: str) -> Iterator[None]:
        """While the loop is "waiting" for a batch, or does what is no part of a step: "apart"."""
        begun = time.monotonic()
        yield
        self._spent[part] += time.monotonic() - begun

    def lap(self, step: int) -> dict[str, float]:
        """Returns the figures since the last lap, for the log row of `step`.

        steps_per_second; pictures_per_second or clips_per_second; data_wait_share, of the time;
        flops_per_second, of all devices.
        """
        seconds = time.monotonic() - self._since - self._spent["apart"]
        rate = (step - self._step) / seconds
        figures = {
            "steps_per_second": rate,
            f"{self._unit}_per_second": rate * self.rows,
            "data_wait_share": self._spent["waiting"] / seconds,
            "flops_per_second": rate * self.operations,
        }
        self._begin(step)
        return figures
