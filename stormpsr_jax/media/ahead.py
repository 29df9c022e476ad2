"""A stage of a pipeline: a thread that works ahead of whoever takes its results."""

import collections
import contextlib
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

_Item = TypeVar("_Item")


def ahead(items: Generator[_Item], depth: int) -> Generator[_Item]:
    """Iterates over items that a thread makes, at most `depth` of them ahead.

    An error of the thread is raised here, after the items before it. When this iterator is closed,
    the thread ends, and `items` are closed.
    """
    with contextlib.closing(items), ThreadPoolExecutor(1) as thread:
        waiting = collections.deque(thread.submit(next, items, None) for _ in range(depth))
        try:
            while (item := waiting.popleft().result()) is not None:
                waiting.append(thread.submit(next, items, None))
                yield item
                del item  # which may be large, while the next one is waited for
        finally:
            thread.shutdown(wait=False, cancel_futures=True)
