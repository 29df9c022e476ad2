"""How accuracy grows with the number of videos, as `benchmarks.own_product --videos` measured it.

accuracy_over_videos.json is what that benchmark writes. The page of the guide has its table.
"""

from pathlib import Path
from typing import Any

import msgspec

from stormpsr_jax.base import files
from stormpsr_jax.psr.streams import streams
from stormpsr_jax.psr.streams.select import MIN_RECORDINGS

_FILE = Path(__file__).with_name("accuracy_over_videos.json")
NEARLY = 0.95  # of the highest F1 that was measured


class Row(msgspec.Struct):
    """What a number of videos came to.

    Attributes:
        videos: to learn from: `train` of them, and `val` to choose by.
        mistakes: how often each part is put on wrong in those of train.
        streams: by stream F1, POS and so on, as in metrics.json.
    """

    videos: int
    train: int
    val: int
    mistakes: dict[str, int]
    streams: dict[str, dict[str, Any]]

    @property
    def stream(self) -> str:
        """That a model folder recognises by unless another one is asked for; see `evaluate`."""
        last = [*self.streams][-1]
        untold = streams.find(last).fitted and self.val < MIN_RECORDINGS
        return streams.BASELINE.name if untold else last

    @property
    def figures(self) -> dict[str, Any]:
        """Those of `stream`."""
        return self.streams[self.stream]

    @property
    def of_a_part(self) -> int:
        """How often a part was put on wrong, on average."""
        return round(sum(self.mistakes.values()) / len(self.mistakes))


class Curve(msgspec.Struct):
    """Of which product, with which config, on how many recordings for the test; its rows."""

    product: str
    config: str
    test: int
    rows: list[Row]

    @property
    def enough(self) -> Row:
        """The fewest videos with nearly the highest F1 that was measured."""
        best = max(row.figures["f1"] for row in self.rows)
        return next(row for row in self.rows if row.figures["f1"] >= NEARLY * best)

    def nearest(self, videos: int) -> Row:
        """The row of the most videos that are no more than so many, or else the first row."""
        return [row for row in self.rows if row.videos <= videos or row is self.rows[0]][-1]


def measured() -> Curve:
    """The curve that was measured."""
    return files.fit(files.read_json(_FILE), Curve, str(_FILE))
