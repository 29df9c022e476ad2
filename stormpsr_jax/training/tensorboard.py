"""The metrics of a stage as a file for TensorBoard."""

import contextlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.summary import scalar


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
