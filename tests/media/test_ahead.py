"""Threads that work ahead."""

import time

import pytest

from stormpsr_jax.media.ahead import ahead


def test_ahead_order_errors_and_bounded():
    assert list(ahead((i for i in range(100)), 3)) == list(range(100))

    def failing():
        yield 1
        raise ValueError("two")

    items = ahead(failing(), 3)
    assert next(items) == 1
    with pytest.raises(ValueError, match="two"):
        next(items)
    made, closed = [], []

    def endless():
        try:
            for i in range(10**9):
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
