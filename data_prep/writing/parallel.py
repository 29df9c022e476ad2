"""Runs jobs in worker processes or on a cluster, with one bar, and stops all of them cleanly."""

import concurrent.futures
import concurrent.futures.process
import contextlib
import errno
import multiprocessing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from stormpsr_jax.base import cluster
from stormpsr_jax.base.interruption import deaf_to_ctrl_c, exit_with_parent
from stormpsr_jax.base.progress import Bar

Workers = int | str  # how many processes make recordings, or the address of a Ray cluster

_function: Callable[[Any], None]  # of a worker process, to which it is sent once


def run(
    function: Callable[[Any], None],
    jobs: Sequence[Any],
    workers: Workers,
    desc: str,
    sizes: Sequence[int],
    lock: Path,
) -> None:
    """Calls function(job) for every job, in `workers` processes (in this one if 1).

    Worker processes end with this process, even if it is killed. Jobs are begun in their order.
    The bar goes on by the size of a job that has ended. On a cluster, machines have to see the
    `lock` that this process holds.

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
    with Bar(desc=desc, unit="frame", total=sum(sizes)) as bar:
        if min(workers, len(jobs)) > 1:
            _run_processes(function, jobs, sizes, workers, bar)
            return
        for job, size in zip(jobs, sizes, strict=True):
            try:
                function(job)
            except Exception as error:
                raise _named(error, job) from error
            bar.update(size)


def _run_processes(
    function: Callable[[Any], None],
    jobs: Sequence[Any],
    sizes: Sequence[int],
    workers: int,
    bar: Bar,
) -> None:
    others = set(multiprocessing.active_children())
    pool = concurrent.futures.ProcessPoolExecutor(
        min(workers, len(jobs)),
        multiprocessing.get_context("spawn"),
        initializer=_start_worker,
        initargs=(function,),
    )
    try:
        # A worker that Ctrl-C meets while it starts would take the others down in mid-file.
        with deaf_to_ctrl_c():
            futures = {pool.submit(_run_in_worker, job): i for i, job in enumerate(jobs)}
        for future in concurrent.futures.as_completed(futures):
            if error := future.exception():
                raise _named(error, jobs[futures[future]])
            bar.update(sizes[futures[future]])
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in set(multiprocessing.active_children()) - others:
            process.terminate()  # what it has begun stands in no file that counts
            process.join()
        raise
    pool.shutdown()


def _start_worker(function: Callable[[Any], None]) -> None:
    global _function
    _function = function
    exit_with_parent()


def _run_in_worker(job: Any) -> None:
    _function(job)


def _named(error: BaseException, job: Any) -> Exception:
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
