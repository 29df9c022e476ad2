"""Where everything is in every frame: the product, the camera, and hands that hide the product.

A hand's reach is 1 over its aim on the product and 0 out of the way. Around each completion both
hands cover the product; in between they rest on its edge, and now and then leave it in clear view.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence

import numpy as np

from data_prep.rendering.product import Mesh, affine, join, solid
from data_prep.rendering.scene import Body
from data_prep.rendering.timelines import Timeline, changes


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


OCCLUSIONS = {
    "light": Occlusion((0.8, 2.0), (0.5, 1.6), (0.8, 2.2), (3.0, 7.0), 0.75),
    "default": Occlusion((1.2, 3.0), (1.0, 3.0), (1.5, 3.5), (4.0, 8.0), 0.28),
    "heavy": Occlusion((1.5, 3.5), (1.5, 4.0), (2.0, 4.0), (3.0, 6.0), 0.2),
}
MOVE = 0.6  # seconds that a hand takes from one reach to the next
COVER_REACH = ((0.9, 1.1), (0.75, 1.05))  # right, left
PARTIAL_REACH = ((0.6, 0.85), (0.58, 0.8))
AWAY = 0.0
BESIDE_AIM = np.array([[0.35, 0.1], [-0.45, 0.1]])  # right and left palm, from what they work on
USUAL_HEIGHT = 1.2  # of a product, at most; that of the toys
_RAISED = 0.6  # of what a product is higher, what the head is raised, and farther away
LOOK_AT = np.array([0.0, 0.1, 0.2])  # the head turns about this point


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


def _view(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Base viewpoints (count, 3) and distances (count,): a head above the table's near side."""
    elevation = np.radians(rng.uniform(50, 66, count))
    azimuth = np.radians(rng.uniform(-22, 22, count))
    flat = np.cos(elevation)
    direction = [np.sin(azimuth) * flat, -np.cos(azimuth) * flat, np.sin(elevation)]
    return np.column_stack(direction), rng.uniform(6.0, 7.2, count)


def plan_recording(
    timeline: Timeline,
    places: np.ndarray,
    fps: float,
    occlusion: Occlusion,
    rng: np.random.Generator,
) -> Motion:
    """The movements of a recording.

    Args:
        timeline: what happens when.
        places: (K, 2) x, y of the components on the product; hands work there.
        fps: frames per second.
        occlusion: how much hands hide.
        rng: draws everything.
    """
    count = timeline.num_frames
    time = np.arange(count) / fps
    events = [(frame / fps, changed) for frame, changed in changes(timeline)]
    segments = _draw_segments([t for t, _ in events], count / fps, occlusion, rng)
    product = _move_product(time, segments, rng)
    direction, distance = _view(rng, 1)
    direction = direction + _wobble(rng, time, 7.0, (0.07, 0.05, 0.05))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    distance = distance + _wobble(rng, time, 9.0, 0.22)
    target = LOOK_AT + _wobble(rng, time, 4.0, (0.14, 0.14, 0.05))
    carried = np.full(count, -1)
    fetches: list[tuple[float, float]] = []
    for at, changed in events:
        for component, (old, new) in changed.items():
            if (old == 1 and new == 0) or (old == 0 and new):
                start, end = _carry_times(at, new != 0, segments)
                carried[(time >= start) & (time < end) & (carried < 0)] = component
                fetches.append((start if new else end, at))
    reach, aim = _move_hands(time, segments, fetches, events, places, product, rng)
    return Motion(
        product,
        direction * distance,
        target,
        _wobble(rng, time, 6.0, 0.05)[:, 0],
        np.clip(reach + _wobble(rng, time, 2.0, (0.02, 0.02)), 0, 1.2) * (reach > 0.02),
        aim + _wobble(rng, time, 2.5, [0.05] * 4).reshape(-1, 2, 2),
        _wobble(rng, time, 5.0, (0.14, 0.14)),
        carried,
    )


Segment = tuple[float, float, str]  # start, end, "cover" | "partial" | "clear"
TimedEvent = tuple[float, Mapping[int, tuple[int, int]]]  # seconds, then as in `changes`


def _draw_segments(
    events: Sequence[float], end: float, occlusion: Occlusion, rng: np.random.Generator
) -> list[Segment]:
    """What hands do when: cover around each event; partial and clear in turn elsewhere."""
    segments: list[Segment] = []
    now = 0.0
    for event in [*events, None]:
        until = end if event is None else max(event - rng.uniform(*occlusion.before), now)
        clear_next = now == 0.0
        while now < until:
            kind = "clear" if clear_next else "partial"
            stop = now + rng.uniform(*getattr(occlusion, kind))
            # What would be left over belongs to the last segment.
            stop = until if stop > until - 1.0 else stop
            segments.append((now, stop, kind))
            now = stop
            # The finished product is looked at more often than one in the making.
            chance = occlusion.clear_chance if event is not None else 0.9
            clear_next = kind == "partial" and rng.random() < chance
        if event is not None:
            # An event within the last cover makes it longer.
            stop = event + rng.uniform(*occlusion.after)
            segments.append((now, max(stop, now), "cover"))
            now = max(stop, now)
    return segments


def _move_product(
    time: np.ndarray, segments: Sequence[Segment], rng: np.random.Generator
) -> np.ndarray:
    """(N, 6): the product is turned, tilted and shifted while hands are on it."""
    keys, values = [0.0], [[0, 0, rng.normal(0, 0.5), 0, 0, 0]]
    for start, end, kind in segments:
        if kind == "clear" or rng.random() > 0.45 or end - start < 1.0:
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


def _carry_times(event: float, install: bool, segments: Sequence[Segment]) -> tuple[float, float]:
    """When the right hand carries a component: before it is fitted, or after it is taken off."""
    start, end, _ = next(s for s in segments if s[2] == "cover" and s[1] >= event)
    return (min(start, event) - 0.8, event) if install else (event, max(end, event) + 0.8)


def _move_hands(
    time: np.ndarray,
    segments: Sequence[Segment],
    fetches: Sequence[tuple[float, float]],
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
            reach = np.full(2, AWAY)
            if ranges is not None:
                reach = np.array([rng.uniform(*r) for r in ranges])
                if kind == "partial" and rng.random() < 0.5:
                    reach[rng.integers(2)] = AWAY  # one hand fetches or rests
                elif kind == "cover" and rng.random() < 0.12:
                    reach -= 0.4  # a short glimpse
            values.append(reach)
            aim_keys.append(now - MOVE / 2)
            aims.append(_aim_at(now, end, events, places, time, product, rng))
            now = end if kind == "clear" else min(end, now + rng.uniform(0.9, 2.2))
    reach = _eased(time, keys, np.array(values), MOVE)
    for fetch, _ in fetches:  # the right hand is out of view when it takes or leaves a part
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
    count: int, rng: np.random.Generator, *, hands: float, turn: float | None = None
) -> Motion:
    """Frames that have nothing to do with each other.

    Args:
        count: N.
        rng: draws everything.
        hands: share of frames with hands on the product.
        turn: standard deviation of how far the product is turned from its usual way round, in
            radians; None turns it any way round.
    """
    direction, distance = _view(rng, count)
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


SKIN, SLEEVE, HANDLE, BLADE = range(4)


def _capsule(start: Sequence[float], end: Sequence[float], radius: float, material: int) -> Mesh:
    import trimesh  # here, as flags and --help do without it

    along = np.subtract(end, start)
    length = np.linalg.norm(along)
    mesh = trimesh.creation.capsule(length, radius, count=(10, 10))
    turn = trimesh.geometry.align_vectors([0, 0, 1], along / length)
    turn[:3, 3] = start
    colours = np.full((len(mesh.faces), 3), float(material))
    return Mesh(np.asarray(mesh.vertices), np.asarray(mesh.faces), colours, True).moved(turn)


@functools.cache
def _plain_hand(side: int, tool: bool) -> tuple[Body, np.ndarray]:
    """A hand without colours, and the material (F,) of its faces."""
    pieces = [solid("sphere", (1.0, 1.15, 0.42), [SKIN] * 3)]
    for x, length in ((-0.36, 0.75), (-0.12, 0.9), (0.12, 0.85), (0.36, 0.65)):
        knuckle, tip = (x, 0.45, 0.0), (x * 1.15, 0.45 + 0.55 * length, -0.05)
        end = (x * 1.05, 0.45 + 0.75 * length, -0.42)
        pieces += [_capsule(knuckle, tip, 0.125, SKIN), _capsule(tip, end, 0.11, SKIN)]
    pieces.append(_capsule((-0.38, -0.1, 0), (-0.8, 0.4, -0.2), 0.14, SKIN))
    pieces.append(_capsule((0, -0.4, 0.05), (0, -1.3, 0.3), 0.27, SKIN))
    if tool:
        pieces.append(_capsule((-0.55, 0.55, -0.15), (-0.75, 0.0, 0.75), 0.17, HANDLE))
        pieces.append(_capsule((-0.55, 0.55, -0.15), (-0.42, 0.95, -0.9), 0.06, BLADE))
    # The camera may be within the sleeve.
    sleeve = _capsule((0, -1.2, 0.28), (0, -9.0, 3.4), 0.42, SLEEVE)
    meshes = [join(pieces), dataclasses.replace(sleeve, closed=False)]
    if side:
        meshes = [mesh.moved(np.diag([-1.0, 1, 1, 1])) for mesh in meshes]
    return Body(*meshes), np.concatenate([mesh.colours[:, 0] for mesh in meshes]).astype(int)


def hand(side: int, tool: bool, materials: np.ndarray) -> Body:
    """A right (0) or left (1) hand with its forearm; fingers point to +y, palm at the origin.

    Args:
        side: 0 or 1.
        tool: it holds a screwdriver.
        materials: (4, 3) linear RGB of skin or glove, sleeve, the tool's handle and blade.
    """
    body, material = _plain_hand(side, tool)
    return body.painted(materials.astype(np.float32).take(material, axis=0))
