"""Runs jobs in worker processes with one progress bar, and stops all of them cleanly."""

import concurrent.futures
import concurrent.futures.process
import errno
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Callable, Sequence
from typing import Any

import tqdm


class Stopped(Exception):
    """Raised inside a job that is given up: another one failed, or the user interrupted."""


class Progress:
    """Counts frames across processes; its bar's total is an estimate until every job has begun."""

    def __init__(self):
        context = multiprocessing.get_context("spawn")
        # jobs begun, frames in them, frames done, stop?
        self._counts = context.Array("q", 4)

    def begin(self, num_frames: int) -> None:
        """Says how many frames the job that now begins has."""
        with self._counts.get_lock():
            self._counts[0] += 1
            self._counts[1] += num_frames

    def advance(self) -> None:
        """Counts a frame; raises Stopped if the job is to be given up."""
        with self._counts.get_lock():
            self._counts[2] += 1
            if self._counts[3]:
                raise Stopped

    def stop(self) -> None:
        """Lets every running job raise Stopped at its next frame."""
        self._counts[3] = 1

    def show(self, bar: tqdm.tqdm, num_jobs: int) -> None:
        """Brings the bar of num_jobs jobs up to date."""
        begun, frames, done, _ = self._counts[:]
        if begun:
            bar.total = round(frames / begun * num_jobs)
        bar.update(done - bar.n)


# What a worker process was started with: shared counters can be inherited, but not sent to it.
_function: Callable[[Any, Progress], None] | None = None
_progress: Progress | None = None


def run(
    function: Callable[[Any, Progress], None], jobs: Sequence[Any], workers: int, desc: str
) -> None:
    """Calls function(job, progress) for every job, in `workers` processes (in this one if 1).

    The function calls progress.begin once and progress.advance for each frame, and leaves nothing
    behind when that raises Stopped. A job's str() names it in messages. Worker processes end with
    this process, even if it is killed.

    Raises:
        ValueError, OSError: raised by a job, with its name in front.
        RuntimeError: any other exception of a job, or the sudden death of a worker process.
        KeyboardInterrupt: as interrupted, after the jobs have been given up.
    """
    workers = min(workers, len(jobs))
    progress = Progress()
    if workers <= 1:
        pool = concurrent.futures.ThreadPoolExecutor(1)
        submit = lambda job: pool.submit(function, job, progress)  # noqa: E731
    else:
        pool = concurrent.futures.ProcessPoolExecutor(
            workers,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_start_worker,
            initargs=(function, progress),
        )
        submit = lambda job: pool.submit(_run_in_worker, job)  # noqa: E731
    # smoothing=0: the mean rate, whose estimate of the time left is the steadiest.
    with pool, tqdm.tqdm(desc=desc, unit="frame", smoothing=0, mininterval=0.5) as bar:
        futures = {submit(job): job for job in jobs}
        try:
            waiting = set(futures)
            while waiting:
                done, waiting = concurrent.futures.wait(
                    waiting, timeout=0.2, return_when=concurrent.futures.FIRST_COMPLETED
                )
                progress.show(bar, len(jobs))
                for future in done:
                    if error := future.exception():
                        raise _named(error, futures[future])
        except BaseException:
            progress.stop()
            pool.shutdown(wait=True, cancel_futures=True)
            raise


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


def _start_worker(function: Callable[[Any, Progress], None], progress: Progress) -> None:
    global _function, _progress
    _function, _progress = function, progress
    # Ctrl-C reaches every process of the terminal; the parent alone decides what happens then.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    multiprocessing.connection.wait([multiprocessing.parent_process().sentinel])
    os._exit(1)


def _run_in_worker(job: Any) -> None:
    _function(job, _progress)
