"""SIGTERM: the run saves what it has and ends with a status that says "start me again"."""

import itertools
import os
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
    """Within it, SIGTERM exits at once with EXIT_RESTART: for work that even SIGKILL does not harm.

    Of several processes, each goes on until all of them call `all_stop`.
    """

    def exit_now(*_):
        # Not an exception: raised in a destructor, it would be reported and forgotten.
        os.write(2, b"stopped; run again\n")
        os._exit(EXIT_RESTART)

    with _on_sigterm(exit_now):
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


def end(message: str) -> None:
    """Raises SystemExit(EXIT_RESTART), after process 0 has printed the message."""
    if jax.process_index() == 0:
        print(message, flush=True)
    raise SystemExit(EXIT_RESTART)


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
