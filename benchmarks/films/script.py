"""What moves in a film, and when: the product, hands, the carried part and the camera."""

import math

import numpy as np

from data_prep.products.product import Product
from data_prep.worlds.timelines import Timeline, changes

REST, WORK = 0.0, 1.0
CARRY = 1.4  # seconds that a part takes from its tray to its place
LEAVE = 0.7  # seconds that a hand takes from its work to the edge


def _smooth(rng: np.random.Generator, count: int, fps: float, period: float) -> np.ndarray:
    """(N,) noise of standard deviation 1 that changes over about `period` seconds."""
    width = max(1, round(period * fps))
    raw = rng.standard_normal(count + 6 * width)
    kernel = np.exp(-0.5 * np.linspace(-3, 3, 6 * width + 1) ** 2)
    return np.convolve(raw, kernel / np.sqrt((kernel**2).sum()), "valid")


def _between(time: float, start: float, end: float) -> float:
    x = min(max((time - start) / (end - start), 0.0), 1.0)
    return x * x * (3 - 2 * x)


class Script:
    """Where product, hands, carried part and camera are in every frame."""

    def __init__(self, product: Product, timeline: Timeline, fps: float, rng: np.random.Generator):
        count = timeline.num_frames
        self._fps = fps
        self.places = [part.right[:3, 3] for part in product.parts]
        self._events = [(frame / fps, dict(what)) for frame, what in changes(timeline)]
        self._before = rng.uniform(1.6, 3.2, len(self._events))
        self._after = rng.uniform(0.6, 2.2, len(self._events))
        self._idle = rng.random((len(self._events) + 1, 2)) < 0.35
        turns = rng.normal(0, 0.35, len(self._events) + 1)
        turns[rng.random(len(turns)) < 0.12] += math.pi
        self._turns = turns
        self.drift = 0.05 * _smooth(rng, count, fps, 3.0)
        self._jitter = np.stack([_smooth(rng, count, fps, 0.8) for _ in range(6)], axis=1)
        elevation, azimuth = np.radians(rng.uniform(42, 68)), np.radians(rng.uniform(-32, 32))
        walk = np.stack([_smooth(rng, count, fps, 4.0) for _ in range(4)], axis=1)
        self.elevation = elevation + 0.06 * walk[:, 0]
        self.azimuth = azimuth + 0.09 * walk[:, 1]
        self.distance = rng.uniform(0.95, 1.25) * (1 + 0.03 * walk[:, 2])
        self.roll = np.degrees(0.05 * walk[:, 3])
        self.target = 0.12 * np.stack([_smooth(rng, count, fps, 3.0) for _ in range(2)], axis=1)

    def yaw(self, i: int) -> float:
        """The product's turn: it changes while hands are on it."""
        time, turn = i / self._fps, self._turns[0]
        for (at, _), before, new in zip(self._events, self._before, self._turns[1:], strict=True):
            turn += (new - turn) * _between(time, at - before, at - 0.3 * before)
        return float(turn + self.drift[i])

    def hands(self, i: int) -> list[tuple[float, np.ndarray]]:
        """Of the right and the left hand how far in they are (0…1), and what they are at (3,)."""
        time = i / self._fps
        number = sum(at < time for at, _ in self._events)
        reach = [0.55 if idle else REST for idle in self._idle[number]]
        aim = np.zeros(3)
        for (at, changed), before, after in zip(
            self._events, self._before, self._after, strict=True
        ):
            inside = _between(time, at - before - LEAVE, at - before)
            inside *= 1 - _between(time, at + after, at + after + LEAVE)
            if inside > 0:
                reach = [max(r, inside * WORK) for r in reach]
                aim = np.mean([self.places[k] for k in changed], axis=0)
        c, s = math.cos(self.yaw(i)), math.sin(self.yaw(i))
        aim = np.array([c * aim[0] - s * aim[1], s * aim[0] + c * aim[1], aim[2]])
        shake = 0.06 * self._jitter[i].reshape(2, 3)
        return [(r, aim + side) for r, side in zip(reach, shake, strict=True)]

    def carried(self, i: int) -> dict[int, float]:
        """Parts on their way: {component: 0 at its tray … 1 at its place}."""
        time, found = i / self._fps, {}
        for at, changed in self._events:
            for k, (old, new) in changed.items():
                if old == 0 and at - CARRY < time < at:
                    found[k] = _between(time, at - CARRY, at - 0.2)
                elif new == 0 and at <= time < at + CARRY:
                    found[k] = 1 - _between(time, at, at + CARRY)
        return found
