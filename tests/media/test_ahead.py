"""Threads that work ahead; order and errors are tested by what reads videos."""

import itertools
import time

from stormpsr_jax.media.sources import ahead


def test_ahead_is_bounded_and_closes_what_it_takes_from():
    made, closed = [], []

    def endless():
        try:
            for i in itertools.count():
                made.append(i)
                yield i
        finally:
            closed.append(True)

    items = ahead(endless(), 3)
    assert [next(items), next(items)] == [0, 1]
    time.sleep(0.3)
    assert len(made) <= 2 + 3 + 1  # taken, waiting in the queue, and in the thread's hands
    items.close()
    assert closed == [True]
