"""Runs jobs in worker processes or on a cluster, with one bar, and stops all of them cleanly."""

import concurrent.futures
import concurrent.futures.process
import contextlib
import errno
import multiprocessing
import time
from collections.abc import Callable, Iterable, MutableSequence, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from stormpsr_jax.base import cluster
from stormpsr_jax.base.interruption import deaf_to_ctrl_c, exit_with_parent
from stormpsr_jax.base.progress import Bar

STOP_SECONDS = 1.0  # in which workers stop by themselves

Workers = int | str  # how many processes make recordings, or the address of a Ray cluster


class Stopped(Exception):
    """Raised inside a job that is given up: another one failed, or the user interrupted."""


# What a worker process was started with: shared counts can be inherited, but not sent to it.
_function: Callable[..., None]
_counts: MutableSequence[int]


def run(
    function: Callable[..., None],
    jobs: Sequence[Any],
    workers: Workers,
    desc: str,
    sizes: Sequence[int] | None,
    lock: Path,
) -> None:
    """Calls function(job, advance) for every job, in `workers` processes (in this one if 1).

    The function calls advance() for each frame, and leaves nothing behind when that raises Stopped.
    Worker processes end with this process, even if it is killed. Jobs are begun in their order.
    `sizes`, the frames of each if they are known, tell the time left. On a cluster, whose machines
    have to see the `lock` that this process holds, it is function(job).

    Raises:
        ValueError, OSError: raised by a job, with its name (str) in front.
        ChildProcessError: a worker process died.
        RuntimeError: any other exception of a job.
    """
    if isinstance(workers, str):
        with contextlib.closing(cluster.run(workers, function, jobs, lock=lock)) as ends:
            for index, _, error in ends:
                if error is not None:
                    raise _named(error, jobs[index])
        return
    context = multiprocessing.get_context("spawn")
    # Shared by all jobs: [stop?, frames done of job 0, of job 1, …]. Each place has one writer, so
    # it needs no lock, which a killed process might never give back.
    counts = context.RawArray("q", 1 + len(jobs))
    workers = min(workers, len(jobs))
    pool: concurrent.futures.Executor
    if workers <= 1:
        pool = concurrent.futures.ThreadPoolExecutor(1)
        calls = [partial(_do, function, counts, i, job) for i, job in enumerate(jobs)]
    else:
        pool = concurrent.futures.ProcessPoolExecutor(
            workers, context, initializer=_start_worker, initargs=(function, counts)
        )
        calls = [partial(_run_in_worker, i, job) for i, job in enumerate(jobs)]
    total = None if sizes is None else sum(sizes)
    with pool, Bar(desc=desc, unit="frame", total=total) as bar:
        others = set(multiprocessing.active_children())
        processes = set[multiprocessing.process.BaseProcess]()
        try:
            # A worker that Ctrl-C meets while it starts would take the others down in mid-file.
            with deaf_to_ctrl_c():
                futures = {pool.submit(call): job for call, job in zip(calls, jobs, strict=True)}
                processes = set(multiprocessing.active_children()) - others
            waiting = set(futures)
            while waiting:
                done, waiting = concurrent.futures.wait(
                    waiting, timeout=0.2, return_when=concurrent.futures.FIRST_COMPLETED
                )
                bar.update(sum(counts[1:]) - bar.n)
                for future in done:
                    if failure := future.exception():
                        raise _named(failure, futures[future])
        except BaseException:
            counts[0] = True
            pool.shutdown(wait=False, cancel_futures=True)
            _end(processes)
            raise


def _end(processes: Iterable[multiprocessing.process.BaseProcess]) -> None:
    """Gives worker processes a moment to leave nothing behind, then ends them.

    One that is still starting, which takes seconds, has nothing to leave; and one that is deep in
    something long may be killed at any time, as the machine may.
    """
    deadline = time.monotonic() + STOP_SECONDS
    for process in processes:
        process.join(max(0.0, deadline - time.monotonic()))
        process.terminate()


def _named(error: BaseException, job: Any) -> Exception:
    """Returns an error that says which job failed, of a type that the caller can act on."""
    named: Exception
    if isinstance(error, concurrent.futures.process.BrokenProcessPool):
        named = ChildProcessError(
            "a worker process died (killed, or no memory left?); run the same command again, "
            "perhaps with fewer workers; finished recordings are kept"
        )
    elif isinstance(error, OSError) and error.errno == errno.ENOSPC:
        named = OSError(
            errno.ENOSPC,
            f"{job}: no space left on the disk; free some and run the same command again, "
            "finished recordings are kept",
        )
    elif isinstance(error, OSError) and error.errno is not None:
        named = OSError(error.errno, f"{job}: {error.strerror}", error.filename)
    elif isinstance(error, ValueError):
        named = ValueError(f"{job}: {error}")
    else:
        named = RuntimeError(f"{job}: {type(error).__name__}: {error}")
    named.__cause__ = error
    return named


def _do(function: Callable[..., None], counts: MutableSequence[int], index: int, job: Any) -> None:
    """Does a job, whose frames are counted where the process that shows the bar can see them."""

    def advance() -> None:
        counts[1 + index] += 1
        if counts[0]:
            raise Stopped

    if counts[0]:
        raise Stopped
    function(job, advance)


def _start_worker(function: Callable[..., None], counts: MutableSequence[int]) -> None:
    global _function, _counts
    _function, _counts = function, counts
    exit_with_parent()


def _run_in_worker(index: int, job: Any) -> None:
    _do(_function, _counts, index, job)
