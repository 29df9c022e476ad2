"""Worker processes."""

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from multiprocessing import resource_tracker


def exit_with_parent(*_: object) -> None:
    """Called in a worker process: ends it when its parent ends, even by SIGKILL.

    A killed parent cannot stop its workers, and each would keep its memory for ever.
    """
    if (parent := multiprocessing.parent_process()) and parent.pid:
        _end_with(parent.pid)


@contextlib.contextmanager
def deaf_to_ctrl_c() -> Iterator[None]:
    """Processes that this thread starts within it never see Ctrl-C, not even while they import.

    It comes to every process of the terminal, and the parent alone decides what happens then.
    """
    resource_tracker.ensure_running()  # which would unblock the signal when it is started
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield  # meanwhile another thread of this process gets it, or this one afterwards
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


PARENT = "STORMPSR_PARENT"  # variable of a command's process: the number of the one that started it


def end_with_parent() -> None:
    """Ends the process of a command when the one that PARENT names ends, even by SIGKILL."""
    number = os.environ.pop(PARENT, "")
    if number and int(number) == os.getppid():
        _end_with(int(number))


def _end_with(parent: int) -> None:
    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.2)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
