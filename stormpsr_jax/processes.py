"""Worker processes."""

import multiprocessing
import multiprocessing.connection
import os
import threading


def exit_with_parent(*_) -> None:
    """Called in a worker process: ends it when its parent ends, even by SIGKILL.

    A killed parent cannot stop its workers, and each would keep its memory for ever.
    """
    threading.Thread(target=_wait_and_exit, daemon=True).start()


def _wait_and_exit() -> None:
    multiprocessing.connection.wait([multiprocessing.parent_process().sentinel])
    os._exit(1)
