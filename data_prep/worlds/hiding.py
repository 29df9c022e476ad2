"""What hides the product when: hands, and a head that looks elsewhere.

Around each completion both hands cover the product, in any world.
"""

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np

# Start, end, and what is going on: hands "cover" the product, rest on its edge ("partial") or leave
# it in "clear" view, or the camera looks "away".
Segment = tuple[float, float, str]


@dataclasses.dataclass(frozen=True)
class Occlusion:
    """How much is hidden; times in seconds, ranges of uniform draws.

    Attributes:
        before: both hands cover the product this long before a completion,
        after: and this long after it.
        partial: hands rest on the product's edge for this long at a time.
        clear: they are away for this long at a time,
        clear_chance: with this chance, after each `partial`.
    """

    before: tuple[float, float]
    after: tuple[float, float]
    partial: tuple[float, float]
    clear: tuple[float, float]
    clear_chance: float

    def segments(
        self, events: Sequence[float], end: float, rng: np.random.Generator
    ) -> list[Segment]:
        """Cover around each event; partial and clear in turn elsewhere."""
        segments: list[Segment] = []
        now = 0.0
        for event in [*events, None]:
            until = end if event is None else max(event - rng.uniform(*self.before), now)
            clear_next = now == 0.0
            while now < until:
                kind = "clear" if clear_next else "partial"
                stop = now + rng.uniform(*getattr(self, kind))
                # What would be left over belongs to the last segment.
                stop = until if stop > until - 1.0 else stop
                segments.append((now, stop, kind))
                now = stop
                # The finished product is looked at more often than one in the making.
                chance = self.clear_chance if event is not None else 0.9
                clear_next = kind == "partial" and rng.random() < chance
            if event is not None:
                # An event within the last cover makes it longer.
                stop = event + rng.uniform(*self.after)
                segments.append((now, max(stop, now), "cover"))
                now = max(stop, now)
        return segments


OCCLUSIONS = {
    "light": Occlusion((0.8, 2.0), (0.5, 1.6), (0.8, 2.2), (3.0, 7.0), 0.75),
    "default": Occlusion((1.2, 3.0), (1.0, 3.0), (1.5, 3.5), (4.0, 8.0), 0.28),
    "heavy": Occlusion((1.5, 3.5), (1.5, 4.0), (2.0, 4.0), (3.0, 6.0), 0.2),
}


@dataclasses.dataclass(frozen=True)
class Glimpses:
    """How a product is seen that people seldom look at. Times are in seconds.

    Pairs (m, s) are of log-normal distributions: median, and standard deviation of the logarithm.

    Attributes:
        gap, look: of times in which the product is not in clear view, and is.
        longest: gap.
        after_event: share of gaps with an event soon which end after it, as people look at what
            they have done; after_event_s is the mean of how soon.
        around: hands cover the product that long before and after an event, at least.
        away: share of the longer stretches without events in which the camera looks elsewhere.
    """

    gap: tuple[float, float] = (6.0, 1.7)
    look: tuple[float, float] = (1.6, 1.0)
    longest: float = 120.0
    after_event: float = 0.25
    after_event_s: float = 1.5
    around: tuple[float, float] = (1.5, 1.0)
    away: float = 0.4

    def segments(
        self, events: Sequence[float], end: float, rng: np.random.Generator
    ) -> list[Segment]:
        """Gaps and looks in turn; each event is in a gap, under the hands."""
        before, after = self.around
        result: list[Segment] = []
        now = 0.0
        while now < end:
            gap = min(_log_normal(self.gap, rng), self.longest)
            stop = now + gap
            following = next((event for event in events if event > now), np.inf)
            if following < now + 1.5 * gap and rng.random() < self.after_event:
                stop = following + rng.exponential(self.after_event_s)
            for event in events:
                if event - before < stop < event + after:
                    stop = event + after
            result += self._gap(now, stop, [e for e in events if now < e + after <= stop], rng)
            following = next((event for event in events if event >= stop), np.inf)
            now = min(stop + _log_normal(self.look, rng), max(stop, following - before))
            if now > stop:
                result.append((stop, now, "clear"))
        return result

    def _gap(
        self, start: float, stop: float, events: Sequence[float], rng: np.random.Generator
    ) -> list[Segment]:
        before, after = self.around
        bounds = [start]
        for event in events:
            bounds += [max(event - before, bounds[-1]), max(event + after, bounds[-1])]
        bounds.append(max(stop, bounds[-1]))
        segments: list[Segment] = []
        for i, (a, b) in enumerate(itertools.pairwise(bounds)):
            free = i % 2 == 0 and b - a > _SHORTEST_AWAY
            kind = "away" if free and rng.random() < self.away else "cover"
            if b > a:
                segments.append((a, b, kind))
        return segments


def _log_normal(law: tuple[float, float], rng: np.random.Generator) -> float:
    median, spread = law
    return median * float(np.exp(rng.normal(0, spread)))


_SHORTEST_AWAY = 3.0  # seconds, in which a head can turn and turn back
# The gap and the looks are chosen so that the product is in view as often as in real recordings
# (benchmarks/results/noise.md): a tenth of the time is in view, four fifths are in gaps of
# over 10 s.
GLIMPSES = {
    "light": Glimpses(gap=(4.0, 1.6), look=(2.4, 1.0)),
    "default": Glimpses(),
    "heavy": Glimpses(gap=(9.0, 1.7), look=(1.3, 1.0)),
}
