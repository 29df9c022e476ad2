"""Progress of long work: a bar on a terminal, lines of text elsewhere."""

import sys
from collections.abc import Callable
from typing import Any, TextIO

from tqdm import tqdm

# Seconds between two states of a bar, and between two lines.
_BAR_SECONDS, _LINE_SECONDS = 0.5, 10.0


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
