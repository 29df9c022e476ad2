"""Progress of long work: a bar on a terminal, lines of text elsewhere."""

import sys
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TextIO

from tqdm import tqdm

# Seconds between two states of a bar, and between two lines.
_BAR_SECONDS, _LINE_SECONDS = 0.5, 10.0
UNKNOWN = -1  # frames of a job


class Progress(Protocol):
    """What a job counts its frames with, wherever it runs."""

    def begin(self, num_frames: int) -> None:
        """Says, once, how many frames the job has."""

    def advance(self, count: int = 1) -> None:
        """Counts frames that are done."""


class Uncounted:
    """A job's progress of which nobody is told."""

    def begin(self, num_frames: int) -> None:
        """Takes no note of the number."""

    def advance(self, count: int = 1) -> None:
        """Takes no note of it."""


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
    """The frames of all jobs. Its clock starts with the first: workers take seconds to start."""

    def __init__(self, desc: str, counts: Sequence[int]):
        """Shows shared counts: after the first one, frames and frames done of each job."""
        self._counts = counts
        super().__init__(desc=desc, unit="frame", total=self._total())

    def show(self) -> None:
        """Brings the bar up to date."""
        self.total, done = self._total(), sum(self._counts[2::2])
        if done and not self.n:
            self.start_t = self.last_print_t = self._time()
        self.update(done - self.n)  # less are done where a job was begun again

    def _total(self) -> int | None:
        """Frames of all jobs: an estimate by their mean until the size of each is known."""
        sizes = self._counts[1::2]
        known = [size for size in sizes if size != UNKNOWN]
        return round(sum(known) * len(sizes) / len(known)) or None if known else None
