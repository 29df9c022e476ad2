"""Processes of attempts: started quickly, limited in time and memory, and looked at.

A process is forked from this one, which has imported everything but started no device of JAX. So
an attempt costs what it does and not the seconds that imports take.
"""

import contextlib
import dataclasses
import os
import re
import resource
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

CRASHED = re.compile(r"Traceback \(most recent call last\)|Fatal Python error|Exception in thread")
FAULTS = (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL)
ERRORS = (ValueError, OSError, MemoryError, FloatingPointError)  # those that commands put in a line
MEMORY = 2**33  # bytes of address space, more than anything sound takes


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a process ended.

    Attributes:
        code: its exit status, or minus the number of the signal that ended it.
        output: what it wrote to either output.
        hung: whether it had to be killed after its time.
    """

    code: int
    output: str
    hung: bool = False

    @property
    def wrong(self) -> set[str]:
        """The verdicts that need no knowledge of what was done."""
        if self.hung:
            return {"hang"}
        crashed = CRASHED.search(self.output) or -self.code in FAULTS
        return {"traceback"} if crashed else set()

    @property
    def errors(self) -> list[str]:
        """The lines of errors."""
        return [line for line in self.output.splitlines() if line.startswith("error: ")]

    def judged(self, names: Collection[str], sound: bool = True) -> set[str]:
        """The verdicts, where an error has to have one of the names.

        Without an error, something is used silently unless what came out is `sound`.
        """
        if not self.code:
            return self.wrong | (set() if sound else {"silent"})
        if not self.errors:
            return self.wrong | {"traceback"}
        named = any(name in line for line in self.errors for name in names)
        return self.wrong | (set() if named else {"silent"})


class Process:
    """A forked process that calls a function in a folder of its own."""

    def __init__(self, function: Callable[[], object], folder: Path, name: str = "output"):
        """`function` may raise SystemExit; its output is in the file FOLDER/`name`."""
        self.log = folder / name
        self.log.touch()  # also of a process that is killed before it writes anything
        self.start = time.monotonic()
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if not self.pid:
            _child(function, folder, self.log)

    def signal(self, number: int) -> None:
        """Sends a signal, if the process has not ended yet."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def wait(self, limit: float) -> Outcome:
        """Waits until `limit` seconds after the start, then ends the process and its children."""
        hung = False
        while True:
            found, status = os.waitpid(self.pid, os.WNOHANG)
            if found:
                break
            if time.monotonic() - self.start > limit:
                hung = True
                self.signal(signal.SIGCONT)
                self.signal(signal.SIGKILL)
            time.sleep(0.01)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)  # workers that outlived it
        output = self.log.read_bytes().decode(errors="replace")
        return Outcome(os.waitstatus_to_exitcode(status), output, hung)


def call(
    function: Callable[[], object], folder: Path, limit: float = 60, memory: int = 0
) -> Outcome:
    """Calls a function in a process of its own, which may have so much memory, until its end."""
    function = limited(resource.RLIMIT_AS, memory, function) if memory else function
    return Process(function, folder).wait(limit)


def _child(function: Callable[[], object], folder: Path, log: Path) -> None:
    code = 1
    try:
        os.setsid()
        os.chdir(folder)
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for number in (1, 2):
            os.dup2(out, number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for name, number in (("stdout", 1), ("stderr", 2)):
            stream = open(number, "w", encoding="utf-8", buffering=1, closefd=False)
            setattr(sys, name, stream)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)  # until the function handles them
        function()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
            threading._shutdown()  # as at the end of any process: waits for its threads
        os._exit(code)


def made_once(folder: Path, write: Callable[[Path], object]) -> Path:
    """Returns a folder that `write` fills, in a process of its own, unless it is there already."""
    if not folder.exists():
        part = folder.with_name(f"{folder.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        outcome = call(lambda: write(part), part, limit=1800)
        if outcome.code:
            sys.exit(outcome.output)
        (part / "output").unlink()
        part.rename(folder)
    return folder


def limited(kind: int, value: int, function: Callable[[], object]) -> Callable[[], None]:
    """The function under a limit of `resource`, such as RLIMIT_AS."""

    def run() -> None:
        resource.setrlimit(kind, (value, value))
        function()

    return run


def reported(function: Callable[[], object]) -> Callable[[], None]:
    """The function, with its errors in lines as commands print them."""

    def run() -> None:
        try:
            function()
        except ERRORS as error:
            sys.exit(f"error: {error}")

    return run


def command(module, words: list[str]) -> Callable[[], None]:
    """The command of a module of data_prep, with these words."""

    def run() -> None:
        sys.argv = [module.__name__, *words]
        sys.exit(module.main())

    return run


@contextlib.contextmanager
def small_disk(folder: Path, size: int) -> Iterator[bool]:
    """Mounts a disk of `size` bytes there; yields False where that is not allowed."""
    folder.mkdir(parents=True, exist_ok=True)
    mounted = os.system(f"mount -t tmpfs -o size={size} tmpfs '{folder}' 2>/dev/null") == 0
    try:
        yield mounted
    finally:
        if mounted:
            os.system(f"umount -l '{folder}'")
