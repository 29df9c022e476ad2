"""A task of a Ray cluster on the node that does it; see `cluster`."""

import dataclasses
import logging
import os
import pickle
import socket
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from stormpsr_jax.base import files, installed

LOOK_SECONDS = 0.5  # between two looks at how far the tasks are
SHARED_SECONDS = 10.0  # until a network disk shows one machine what another has written


@dataclasses.dataclass(frozen=True)
class Owner:
    """The process that a node works for.

    Attributes:
        installed: see `installed.parts`.
        folder: where it runs; relative paths begin there.
        lock: the file that the process has locked, in the folder of the results.
        owner: the line in that file.
    """

    host: str
    installed: dict[str, str]
    folder: str
    lock: str
    owner: str | None


class _Counted:
    """Tells at times how many frames of a task are done."""

    def __init__(self, tell: Callable[[int, int], None]):
        self._tell, self._size, self._done, self._last = tell, 0, 0, 0.0

    def begin(self, num_frames: int) -> None:
        self._size = num_frames
        self._tell(self._size, 0)

    def advance(self, count: int = 1) -> None:
        self._done += count
        if (now := time.monotonic()) >= self._last + LOOK_SECONDS or self._done == self._size:
            self._last = now
            self._tell(self._size, self._done)


class _Kept(logging.Handler):
    """Keeps what is logged, as (level, text)."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[tuple[int, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append((record.levelno, record.getMessage()))


def work(shared: bytes, job: bytes, tell: Callable[[int, int], None]) -> tuple:
    """Does a task, in a process of a node; `shared` is a pickled (Owner, pickled function).

    Returns:
        Why this node cannot do it (then nothing else), what the function returned, or its exception
        and where it came from, and what it logged.
    """
    owner, function = pickle.loads(shared)
    if misfit := _misfit(owner):
        return misfit, None, None, "", []
    kept = _Kept()
    logging.getLogger().addHandler(kept)
    try:
        result = pickle.loads(function)(pickle.loads(job), _Counted(tell))
        return None, result, None, "", kept.lines
    except Exception as error:
        where = f"on node {socket.gethostname()}:\n{traceback.format_exc()}"
        return None, None, _picklable(error), where, kept.lines
    finally:
        logging.getLogger().removeHandler(kept)


def _misfit(owner: Owner) -> str | None:
    """Why this node cannot work for a process, if so; enters the folder where that runs."""
    me = f"node {socket.gethostname()}"
    mine = installed.parts()
    differing = [
        f"{name} {mine[name]}, {owner.host} has {value}"
        for name, value in owner.installed.items()
        if mine[name] != value
    ]
    if differing:
        return f"{me} has {'; '.join(differing)}; install the same on all nodes"
    try:
        os.chdir(owner.folder)
    except OSError as error:
        return (
            f"{me}: {owner.folder}, where the command runs on {owner.host}: {error.strerror}; run "
            "it in a folder of a disk that all nodes share"
        )
    deadline = time.monotonic() + SHARED_SECONDS
    while files.read_owner(Path(owner.lock)) != owner.owner:
        if time.monotonic() > deadline:
            return (
                f"{me} does not share the folder {Path(owner.lock).parent} with {owner.host}; give "
                "an --out on a disk that all nodes share"
            )
        time.sleep(0.1)
    return None


def _picklable(error: Exception) -> Exception:
    """The exception, or one that says the same, if it cannot go to another process."""
    try:
        return pickle.loads(pickle.dumps(error))
    except Exception:  # it may be of any library
        return RuntimeError(f"{type(error).__name__}: {error}")
