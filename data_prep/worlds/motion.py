"""Where everything is in every frame: the product, the camera, and hands that hide the product.

A hand's reach is 1 over its aim on the product and 0 out of the way. What they do when is drawn in
`hiding`.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np

from data_prep.rendering.mesh import affine
from data_prep.rendering.ranges import Range
from data_prep.worlds.hiding import Glimpses, Occlusion, Segment
from data_prep.worlds.timelines import Timeline, changes

TimedEvent = tuple[float, Mapping[int, tuple[int, int]]]  # seconds, then as in `changes`


MOVE = 0.6  # seconds that a hand takes from one reach to the next
COVER_REACH = ((0.9, 1.1), (0.75, 1.05))  # right, left
PARTIAL_REACH = ((0.6, 0.85), (0.58, 0.8))
BESIDE_AIM = np.array([[0.35, 0.1], [-0.45, 0.1]])  # right and left palm, from what they work on
USUAL_HEIGHT = 1.2  # of a product, at most; that of the toys
_RAISED = 0.6  # of what a product is higher, what the head is raised, and farther away
LOOK_AT = np.array([0.0, 0.1, 0.2])  # the head turns about this point
TURN = 0.7  # seconds that a head takes to look elsewhere
ELSEWHERE = Range(6.0, 8.0)  # from the product to what is looked at then, to the left or right
AWAY_FROM = 0.15  # of this, from which on the product is no longer looked at


@dataclasses.dataclass(frozen=True)
class View:
    """Where a camera may be.

    Attributes:
        elevation: in degrees, over the table.
        azimuth: in degrees, 0 at the table's near side.
        distance: from the table's middle.
        wander: how much it moves, 1 as a worn one does; 0 is a fixed camera, which does not look
            elsewhere either.
    """

    elevation: Range
    azimuth: Range
    distance: Range
    wander: float = 1.0


HEAD = View(Range(50, 66), Range(-22, 22), Range(6.0, 7.2))


@dataclasses.dataclass(frozen=True)
class Motion:
    """N frames of movement.

    Attributes:
        product: (N, 6) turns about x, y, z in radians, then place x, y, z.
        camera: (N, 3) position.
        target: (N, 3) what the camera looks at.
        roll: (N,) radians.
        reach: (N, 2) right and left hand.
        aim: (N, 2, 2) where on the table a fully reaching hand is, x and y.
        swing: (N, 2) radians, the hands' turn about the vertical.
        carried: (N,) component in the right hand, -1 if none.
        lift: of the hands, over a product that is high.
        away: (N,) whether something else is looked at; None: no frame follows another.
    """

    product: np.ndarray
    camera: np.ndarray
    target: np.ndarray
    roll: np.ndarray
    reach: np.ndarray
    aim: np.ndarray
    swing: np.ndarray
    carried: np.ndarray
    lift: float = 0.0
    away: np.ndarray | None = None

    def product_pose(self, frame: int) -> np.ndarray:
        """(4, 4)."""
        return affine(self.product[frame, :3], self.product[frame, 3:])

    def over(self, height: float) -> "Motion":
        """The same around a product of this height.

        Up to USUAL_HEIGHT all stays as it is; over what is higher, hands are raised, and the head
        is raised and farther away, so that the product is in view.
        """
        if (more := height - USUAL_HEIGHT) <= 0:
            return self
        rise = np.array([0.0, 0.0, _RAISED * more])
        away = self.camera - self.target
        away *= _RAISED * more / np.linalg.norm(away, axis=1, keepdims=True)
        return dataclasses.replace(
            self,
            camera=self.camera + rise + away,
            target=self.target + rise,
            lift=self.lift + more,
        )

    def hand_pose(self, frame: int, side: int) -> np.ndarray:
        """(4, 4) of the right (0) or left (1) hand."""
        reach = self.reach[frame, side]
        turn = (0.45, -0.45)[side] + self.swing[frame, side]
        back = np.array([np.sin(turn), -np.cos(turn)]) * 4.4 * (1 - reach)
        x, y = self.aim[frame, side] + back
        return affine((-0.1, 0.0, turn), (x, y, 1.15 + self.lift))


def _wobble(
    rng: np.random.Generator, time: np.ndarray, period: float, size: float | Sequence[float]
) -> np.ndarray:
    """(N, len(size)) smooth noise of standard deviation `size`, with waves of about `period` s."""
    sizes = np.atleast_1d(np.asarray(size, np.float64))
    frequency = 2 * np.pi / (period * rng.uniform(0.6, 2.2, (4, len(sizes))))
    phase = rng.uniform(0, 2 * np.pi, (4, len(sizes)))
    return sizes * np.sin(time[:, None, None] * frequency + phase).sum(1) / np.sqrt(2)


def _eased(time: np.ndarray, keys: Sequence[float], values: np.ndarray, move: float) -> np.ndarray:
    """(N, D): holds values (M, D) from keys (M,) on, each reached smoothly within `move` s."""
    result = np.broadcast_to(values[0], (len(time), values.shape[1])).astype(np.float64)
    for key, step in zip(keys[1:], np.diff(values, axis=0), strict=True):
        x = np.clip((time - key) / move, 0, 1)[:, None]
        result += step * x * x * (3 - 2 * x)
    return result


def _ended(time: np.ndarray, end: float, move: float) -> np.ndarray:
    """(N, 1): 1 until the end, and within `move` s after it smoothly 0."""
    return _eased(time, [0.0, end], np.array([[1.0], [0.0]]), move)


def _views(
    rng: np.random.Generator, count: int, views: Sequence[View]
) -> tuple[np.ndarray, np.ndarray, float]:
    """Viewpoints (count, 3), distances (count,), and how much the first one wanders."""
    which = rng.integers(len(views), size=count) if len(views) > 1 else np.zeros(count, np.int64)
    ranges = np.array([(v.elevation, v.azimuth, v.distance) for v in views])[which]
    elevation = np.radians(rng.uniform(*ranges[:, 0].T))
    azimuth = np.radians(rng.uniform(*ranges[:, 1].T))
    flat = np.cos(elevation)
    direction = [np.sin(azimuth) * flat, -np.cos(azimuth) * flat, np.sin(elevation)]
    distance = rng.uniform(*ranges[:, 2].T)
    return np.column_stack(direction), distance, views[which[0]].wander if count else 0.0


def plan_recording(
    timeline: Timeline,
    places: np.ndarray,
    fps: float,
    occlusion: Occlusion | Glimpses,
    rng: np.random.Generator,
    views: Sequence[View] = (HEAD,),
    *,
    drawn_timeline: Timeline | None = None,
    stand_ins: Mapping[int, int] = MappingProxyType({}),
) -> Motion:
    """The movements of a recording.

    In its last look all stays as it is, but that hands go away, and the head comes back.

    Args:
        places: (K, 2) x, y of the components on the product; hands work there.
        drawn_timeline: what the parts do, with the frames of `timeline`, which all else moves by;
            None is `timeline`.
        stand_ins: by component, the part that is in its place where it is installed incorrectly.
    """
    count = timeline.num_frames
    time, end = np.arange(count) / fps, (count - timeline.last_look) / fps
    working = np.minimum(time, end)
    events = [(frame / fps, changed) for frame, changed in changes(timeline)]
    segments = occlusion.segments([t for t, _ in events], end, rng)
    product = _move_product(working, segments, rng)
    direction, distance, wander = _views(rng, 1, views)
    if not wander:
        segments = [(a, b, "cover" if kind == "away" else kind) for a, b, kind in segments]
    direction = direction + wander * _wobble(rng, time, 7.0, (0.07, 0.05, 0.05))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    distance = distance + wander * _wobble(rng, time, 9.0, 0.22)
    target = LOOK_AT + wander * _wobble(rng, time, 4.0, (0.14, 0.14, 0.05))
    carried = np.full(count, -1)
    fetches: list[float] = []
    for frame, changed in changes(drawn_timeline or timeline):
        at = frame / fps
        for component, values in changed.items():
            off, on = (
                stand_ins.get(component, component) if value < 0 else component if value else None
                for value in values
            )
            if off == on:
                continue  # it is put right in its place
            begin, end, _ = next(s for s in segments if s[2] == "cover" and s[1] >= at)
            # Before it is fitted, or after it is taken off.
            brought, taken = (on, min(begin, at) - 0.8, at), (off, at, max(end, at) + 0.8)
            for part, start, stop in (brought, taken):
                if part is not None:
                    carried[(time >= start) & (time < stop) & (carried < 0)] = part
                    fetches.append(start if part == on else stop)
    reach, aim = _move_hands(working, segments, fetches, events, places, product, rng)
    elsewhere = _look_elsewhere(working, segments, rng)
    reach *= _ended(time, end, MOVE)
    elsewhere *= _ended(time, end, TURN)
    return Motion(
        product,
        direction * distance,
        target + elsewhere,
        wander * _wobble(rng, time, 6.0, 0.05)[:, 0],
        np.clip(reach + _wobble(rng, time, 2.0, (0.02, 0.02)), 0, 1.2) * (reach > 0.02),
        aim + _wobble(rng, time, 2.5, [0.05] * 4).reshape(-1, 2, 2),
        _wobble(rng, time, 5.0, (0.14, 0.14)),
        carried,
        away=np.linalg.norm(elsewhere, axis=1) > AWAY_FROM * ELSEWHERE.low,
    )


def _look_elsewhere(
    time: np.ndarray, segments: Sequence[Segment], rng: np.random.Generator
) -> np.ndarray:
    """(N, 3) what is added to the camera's target: 0 but in segments "away"."""
    keys, values = [0.0], [np.zeros(3)]
    for start, end, kind in segments:
        if kind == "away":
            across = ELSEWHERE.draw(rng) * rng.choice((-1, 1))
            keys += [start, end - TURN]
            values += [np.array([across, rng.uniform(-1, 3), 0.0]), np.zeros(3)]
    return _eased(time, keys, np.array(values), TURN)


def _move_product(
    time: np.ndarray, segments: Sequence[Segment], rng: np.random.Generator
) -> np.ndarray:
    """(N, 6): the product is turned, tilted and shifted while hands are on it."""
    keys, values = [0.0], [[0, 0, rng.normal(0, 0.5), 0, 0, 0]]
    for start, end, kind in segments:
        if kind in ("clear", "away") or rng.random() > 0.45 or end - start < 1.0:
            continue
        x, y, yaw, *_ = values[-1]
        x, y = 0.0, 0.0
        if rng.random() < 0.3:
            x, y = rng.uniform(-0.2, 0.2, 2)
        big = rng.random() < 0.18
        turn = rng.choice([-1, 1]) * rng.uniform(1.0, 3.0) if big else rng.normal(0, 0.4)
        # Drawn back towards the usual way round, unless turned on purpose.
        yaw = yaw + turn if big else 0.75 * (yaw - 2 * np.pi * np.round(yaw / (2 * np.pi))) + turn
        keys.append(rng.uniform(start, end - 1.0))
        lift = 2.0 * (abs(x) + abs(y))  # a tilted board does not reach through the table
        values.append([x, y, yaw, *rng.uniform(-0.22, 0.22, 2), lift])
    return _eased(time, keys, np.array(values), 1.3)


def _move_hands(
    time: np.ndarray,
    segments: Sequence[Segment],
    fetches: Sequence[float],
    events: Sequence[TimedEvent],
    places: np.ndarray,
    product: np.ndarray,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Reach (N, 2) and aim (N, 2, 2) of the two hands."""
    keys, values = [0.0], [np.zeros(2)]
    aim_keys, aims = [0.0], [rng.normal(0, 0.2, 4)]
    for start, end, kind in segments:
        now = start
        while now < end - 1e-9:
            keys.append(now - MOVE / 2)
            ranges = {"cover": COVER_REACH, "partial": PARTIAL_REACH}.get(kind)
            reach = np.zeros(2)
            if ranges is not None:
                reach = np.array([rng.uniform(*r) for r in ranges])
                if kind == "partial" and rng.random() < 0.5:
                    reach[rng.integers(2)] = 0  # one hand fetches or rests
                elif kind == "cover" and rng.random() < 0.12:
                    reach -= 0.4  # a short glimpse
            values.append(reach)
            aim_keys.append(now - MOVE / 2)
            aims.append(_aim_at(now, end, events, places, time, product, rng))
            now = end if kind in ("clear", "away") else min(end, now + rng.uniform(0.9, 2.2))
    reach = _eased(time, keys, np.array(values), MOVE)
    for fetch in fetches:  # the right hand is out of view when it takes or leaves a part
        reach[:, 0] *= np.clip(np.abs(time - fetch) / 0.7, 0, 1)
    return reach, _eased(time, aim_keys, np.array(aims), MOVE).reshape(-1, 2, 2)


def _aim_at(
    now: float,
    end: float,
    events: Sequence[TimedEvent],
    places: np.ndarray,
    time: np.ndarray,
    product: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:
    """(4,) aims of the hands near the component of the next event."""
    at, changed = min(events, key=lambda e: abs(e[0] - (now + end) / 2), default=(0.0, {}))
    place = places[list(changed)].mean(0) if changed else np.zeros(2)
    yaw = product[min(int(np.searchsorted(time, at)), len(time) - 1), 2]
    c, s = np.cos(yaw), np.sin(yaw)
    centre = 0.55 * np.array([c * place[0] - s * place[1], s * place[0] + c * place[1]])
    return (rng.normal(0, 0.12, (2, 2)) + centre + BESIDE_AIM).ravel()


def plan_views(
    count: int,
    rng: np.random.Generator,
    *,
    hands: float,
    turn: float | None = None,
    views: Sequence[View] = (HEAD,),
) -> Motion:
    """Frames that have nothing to do with each other.

    Args:
        hands: share of frames with hands on the product.
        turn: standard deviation of how far the product is turned from its usual way round, in
            radians; None turns it any way round.
    """
    direction, distance, _ = _views(rng, count, views)
    tilt = rng.uniform(-0.22, 0.22, (count, 2)) * (rng.random((count, 1)) < 0.3)
    yaw = rng.uniform(-np.pi, np.pi, count) if turn is None else rng.normal(0, turn, count)
    shift = rng.uniform(-0.25, 0.25, (count, 2))
    product = np.column_stack([tilt, yaw, shift, 2.0 * np.abs(tilt).sum(1)])
    reach = rng.uniform(0.5, 1.1, (count, 2)) * (rng.random((count, 2)) < 0.75)
    reach *= rng.random((count, 1)) < hands
    aim = rng.normal(0, 0.4, (count, 2, 2)) + BESIDE_AIM
    return Motion(
        product,
        direction * distance[:, None],
        LOOK_AT + rng.normal(0, (0.16, 0.16, 0.05), (count, 3)),
        rng.normal(0, 0.06, count),
        reach,
        aim,
        rng.normal(0, 0.2, (count, 2)),
        np.full(count, -1),
    )
