"""SIGTERM: the run saves what it has and ends with a status that says "start me again"."""

import itertools
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import jax
from jax.experimental import multihost_utils

# EX_TEMPFAIL of sysexits.h.
EXIT_RESTART = 75
_calls = itertools.count(1)


@contextmanager
def ends_the_run() -> Iterator[None]:
    """Within it, SIGTERM raises SystemExit(EXIT_RESTART): for work that keeps what is finished.

    Of several processes, each goes on until all of them call `all_stop`.
    """

    def end(*_):
        raise SystemExit(EXIT_RESTART)

    with _on_sigterm(end):
        yield


@contextmanager
def noted() -> Iterator[list]:
    """Yields a list that is non-empty once SIGTERM came; always empty with several processes."""
    received: list[int] = []
    with _on_sigterm(lambda number, _: received.append(number)):
        yield received


def all_stop() -> bool:
    """True in the same call on every process, after SIGTERM came to any of them; then not again.

    Every process has to call it equally often, for the first time before SIGTERM can come. A single
    process has the two others instead.
    """
    # Counts over all stages: JAX looks for the call after the latest one of any process.
    return jax.process_count() > 1 and multihost_utils.reached_preemption_sync_point(next(_calls))


@contextmanager
def _on_sigterm(handler: Callable) -> Iterator[None]:
    # With several processes JAX itself listens, and Python hands signals to the main thread alone.
    if jax.process_count() > 1 or threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGTERM, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
