"""Runs jobs in worker processes with one progress bar, and stops all of them cleanly."""

import concurrent.futures
import concurrent.futures.process
import contextlib
import errno
import heapq
import math
import multiprocessing
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from stormpsr_jax.processes import exit_with_parent
from stormpsr_jax.progress import Bar

MEMORY_SECONDS = 30.0
STOP_SECONDS = 1.0  # in which workers stop by themselves
_UNKNOWN = -1  # frames of a job


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
        """Says how many frames the job has; raises Stopped if it is to be given up."""
        self._counts[self._place] = num_frames
        if self._counts[0]:
            raise Stopped

    def advance(self) -> None:
        """Counts a frame; raises Stopped if the job is to be given up."""
        self._counts[self._place + 1] += 1
        if self._counts[0]:
            raise Stopped


class _JobsBar(Bar):
    """The frames of all jobs, with a time left that goes by how workers will take the jobs.

    Frames left ÷ rate is right only if all workers are busy to the end: of three long recordings
    that two workers make, the third is made by one of them alone. The time left goes by the rate of
    a worker in about the last MEMORY_SECONDS, as other programs come and go; the rate shown is the
    mean of all workers together. Clocks start with the first frames: workers take seconds to start.
    """

    def __init__(self, desc: str, counts: Sequence[int], workers: int):
        """Shows the shared counts of the jobs, which so many workers take in their order."""
        self._counts, self._workers = counts, workers
        self._begun: tuple[float, int] | None = None  # when, and with how many frames, it began
        self._seen = 0.0  # when it was last looked at
        self._busy = self._made = 0.0  # seconds of all workers, and frames, that are remembered
        self._unfinished = len(counts) // 2
        bar = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}<{left}, {rate_fmt}]"
        super().__init__(desc=desc, unit="frame", bar_format=bar, total=self._total())

    def show(self, unfinished: int) -> None:
        """Brings the bar up to date, of whose jobs so many are unfinished."""
        done = self._counts[2::2]
        self.total = self._total()
        now, frames = time.monotonic(), sum(done)
        if self._begun is not None:
            active = min(self._workers, self._unfinished, sum(n > 0 for n in done))
            kept = math.exp((self._seen - now) / MEMORY_SECONDS)
            self._busy = kept * self._busy + active * (now - self._seen)
            self._made = kept * self._made + frames - self.n
        elif frames:
            self._begun = now, frames
        self._seen, self._unfinished = now, unfinished
        self.update(frames - self.n)

    def _total(self) -> int | None:
        """Frames of all jobs: an estimate until the size of each is known."""
        return round(sum(self._sizes())) or None

    def _sizes(self) -> list[float]:
        """Frames of each job, the mean where it is unknown; none if that is so of all."""
        sizes = self._counts[1::2]
        if not (known := [size for size in sizes if size != _UNKNOWN]):
            return []
        return [sum(known) / len(known) if size == _UNKNOWN else size for size in sizes]

    @property
    def format_dict(self) -> dict[str, Any]:
        """What is shown: as in tqdm, but for the rate and the time left."""
        shown = super().format_dict | {"rate": None, "left": "?"}
        if self._begun is None or not self._made:
            return shown
        start, frames = self._begun
        shown["rate"] = (self.n - frames) / (self._seen - start)
        if sizes := self._sizes():
            loads = [0.0] * self._workers
            for size, count in zip(sizes, self._counts[2::2], strict=True):
                heapq.heapreplace(loads, loads[0] + max(0, size - count))
            shown["left"] = self.format_interval(max(loads) * self._busy / self._made)
        return shown


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
    this process, even if it is killed. Jobs are begun in their order. `sizes`, the frames of each
    if they are known beforehand, make the time left right from the start.

    Raises:
        ValueError, OSError: raised by a job, with its name in front.
        ChildProcessError: a worker process died.
        RuntimeError: any other exception of a job.
        KeyboardInterrupt: as interrupted, after the jobs have been given up.
    """
    context = multiprocessing.get_context("spawn")
    counts = context.RawArray("q", 1 + 2 * len(jobs))
    counts[1::2] = [_UNKNOWN] * len(jobs) if sizes is None else list(sizes)
    workers = min(workers, len(jobs))
    if workers <= 1:
        pool = concurrent.futures.ThreadPoolExecutor(1)
        calls = [(function, job, Progress(counts, index)) for index, job in enumerate(jobs)]
    else:
        pool = concurrent.futures.ProcessPoolExecutor(
            workers, context, initializer=_start_worker, initargs=(function, counts)
        )
        calls = [(_run_in_worker, index, job) for index, job in enumerate(jobs)]
    with pool, _JobsBar(desc, counts, workers) as bar:
        others = set(multiprocessing.active_children())
        with _no_interrupt():
            futures = {pool.submit(*call): job for call, job in zip(calls, jobs, strict=True)}
        processes = set(multiprocessing.active_children()) - others
        try:
            waiting = set(futures)
            while waiting:
                done, waiting = concurrent.futures.wait(
                    waiting, timeout=0.2, return_when=concurrent.futures.FIRST_COMPLETED
                )
                bar.show(len(waiting))
                for future in done:
                    if error := future.exception():
                        raise _named(error, futures[future])
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


def _named(error: BaseException, job: Any) -> Exception:
    """Returns an error that says which job failed, of a type that the caller can act on."""
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


def _start_worker(function: Callable[[Any, Progress], None], counts: Sequence[int]) -> None:
    global _function, _counts
    _function, _counts = function, counts
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # also where `run` is called in another thread
    exit_with_parent()


def _run_in_worker(index: int, job: Any) -> None:
    if _counts[0]:
        raise Stopped
    _function(job, Progress(_counts, index))
