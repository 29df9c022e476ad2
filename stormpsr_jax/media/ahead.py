"""A stage of a pipeline: a thread that works ahead of whoever takes its results."""

import contextlib
import queue
import threading
from collections.abc import Generator
from typing import TypeVar

_Item = TypeVar("_Item")
_WAIT = 0.1  # seconds after which a thread whose results nobody takes looks whether to stop


def ahead(items: Generator[_Item], depth: int) -> Generator[_Item]:
    """Iterates over items that a thread makes, at most `depth` of them ahead.

    An error of the thread is raised here, after the items before it. When this iterator is closed,
    the thread ends, and `items` are closed by it.
    """
    made: queue.Queue = queue.Queue(depth)
    stop = threading.Event()

    def put(item: _Item | None, error: BaseException | None, last: bool) -> None:
        while not stop.is_set():
            with contextlib.suppress(queue.Full):
                return made.put((item, error, last), timeout=_WAIT)

    def work() -> None:
        try:
            with contextlib.closing(items):
                for item in items:
                    put(item, None, False)
                    if stop.is_set():
                        return
        except BaseException as error:
            put(None, error, True)
        else:
            put(None, None, True)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while True:
            item, error, last = made.get()
            if error is not None:
                raise error
            if last:
                return
            yield item
            del item  # which may be large, while the next one is waited for
    finally:
        stop.set()
        thread.join()
