"""How processes end: by SIGTERM and Ctrl-C, and workers with the process that started them.

A handler raises nothing: an exception inside another library may be reported and forgotten. JAX is
imported only where several processes need it, so that the first seconds of a run are covered too.
"""

import contextlib
import itertools
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from multiprocessing import resource_tracker
from typing import Any

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


def install() -> dict[int, Any]:
    """From now on the main thread handles signals as `handled` says; returns former handlers."""
    # What an end at once leaves to Python's tracker of resources, that removes; it need not warn.
    sys.warnoptions.append("ignore:resource_tracker:UserWarning")
    return {number: signal.signal(number, _handle) for number in _STATUS}


@contextlib.contextmanager
def handled() -> Iterator[None]:
    """Within it, SIGTERM and Ctrl-C end the run at once, but only note themselves inside `noted`.

    At once is right for work that even SIGKILL does not harm. Of several processes, each goes on
    until all of them call `all_stop`.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # Python hands signals to the main thread alone
        return
    before = install()
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _received.clear()


@contextlib.contextmanager
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
        signal.signal(signal.SIGTERM, _handle)


def _handle(number: int, _: object) -> None:
    global _passed_on
    if _several and not _passed_on:
        _passed_on = True
        _report(number, "all processes will save and stop; a second one ends this one at once")
        os.kill(os.getpid(), signal.SIGTERM)
    elif _noting and not _received and not _several:
        _received.append(number)
        _report(number, "saving what there is; a second one ends at once")
    else:
        again = _received or _passed_on
        _report(number, "ended" if again else "stopped; run the same command again to go on")
        os._exit(_STATUS[number])


def _report(number: int, text: str) -> None:
    os.write(2, f"{_NAMES[number]}: {text}\n".encode())  # `print` may be what was interrupted


# --- Worker processes -----------------------------------------------------------------------------


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
