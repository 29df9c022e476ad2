"""Progress of long work: a bar on a terminal, lines of text elsewhere."""

import heapq
import math
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TextIO

from tqdm import tqdm

# Seconds between two states of a bar, and between two lines.
_BAR_SECONDS, _LINE_SECONDS = 0.5, 10.0
_MEMORY_SECONDS = 30.0
UNKNOWN = -1  # frames of a job


class Progress(Protocol):
    """What a job counts its frames with, wherever it runs."""

    def begin(self, num_frames: int) -> None:
        """Says, once, how many frames the job has."""

    def advance(self, count: int = 1) -> None:
        """Counts frames that are done."""


class Bar(tqdm):
    """A tqdm bar with rate and time left. Where no terminal shows it, it writes whole lines."""

    def __init__(self, **options: Any) -> None:
        """Options as for tqdm."""
        seconds = _BAR_SECONDS if sys.stderr.isatty() else _LINE_SECONDS
        super().__init__(mininterval=seconds, maxinterval=seconds, dynamic_ncols=True, **options)

    def moveto(self, n: int) -> None:
        """Moves between the lines of several bars, which only a terminal can."""
        if self.fp.isatty():
            super().moveto(n)

    @staticmethod
    def status_printer(file: TextIO) -> Callable[[str], None]:
        """How tqdm writes a state of the bar."""
        if file.isatty():
            return tqdm.status_printer(file)

        def write(text: str) -> None:
            if text:
                file.write(text + "\n")
                file.flush()

        return write


class JobsBar(Bar):
    """The frames of all jobs, with a time left that goes by how workers will take the jobs.

    Frames left ÷ rate is right only if all workers are busy to the end: of three long recordings
    that two workers make, the third is made by one of them alone. The time left goes by the rate of
    a worker in about the last _MEMORY_SECONDS, as other programs come and go; the rate shown is the
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

    def show(self, unfinished: int, workers: int | None = None) -> None:
        """Brings the bar up to date.

        Args:
            unfinished: jobs that are.
            workers: that there are now, if their number changes.
        """
        done = self._counts[2::2]
        self._workers = workers or self._workers
        self.total = self._total()
        now, frames = time.monotonic(), sum(done)
        if self._begun is not None:
            active = min(self._workers, self._unfinished, sum(n > 0 for n in done))
            kept = math.exp((self._seen - now) / _MEMORY_SECONDS)
            self._busy = kept * self._busy + active * (now - self._seen)
            # Less are done where a job was begun again.
            self._made = kept * self._made + max(0, frames - self.n)
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
        if not (known := [size for size in sizes if size != UNKNOWN]):
            return []
        return [sum(known) / len(known) if size == UNKNOWN else size for size in sizes]

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
