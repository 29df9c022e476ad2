"""Metric writers: metrics.jsonl for programs, TensorBoard files for people."""

import contextlib
import hashlib
import json
import struct
import time
from collections.abc import Mapping
from pathlib import Path

import jax
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.record_writer import masked_crc32c
from tensorboardX.summary import scalar

from stormpsr_jax import files


class MetricWriter:
    """Appends rows to WORKDIR/metrics.jsonl and scalars to WORKDIR/tensorboard.

    Only process 0 writes. Rows beyond `step`, the step that training resumes from, are cut, so that
    the file of an interrupted run equals that of an undisturbed one. Timings differ from run to run
    and therefore go to TensorBoard alone.

    Both are written by the thread that calls: where the disk is full it gets the OSError, and no
    other thread is left that it would wait for.
    """

    def __init__(self, workdir: Path, step: int = 0, checksum: str = ""):
        """Opens both.

        Args:
            workdir: the stage's folder.
            step: that training resumes from.
            checksum: of the rows up to there, as `checksum` said when they were written; '' if that
                is not known. Other rows are reported, and training goes on.
        """
        self._digest = hashlib.sha256()
        self._file = self._board = None
        if jax.process_index() != 0:
            return
        path = workdir / "metrics.jsonl"
        # A run from step 0 writes its row of step 0 again.
        rows = read_metrics(path) if step and path.exists() else []
        kept = "".join(json.dumps(row) + "\n" for row in rows if row["step"] <= step)
        self._digest.update(kept.encode())
        if checksum not in ("", self.checksum):
            print(f"{path}: was damaged or changed: rows up to step {step} are missing", flush=True)
        files.write_text(path, kept)
        self._file = path.open("a")
        folder = workdir / "tensorboard"
        folder.mkdir(exist_ok=True)
        self._board = (folder / f"events.out.tfevents.{time.time_ns()}").open("wb")
        self._write_event(file_version="brain.Event:2")
        # TensorBoard drops what earlier files have from this step on.
        start = SessionLog(status=SessionLog.SessionStatus.Value("START"))
        self._write_event(step=step + 1, session_log=start)

    @property
    def checksum(self) -> str:
        """That of all rows of metrics.jsonl; of none on other processes than 0."""
        return self._digest.hexdigest()

    def write(
        self,
        step: int,
        scalars: Mapping[str, float],
        timings: Mapping[str, float] | None = None,
    ) -> None:
        """Writes one row {"step": step, **scalars}, and `timings` to TensorBoard.

        Raises:
            OSError: it cannot be written.
        """
        if self._file is None:
            return
        row = json.dumps({"step": step, **scalars}) + "\n"
        self._digest.update(row.encode())
        self._file.write(row)
        # Rows reach the file before the checkpoint of the same step is made.
        self._file.flush()
        for name, value in {**scalars, **(timings or {})}.items():
            if value is not None:
                self._write_event(step=step, summary=scalar(name, value))
        self._board.flush()

    def _write_event(self, **content) -> None:
        """Appends a record in the TFRecord format: length, its checksum, data, their checksum."""
        data = Event(wall_time=time.time(), **content).SerializeToString()
        length = struct.pack("<Q", len(data))
        checksums = (struct.pack("<I", masked_crc32c(part)) for part in (length, data))
        self._board.write(length + next(checksums) + data + next(checksums))

    def close(self) -> None:
        """Closes both files."""
        for file in (self._file, self._board):
            if file is not None:
                # All rows are out already, except those that there was no room for.
                with contextlib.suppress(OSError):
                    file.close()


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
