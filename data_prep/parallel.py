"""Runs jobs in worker processes with one progress bar, and stops all of them cleanly."""

import concurrent.futures
import concurrent.futures.process
import contextlib
import errno
import multiprocessing
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from stormpsr_jax.processes import exit_with_parent
from stormpsr_jax.progress import Bar


class Stopped(Exception):
    """Raised inside a job that is given up: another one failed, or the user interrupted."""


class Progress:
    """Counts the frames of one job, where the process that shows the bar can see them."""

    def __init__(self, counts: Sequence[int], index: int):
        # Shared by all jobs: [stop?, frames and frames done of job 0, of job 1, …]. Each place
        # has one writer, so it needs no lock, which a killed process might never give back.
        self._counts = counts
        self._place = 1 + 2 * index

    def begin(self, num_frames: int) -> None:
        """Says how many frames the job has."""
        self._counts[self._place] = num_frames

    def advance(self) -> None:
        """Counts a frame; raises Stopped if the job is to be given up."""
        self._counts[self._place + 1] += 1
        if self._counts[0]:
            raise Stopped


# What a worker process was started with: shared counts can be inherited, but not sent to it.
_function: Callable[[Any, Progress], None] | None = None
_counts: Sequence[int] | None = None


def run(
    function: Callable[[Any, Progress], None],
    jobs: Sequence[Any],
    workers: int,
    desc: str,
    sizes: Sequence[int] | None = None,
) -> None:
    """Calls function(job, progress) for every job, in `workers` processes (in this one if 1).

    The function calls progress.begin once and progress.advance for each frame, and leaves nothing
    behind when that raises Stopped. A job's str() names it in messages. Worker processes end with
    this process, even if it is killed. `sizes`, the frames of each job if they are known
    beforehand, make the time left right from the start.

    Raises:
        ValueError, OSError: raised by a job, with its name in front.
        RuntimeError: any other exception of a job, or the sudden death of a worker process.
        KeyboardInterrupt: as interrupted, after the jobs have been given up.
    """
    context = multiprocessing.get_context("spawn")
    counts = context.RawArray("q", 1 + 2 * len(jobs))
    if sizes is not None:
        counts[1::2] = list(sizes)
    workers = min(workers, len(jobs))
    if workers <= 1:
        pool = concurrent.futures.ThreadPoolExecutor(1)
        calls = [(function, job, Progress(counts, index)) for index, job in enumerate(jobs)]
    else:
        pool = concurrent.futures.ProcessPoolExecutor(
            workers, context, initializer=_start_worker, initargs=(function, counts)
        )
        calls = [(_run_in_worker, index, job) for index, job in enumerate(jobs)]
    # smoothing=0: the mean rate, whose estimate of the time left is the steadiest.
    with pool, Bar(desc=desc, unit="frame", smoothing=0) as bar:
        with _no_interrupt():
            futures = {pool.submit(*call): job for call, job in zip(calls, jobs, strict=True)}
        try:
            waiting = set(futures)
            while waiting:
                done, waiting = concurrent.futures.wait(
                    waiting, timeout=0.2, return_when=concurrent.futures.FIRST_COMPLETED
                )
                _show(bar, counts)
                for future in done:
                    if error := future.exception():
                        raise _named(error, futures[future])
        except BaseException:
            counts[0] = True
            pool.shutdown(wait=True, cancel_futures=True)
            raise


@contextlib.contextmanager
def _no_interrupt() -> Iterator[None]:
    """Ignores Ctrl-C for the moment in which worker processes are started, which inherit this.

    Ctrl-C reaches every process of the terminal, and the parent alone decides what happens then. A
    worker that it met while starting would die and take the others down in the middle of a file.
    """
    if threading.current_thread() is not threading.main_thread():  # it alone gets signals
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _show(bar: Bar, counts: Sequence[int]) -> None:
    """Brings the bar up to date; its total is an estimate until every job's size is known."""
    frames, done = counts[1::2], counts[2::2]
    if begun := sum(n > 0 for n in frames):
        bar.total = round(sum(frames) / begun * len(frames))
    bar.update(sum(done) - bar.n)


def _named(error: BaseException, job: Any) -> Exception:
    """Returns an error that says which job failed, of a type that the caller can act on."""
    if isinstance(error, concurrent.futures.process.BrokenProcessPool):
        named = RuntimeError(
            "a worker process died (killed, or no memory left?); run the same command again, "
            "perhaps with fewer workers; finished recordings are kept"
        )
    elif isinstance(error, OSError) and error.errno == errno.ENOSPC:
        named = OSError(
            errno.ENOSPC,
            f"{job}: no space left on the disk; free some and run the same command again, "
            "finished recordings are kept",
            error.filename,
        )
    elif isinstance(error, OSError) and error.errno is not None:
        named = OSError(error.errno, f"{job}: {error.strerror}", error.filename)
    elif isinstance(error, ValueError):
        named = ValueError(f"{job}: {error}")
    else:
        named = RuntimeError(f"{job}: {type(error).__name__}: {error}")
    named.__cause__ = error
    return named


def _start_worker(function: Callable[[Any, Progress], None], counts: Sequence[int]) -> None:
    global _function, _counts
    _function, _counts = function, counts
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # also where `run` is called in another thread
    exit_with_parent()


def _run_in_worker(index: int, job: Any) -> None:
    _function(job, Progress(_counts, index))
