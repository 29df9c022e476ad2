"""What people do at a bench, and how long they take."""

import dataclasses

import numpy as np

SHORTEST_PAUSE = 3.5  # seconds
PAUSE_SCALE = 2.9


@dataclasses.dataclass(frozen=True)
class Habits:
    """What people do, and how long they take. Times are in seconds.

    Attributes:
        pauses: median pause between events, and the standard deviation of its logarithm between
            recordings and within one; None: SHORTEST_PAUSE + Gamma(2, PAUSE_SCALE).
        together: chance that a component is put on together with the one before.
        wrong: chance that a component is put on wrong first;
        mended: and that it is then put right.
        early: chance that a component lies in its place, and looks fitted, before it is,
        early_s: and for how long: median, and standard deviation of the logarithm.
    """

    pauses: tuple[float, float, float] | None = None
    together: float = 0.12
    wrong: float = 0.07
    mended: float = 1.0
    early: float = 0.0
    early_s: tuple[float, float] = (0.0, 0.0)

    def draw_pauses(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """(count,) seconds before the events of a recording."""
        if self.pauses is None:
            return SHORTEST_PAUSE + rng.gamma(2.0, PAUSE_SCALE, count)
        median, between, within = self.pauses
        drawn = median * np.exp(rng.normal(0, between) + rng.normal(0, within, count))
        return np.maximum(drawn, SHORTEST_PAUSE)


USUAL = Habits()
