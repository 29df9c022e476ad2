"""Makes clip shards of the synthetic assembly.

A toy of coloured parts is assembled on a table, seen by a head-mounted camera; hands and tools
hide it for long stretches, above all around each step completion.

    python -m data_prep.synthetic --out=DIR --seed=0
    python -m data_prep.synthetic --out=DIR --timelines=LABELS --time_scale=12
    python -m data_prep.synthetic --out=DIR --objects=400 --seed=1000000000

Every recording is a function of the seed, its split and its name alone.
"""

import dataclasses
import functools
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import simplejpeg
from absl import app, flags

from data_prep import shards
from data_prep.motion import OCCLUSIONS, Motion, hand_mesh, plan_recording, plan_views
from data_prep.product import Product, affine, join, random_product, solid, toy_product
from data_prep.scene import Body, Light, Picture, Placed, Table, look_at, render
from data_prep.timelines import draw_timeline, find_timelines, read_timeline
from stormpsr_jax.psr.procedure import Procedure, Variant, load_procedure

# Objects for the general encoder have seeds from here on, the products of a run seeds below:
# what an encoder was trained on never comes up in the run that starts from it.
FIRST_OBJECT_SEED = 1_000_000_000
JPEG_QUALITY = 92
HALF_VIEW = 0.37  # tangent; the product then fills about 55 % of the picture's height
CLEARANCE = 2.4  # nothing lies nearer to the product's usual place
OBJECT_STATES = 12

_SKINS = ((0.95, 0.78, 0.66), (0.86, 0.64, 0.5), (0.65, 0.45, 0.33), (0.42, 0.28, 0.2))
_GLOVES = ((0.25, 0.4, 0.6), (0.2, 0.2, 0.22), (0.85, 0.85, 0.82), (0.55, 0.55, 0.5))
_TABLES = (
    (0.52, 0.42, 0.33), (0.42, 0.43, 0.45), (0.36, 0.44, 0.4), (0.3, 0.26, 0.24),
    (0.36, 0.4, 0.5), (0.58, 0.54, 0.48),
)  # fmt: skip


def make_dataset(
    out: str | Path,
    *,
    seed: int = 0,
    occlusion: str = "default",
    recordings: Mapping[str, int] | None = None,
    size: int = 64,
    fps: float | None = None,
    cad_per_state: int = 100,
    workers: int = 1,
    timelines: str | Path | None = None,
    time_scale: float = 1.0,
) -> Procedure:
    """Writes recordings of one product being assembled, and clean renders of its states.

    Args:
      out: folder for the shards.
      seed: below FIRST_OBJECT_SEED.
      occlusion: a key of OCCLUSIONS.
      recordings: number of made-up recordings per split; not with `timelines`.
      size: height and width in pixels.
      fps: frames per second; None for the procedure's.
      cad_per_state: clean renders of each catalogued state (split "cad").
      workers: processes.
      timelines: folder of <split>/<recording>/PSR_labels_raw.csv of procedure "meccano".
      time_scale: their frame numbers are divided by it.

    Returns:
      The procedure of the data.

    Raises:
      ValueError: an argument is out of range, or a label file is malformed.
    """
    if not 0 <= seed < FIRST_OBJECT_SEED:
        raise ValueError(
            f"--seed={seed} is not in [0, {FIRST_OBJECT_SEED}): seeds from there on are for "
            "--objects, so that no encoder has seen the product of a run."
        )
    if occlusion not in OCCLUSIONS:
        raise ValueError(f"--occlusion={occlusion} is not one of {', '.join(OCCLUSIONS)}.")
    procedure = load_procedure("meccano" if timelines else "synthetic")
    if fps is not None:
        procedure = dataclasses.replace(procedure, fps=fps)
    splits = _split_names(recordings, timelines)
    if cad_per_state:
        splits["cad"] = tuple(f"cad_{state:02d}" for state in range(1, procedure.num_states + 1))
    make = functools.partial(
        make_recording,
        procedure=procedure,
        seed=seed,
        occlusion=occlusion,
        size=size,
        cad_per_state=cad_per_state,
        directory=timelines,
        time_scale=time_scale,
    )
    shards.build(
        out,
        procedure=procedure,
        fps=procedure.fps,
        image_size=(size, size),
        splits=splits,
        make=make,
        workers=workers,
        settings={
            "seed": seed,
            "occlusion": occlusion,
            "cad_per_state": cad_per_state,
            "time_scale": time_scale,
        },
    )
    return procedure


def _split_names(recordings, directory) -> dict[str, tuple[str, ...]]:
    if directory:
        return find_timelines(directory)
    recordings = {"train": 40, "val": 12, "test": 12} if recordings is None else recordings
    return {
        split: tuple(f"{split}_{i:03d}" for i in range(count))
        for split, count in recordings.items()
        if count
    }


def make_objects(
    out: str | Path,
    *,
    seed: int = FIRST_OBJECT_SEED,
    objects: Mapping[str, int],
    frames_per_object: int = 100,
    size: int = 64,
    num_components: int = 11,
    workers: int = 1,
) -> Procedure:
    """Writes random products in random states, to train a general encoder on.

    Each recording is one product: independent frames with their own camera, light, table, clutter
    and (half of them) hands, in a dozen states that are one change apart.

    Args:
      out: folder for the shards.
      seed: at least FIRST_OBJECT_SEED.
      objects: number of products per split.
      frames_per_object: N.
      size: height and width in pixels.
      num_components: K of every product.
      workers: processes.

    Returns:
      The procedure of the data; it catalogues the complete product only.

    Raises:
      ValueError: the seed is that of a dataset.
    """
    if seed < FIRST_OBJECT_SEED:
        raise ValueError(
            f"--seed={seed} is below {FIRST_OBJECT_SEED}: such seeds are for the recordings of a "
            "run, which no general encoder may have seen."
        )
    procedure = Procedure(
        "objects",
        1.0,
        tuple(f"part {k}" for k in range(1, num_components + 1)),
        np.ones((1, num_components), np.int8),
        {"any": Variant("any", (0,) * num_components, (), ("*",))},
    )
    splits, first = {}, 0
    for split, count in objects.items():
        splits[split] = tuple(f"object_{i:05d}" for i in range(first, first + count))
        first += count
    make = functools.partial(
        make_object, procedure=procedure, seed=seed, count=frames_per_object, size=size
    )
    shards.build(
        out,
        procedure=procedure,
        fps=procedure.fps,
        image_size=(size, size),
        splits=splits,
        make=make,
        workers=workers,
        settings={"seed": seed, "frames_per_object": frames_per_object},
    )
    return procedure


def _stream(seed: int, kind: str, split: str = "", name: str = "") -> list[np.random.Generator]:
    """Independent generators of one recording (or whatever `kind` is), for its four concerns."""
    words = [zlib.crc32(text.encode()) for text in (kind, split, name)]
    sequence = np.random.SeedSequence([seed, *words])
    return [np.random.default_rng(child) for child in sequence.spawn(4)]


def make_recording(
    split: str,
    name: str,
    *,
    procedure: Procedure,
    seed: int,
    occlusion: str,
    size: int,
    cad_per_state: int,
    directory: str | Path | None,
    time_scale: float,
) -> shards.RecordingData:
    """Renders one recording of a dataset; see make_dataset."""
    product = toy_product(procedure.num_components, _stream(seed, "product")[0])
    when, how, looks, noise = _stream(seed, "recording", split, name)
    if split == "cad":
        state = procedure.states[int(name.removeprefix("cad_")) - 1]
        motion = plan_views(cad_per_state, how, hands=0.0)
        states = np.tile(state, (cad_per_state, 1))
        pictures = _clean_pictures(product, state, motion, size, looks)
        return _encode(name, 0, pictures, states, procedure, noise)
    if directory:
        timeline = read_timeline(directory, split, name, procedure, time_scale)
    else:
        timeline = draw_timeline(procedure, when)
    places = np.array([part.right[:2, 3] for part in product.parts])
    motion = plan_recording(timeline, places, procedure.fps, OCCLUSIONS[occlusion], how)
    states = timeline.per_frame()
    scene = Scene(product, looks)
    pictures = (scene.picture(motion, i, states[i], size) for i in range(len(states)))
    return _encode(name, timeline.first_frame, pictures, states, procedure, noise)


def make_object(
    split: str, name: str, *, procedure: Procedure, seed: int, count: int, size: int
) -> shards.RecordingData:
    """Renders one random product; see make_objects."""
    when, how, looks, noise = _stream(seed, "object", split, name)
    product = random_product(int(when.integers(2**62)), procedure.num_components)
    known = _related_states(when, procedure.num_components)
    states = known[when.integers(len(known), size=count)]
    motion = plan_views(count, how, hands=0.5)

    def pictures() -> Iterator[Picture]:
        for i in range(count):
            yield Scene(product, looks).picture(motion, i, states[i], size)

    return _encode(name, 0, pictures(), states, procedure, noise)


def _related_states(rng: np.random.Generator, num_components: int) -> np.ndarray:
    """(OBJECT_STATES, K) different states, each one change away from another one."""
    states = [(rng.random(num_components) < rng.uniform(0.2, 0.8)).astype(np.int8)]
    while len(states) < OBJECT_STATES:
        state = states[rng.integers(len(states))].copy()
        k = rng.integers(num_components)
        others = [v for v in (-1, 0, 1) if v != state[k]]
        state[k] = rng.choice(others, p=(0.2, 0.8) if -1 in others else (0.5, 0.5))
        if not any((state == other).all() for other in states):
            states.append(state)
    return np.stack(states)


def _display(colour) -> np.ndarray:
    return np.asarray(colour, np.float64) ** 2


def _draw_light(rng: np.random.Generator) -> Light:
    direction = np.array([*rng.normal(0, 0.45, 2), 1.0])
    warmth = rng.uniform(-0.13, 0.13)
    tint = np.array([1 + warmth, 1.0, 1 - warmth]) * rng.uniform(0.72, 1.12)
    ambient = rng.uniform(0.35, 0.6)
    return Light(
        direction / np.linalg.norm(direction), ambient * tint, (1.08 - ambient) * tint
    )


class Scene:
    """What stays the same in a recording: light, table, hands, where loose parts lie."""

    def __init__(self, product: Product, rng: np.random.Generator):
        self._product = product
        self._light = _draw_light(rng)
        base = np.asarray(_TABLES[rng.integers(len(_TABLES))]) + rng.uniform(-0.06, 0.06, 3)
        grain = base * (1 + rng.choice([-1, 1]) * rng.uniform(0.04, 0.16))
        waves = rng.uniform(((-1, 2, 0), (-1, -0.5, 0)), ((1, 7, 6), (1, 0.5, 6)))
        self._table = Table(_display([base, grain]).astype(np.float32), waves)
        palette = _SKINS if rng.random() < 0.7 else _GLOVES
        skin = _display(np.asarray(palette[rng.integers(4)]) + rng.uniform(-0.05, 0.05, 3))
        sleeve = _display(rng.uniform(0.1, 0.8) + rng.uniform(-0.1, 0.1, 3))
        tool = _display(rng.uniform(0.1, 0.9, 3)) if rng.random() < 0.6 else None
        self._hands = [
            Body(hand_mesh(0, skin, sleeve, tool)),
            Body(hand_mesh(1, skin, sleeve)),
            Body(hand_mesh(0, skin, sleeve)),  # the right hand while it carries a component
        ]
        count = len(product.parts)
        angles = 2 * np.pi * (rng.permutation(count) + rng.uniform(-0.2, 0.2, count)) / count
        extents = [np.ptp(part.mesh.vertices[:, :2], axis=0) for part in product.parts]
        radii = CLEARANCE + np.linalg.norm(extents, axis=1) / 2 + rng.uniform(0, 0.4, count)
        yaws = rng.uniform(-np.pi, np.pi, count)
        self._loose_poses = [
            affine((0, 0, yaw), (r * np.cos(a), 0.3 + r * np.sin(a), part.height / 2))
            for a, r, yaw, part in zip(angles, radii, yaws, product.parts, strict=True)
        ]
        self._clutter = _draw_clutter(rng)
        self._part_body = functools.cache(lambda k: Body(product.parts[k].mesh))
        # One body each of the product and of what lies around, made anew when it changes.
        self._product_body = functools.lru_cache(1)(lambda state: Body(product.mesh(state)))
        self._around_body = functools.lru_cache(1)(self._build_around)

    def _build_around(self, loose: tuple[int, ...]) -> Body:
        parts = self._product.parts
        around = [parts[k].mesh.moved(self._loose_poses[k]) for k in loose]
        return Body(join([self._clutter, *around]))

    def picture(self, motion: Motion, frame: int, state: np.ndarray, size: int) -> Picture:
        """The picture of one frame; state (K,)."""
        state = tuple(int(value) for value in state)
        carried = int(motion.carried[frame])
        loose = tuple(k for k, value in enumerate(state) if not value and k != carried)
        others = [Placed(self._around_body(loose), np.eye(4))]
        for side in (0, 1):
            if motion.reach[frame, side] <= 0.02:
                continue
            pose = motion.hand_pose(frame, side)
            carrying = side == 0 and carried >= 0
            others.append(Placed(self._hands[2 if carrying else side], pose))
            if carrying and not state[carried]:
                inside = affine(translation=(0.0, 0.55, -0.35))
                others.append(Placed(self._part_body(carried), pose @ inside))
        product = Placed(self._product_body(state), motion.product_pose(frame))
        camera = look_at(
            motion.camera[frame], motion.target[frame], float(motion.roll[frame]), HALF_VIEW
        )
        return render(product, others, camera, self._light, self._table, size)


def _draw_clutter(rng: np.random.Generator):
    """A few dull things that belong to no product, far from its place."""
    things = []
    for _ in range(3):
        shape = rng.choice(["box", "cylinder", "barrel", "hexagon"])
        thing = solid(shape, rng.uniform(0.3, 0.7, 3), _display(rng.uniform(0.2, 0.7, 3)))
        angle, radius = rng.uniform(0, 2 * np.pi), rng.uniform(4.0, 4.8)
        place = (radius * np.cos(angle), 0.3 + radius * np.sin(angle), 0.3)
        things.append(thing.moved(affine((0, 0, rng.uniform(-3, 3)), place)))
    return join(things)


def _clean_pictures(product, state, motion: Motion, size: int, rng) -> Iterator[Picture]:
    """Renders as from CAD: plain background, nothing else in view."""
    body = Body(product.mesh(state))
    for i in range(len(motion.roll)):
        camera = look_at(motion.camera[i], motion.target[i], float(motion.roll[i]), HALF_VIEW)
        background = _display(np.full(3, rng.uniform(0.55, 1.0))).astype(np.float32)
        product = Placed(body, motion.product_pose(i))
        yield render(product, [], camera, _draw_light(rng), background, size)


def _encode(
    name: str,
    first_frame: int,
    pictures: Iterator[Picture],
    states: np.ndarray,
    procedure: Procedure,
    rng: np.random.Generator,
) -> shards.RecordingData:
    """Renders all pictures; the JPEGs wait in a temporary file, so that memory stays flat."""
    count = len(states)
    boxes = np.full((count, 4), np.nan, np.float32)
    visible = np.zeros(count, np.float32)
    lengths = []
    file = tempfile.TemporaryFile()
    level = rng.uniform(0.004, 0.014)
    for i, picture in enumerate(pictures):
        boxes[i], visible[i] = picture.box, picture.visible
        noise = rng.standard_normal(picture.image.shape, np.float32) * np.float32(level)
        image = np.clip((picture.image + noise) * 255 + 0.5, 0, 255).astype(np.uint8)
        jpeg = simplejpeg.encode_jpeg(image, JPEG_QUALITY, "RGB", "444", fastdct=False)
        lengths.append(len(jpeg))
        file.write(jpeg)
    annotated = ~np.isnan(boxes[:, 0])
    classes = np.where(annotated, procedure.state_classes(states), -1)

    def jpegs() -> Iterator[bytes]:
        with file:
            file.seek(0)
            for length in lengths:
                yield file.read(length)

    return shards.RecordingData(
        name, first_frame, jpegs(), states, boxes, classes, visible
    )


def define_flags(flag_values: flags.FlagValues) -> None:
    """Defines the command's flags; not done on import, so that other commands have their own."""
    fv = {"flag_values": flag_values}
    flags.DEFINE_string("out", None, "Folder for the clip shards.", required=True, **fv)
    flags.DEFINE_integer("seed", None, "Of everything drawn; default 0, objects: 1e9.", **fv)
    flags.DEFINE_enum("occlusion", "default", list(OCCLUSIONS), "How much hands hide.", **fv)
    for split, count in (("train", 40), ("val", 12), ("test", 12)):
        flags.DEFINE_integer(split, count, f"Recordings in split {split}.", lower_bound=0, **fv)
    flags.DEFINE_integer("size", 64, "Height and width in pixels.", lower_bound=8, **fv)
    flags.DEFINE_float("fps", None, "Frames per second; default: the procedure's.", **fv)
    flags.DEFINE_integer("cad_per_state", 100, "Clean renders a state.", lower_bound=0, **fv)
    flags.DEFINE_integer("workers", 2, "Processes.", lower_bound=1, **fv)
    flags.DEFINE_string("timelines", None, "Folder of label timelines to play.", **fv)
    flags.DEFINE_float("time_scale", 1.0, "Label frame numbers are divided by this.", **fv)
    flags.DEFINE_integer("objects", 0, "Random products instead of recordings.", **fv)
    flags.DEFINE_integer("frames_per_object", 100, "Frames of each.", lower_bound=1, **fv)


def main(flag_values: flags.FlagValues) -> None:
    """Makes what the flags ask for."""
    f = flag_values
    if f.objects:
        val = max(1, f.objects // 10)
        make_objects(
            f.out,
            seed=FIRST_OBJECT_SEED if f.seed is None else f.seed,
            objects={"train": f.objects - val, "val": val},
            frames_per_object=f.frames_per_object,
            size=f.size,
            workers=f.workers,
        )
        return
    make_dataset(
        f.out,
        seed=f.seed or 0,
        occlusion=f.occlusion,
        recordings={split: f[split].value for split in ("train", "val", "test")},
        size=f.size,
        fps=f.fps,
        cad_per_state=f.cad_per_state,
        workers=f.workers,
        timelines=f.timelines,
        time_scale=f.time_scale,
    )


if __name__ == "__main__":
    define_flags(flags.FLAGS)
    app.run(lambda _: main(flags.FLAGS))
