"""SIGTERM and Ctrl-C: the run saves what it has, and its exit status says how it ended.

Both are handled by the same code, and never as an exception: one that is raised while an object is
destroyed, or inside another library, may be reported and forgotten. They are handled in a thread of
their own, as the main thread comes to nothing else while JAX compiles or waits for a device. JAX is
imported only where several processes need it, so that the first seconds of a run are covered too.
"""

import itertools
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

# After SIGTERM: EX_TEMPFAIL of sysexits.h, "run it again". After Ctrl-C: what shells expect.
EXIT_RESTART, EXIT_INTERRUPTED = 75, 130
_STATUS: dict[int, int] = {signal.SIGTERM: EXIT_RESTART, signal.SIGINT: EXIT_INTERRUPTED}
_NAMES: dict[int, str] = {signal.SIGTERM: "SIGTERM", signal.SIGINT: "Ctrl-C"}

_received: list[int] = []  # signals that were noted and not yet acted upon
_noting = 0  # depth of `noted`
_several = False  # processes in this run
_passed_on = False  # Ctrl-C became the SIGTERM that JAX tells all processes of
_all_stop = False  # what `all_stop` has said
_calls = itertools.count(1)


def install() -> Callable[[], None]:
    """From now on the main thread handles signals as `handled` says; returns what undoes this."""
    # Numbers 0…2, where a shell has closed them, must not become those of a file of the run.
    while (number := os.open(os.devnull, os.O_RDWR)) < 3:
        pass
    os.close(number)
    # What an end at once leaves to Python's tracker of resources, that removes; it need not warn.
    sys.warnoptions.append("ignore:resource_tracker:UserWarning")
    read, write = os.pipe()
    os.set_blocking(write, False)
    watcher = threading.Thread(target=_watch, args=(read,), daemon=True)
    watcher.start()
    before = signal.set_wakeup_fd(write), {n: signal.signal(n, _nothing) for n in _STATUS}

    def undo() -> None:
        wakeup, handlers = before
        for number, handler in handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(wakeup)
        os.close(write)
        watcher.join()
        os.close(read)
        _received.clear()

    return undo


@contextmanager
def handled() -> Iterator[None]:
    """Within it, SIGTERM and Ctrl-C end the run at once, but only note themselves inside `noted`.

    At once is right for work that even SIGKILL does not harm. Of several processes, each goes on
    until all of them call `all_stop`.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # Python hands signals to the main thread alone
        return
    undo = install()
    try:
        yield
    finally:
        undo()


@contextmanager
def noted() -> Iterator[list[int]]:
    """Yields a list that is non-empty once SIGTERM or Ctrl-C came; a second one ends at once.

    With several processes the list stays empty: see `all_stop`.
    """
    global _noting
    _noting += 1
    try:
        yield _received
    finally:
        _noting -= 1


def end_if_asked(message: str) -> None:
    """Ends the run with a message if SIGTERM or Ctrl-C was noted."""
    if _received:
        end(message)


def all_stop() -> bool:
    """True from the same call on on every process, after SIGTERM came to any of them.

    Every process has to call it equally often, for the first time before SIGTERM can come. A single
    process has `noted` instead.
    """
    global _all_stop
    import jax
    from jax.experimental import multihost_utils

    # JAX says it once, which may be after the last step of a stage, where nothing is left to stop.
    if not _all_stop and jax.process_count() > 1:
        # Counts over all stages: JAX looks for the call after the latest one of any process.
        _all_stop = multihost_utils.reached_preemption_sync_point(next(_calls))
    return _all_stop


def end(message: str) -> None:
    """Raises SystemExit with the status of the signal, after process 0 has printed the message."""
    import jax

    if jax.process_index() == 0:
        print(message, flush=True)
    raise SystemExit(_STATUS[_received[0]] if _received else EXIT_RESTART)


def connected(num_processes: int) -> None:
    """To be called once JAX has connected the processes of a run.

    Of several, JAX takes SIGTERM over, to tell all of them; Ctrl-C becomes SIGTERM. A single one
    takes it back.
    """
    global _several
    _several = num_processes > 1
    if not _several and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _nothing)


def _nothing(*_: object) -> None:
    """Handler of both signals: that there is one makes Python write their numbers to the pipe."""


def _watch(pipe: int) -> None:
    """Handles the signals whose numbers come out of a pipe, until its other end is closed."""
    while number := os.read(pipe, 1):
        if number[0] in _STATUS:
            _handle(number[0])


def _handle(number: int) -> None:
    global _passed_on
    name, status = _NAMES[number], _STATUS[number]
    if _several and not _passed_on:
        _passed_on = True
        _say(f"{name}: all processes will save and stop; a second one ends this one at once")
        os.kill(os.getpid(), signal.SIGTERM)
    elif _noting and not _received and not _several:
        _received.append(number)
        _say(f"{name}: saving what there is; a second one ends at once")
    else:
        twice = _received or _passed_on
        _say(f"{name}: " + ("ended" if twice else "stopped; run the same command again to go on"))
        os._exit(status)


def _say(text: str) -> None:
    os.write(2, f"{text}\n".encode())  # `print` may be what was interrupted
