"""Makes clip shards of an assembly that is rendered: of a toy, or of your own product.

A product is assembled on a table, seen by a head-mounted camera; hands and tools hide it for long
stretches, above all around each step completion. It is a toy of coloured parts; with --meshes and
--procedure it is that of your own (a mesh for each component, as in data_prep.cad), and with
--product_seed one that is drawn with its procedure, which DATA/procedure.json then holds.

    python -m data_prep.synthetic --out=DIR --seed=0
    python -m data_prep.synthetic --out=DIR --meshes=MESHES --procedure=FILE
    python -m data_prep.synthetic --out=DIR --product_seed=7
    python -m data_prep.synthetic --out=DIR --timelines=LABELS --time_scale=12
    python -m data_prep.synthetic --out=DIR --objects=400 --seed=1000000000

Every recording is a function of the seed, its split and its name alone.
"""

import argparse
import dataclasses
import functools
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from data_prep import command
from data_prep.rendering import orders, products, rendered
from data_prep.rendering.motion import OCCLUSIONS, Motion, plan_recording, plan_views
from data_prep.rendering.names import is_rehearsal, split_names
from data_prep.rendering.product import Product, random_product, toy_product
from data_prep.rendering.products import OfUser
from data_prep.rendering.scene import Body, Picture
from data_prep.rendering.timelines import (
    Timeline,
    changes,
    draw_timeline,
    find_timelines,
    read_timeline,
)
from data_prep.rendering.workplace import Workplace, clean_pictures, poses_in_pictures
from data_prep.rendering.wrong_poses import with_wrong_poses
from data_prep.writing import shards
from data_prep.writing.parallel import Workers
from stormpsr_jax.psr.procedure import Procedure, Variant, load_procedure

# Objects for the general encoder have seeds from here on, the products of a run seeds below:
# what an encoder was trained on never comes up in the run that starts from it.
FIRST_OBJECT_SEED = 1_000_000_000
RECORDINGS = {"train": 40, "val": 12, "test": 12}
OBJECT_STATES = 12
WRONG_HANDS = 0.5  # share of the renders of wrong parts with hands in them
WRONG_TURN = 0.9  # radians, about as far as in recordings, where workers turn it back
REHEARSED_WRONG = 0.5  # chance that a component is put on wrong first in a rehearsal


def make_dataset(
    out: str | Path,
    *,
    seed: int = 0,
    occlusion: str = "default",
    recordings: Mapping[str, int] | None = None,
    size: int = 64,
    fps: float | None = None,
    cad_per_state: int = 100,
    cad_wrong: int = 0,
    rehearsals: int = 0,
    rehearsal_step: int = 1,
    workers: Workers = 1,
    timelines: str | Path | None = None,
    time_scale: float = 1.0,
    pace: float = 1.0,
    glob: str = "*",
    of: OfUser | None = None,
) -> Procedure:
    """Writes recordings of one product being assembled, and clean renders of its states.

    Args:
        out: folder for the shards.
        seed: below FIRST_OBJECT_SEED.
        occlusion: a key of OCCLUSIONS.
        recordings: number of made-up recordings per split, RECORDINGS by default; `timelines` come
            with their own.
        size: height and width in pixels.
        fps: frames per second; None for the procedure's.
        cad_per_state: clean renders of each catalogued state (split "cad").
        cad_wrong: further ones of each in which some parts sit wrong.
        rehearsals: further recordings of split "train" in which every other part is put on wrong
            first, in poses that no other recording has. Workers make few mistakes, and a network
            that has seen two dozen of them knows these by heart. They have no boxes: the temporal
            network learns from them, and the detector from renders (`cad_wrong`), with which it
            does better.
        rehearsal_step: only every so many-th frame of a rehearsal is rendered, and shown until the
            next: so they cost less, and windows of such strides see no less in them.
        workers: processes, or a cluster.
        timelines: folder of <split>/<recording>/PSR_labels_raw.csv of procedure "meccano".
        time_scale: their frame numbers are divided by it.
        pace: in made-up recordings, pauses between events are this many times as long, at least 1.
        glob: on recording names; only these are made.
        of: the product, a toy by default. Timelines that are played are then of its procedure.

    Returns:
        The procedure of the data.

    Raises:
        ValueError: an argument is out of range, a label file is malformed, or the procedure cannot
            be built in its order.
    """
    if not 0 <= seed < FIRST_OBJECT_SEED:
        raise ValueError(
            f"--seed={seed} is not in [0, {FIRST_OBJECT_SEED}): seeds from there on are for "
            "--objects, so that no encoder has seen the product of a run."
        )
    if occlusion not in OCCLUSIONS:
        raise ValueError(f"--occlusion={occlusion} is not one of {', '.join(OCCLUSIONS)}.")
    if not pace >= 1:
        raise ValueError(f"--pace={pace} is below 1.")
    if timelines and pace != 1:
        raise ValueError(f"--pace={pace} is for made-up timelines; real ones have --time_scale.")
    if timelines and rehearsals:
        raise ValueError(f"--rehearsals={rehearsals} are made up, --timelines played: give one.")
    if rehearsal_step < 1:
        raise ValueError(f"--rehearsal_step={rehearsal_step} is below 1.")
    procedure = of.procedure if of else load_procedure("meccano" if timelines else "synthetic")
    if fps is not None:
        procedure = dataclasses.replace(procedure, fps=procedure.checked_fps(fps))
    if timelines:
        splits = {split: tuple(paths) for split, paths in find_timelines(timelines).items()}
    else:
        orders.check(procedure)
        counts = RECORDINGS if recordings is None else recordings
        splits = split_names(procedure, counts, rehearsals)
    board = of is None or len(of.product.board.faces) > 0
    renders = rendered.cad_recordings(procedure, cad_per_state, cad_wrong, board=board)
    if renders:
        splits["cad"] = tuple(renders)
    make = functools.partial(
        make_recording,
        procedure=procedure,
        seed=seed,
        occlusion=occlusion,
        size=size,
        renders=renders,
        directory=timelines,
        time_scale=time_scale,
        pace=pace,
        rehearsal_step=rehearsal_step,
        product=of.product if of else None,
    )
    kit = of is not None
    num_frames = {
        name: renders[name]
        if split == "cad"
        else _timeline(split, name, procedure, seed, timelines, time_scale, pace, kit).num_frames
        for split, names in splits.items()
        for name in names
    }
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
            "cad_wrong": cad_wrong,
            "rehearsals": rehearsals,
            "rehearsal_step": rehearsal_step,
            "time_scale": time_scale,
            "pace": pace,
            "timelines": _digest(timelines) if timelines else None,
            **(of.settings if of else {}),
        },
        recordings=glob,
        num_frames=num_frames,
    )
    return procedure


def _timeline(
    split: str,
    name: str,
    procedure: Procedure,
    seed: int,
    directory: str | Path | None,
    time_scale: float,
    pace: float,
    kit: bool = False,
) -> Timeline:
    """What happens in a recording: read from its labels in `directory`, or made up."""
    if directory:
        return read_timeline(find_timelines(directory)[split][name], procedure, time_scale)
    wrong = REHEARSED_WRONG if is_rehearsal(name) else None
    when = rendered.streams(seed, "recording", split, name)[0]
    variant = procedure.variant_for(name)
    return draw_timeline(procedure, when, pace, wrong, variant=variant, covers=kit)


def _digest(directory: str | Path) -> int:
    """A number that changes with the label files."""
    digest = 0
    for of_split in find_timelines(directory).values():
        for path in of_split.values():
            digest = zlib.crc32(path.read_bytes(), digest)
    return digest


def make_objects(
    out: str | Path,
    *,
    seed: int = FIRST_OBJECT_SEED,
    objects: Mapping[str, int],
    frames_per_object: int = 100,
    size: int = 64,
    num_components: int = 11,
    workers: Workers = 1,
    glob: str = "*",
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
        workers: processes, or a cluster.
        glob: on the products' names; only these are made.

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
        recordings=glob,
        num_frames={name: frames_per_object for names in splits.values() for name in names},
    )
    return procedure


def make_recording(
    split: str,
    name: str,
    *,
    procedure: Procedure,
    seed: int,
    occlusion: str,
    size: int,
    renders: Mapping[str, int],
    directory: str | Path | None,
    time_scale: float,
    pace: float,
    rehearsal_step: int = 1,
    product: Product | None = None,
) -> shards.RecordingData:
    """Renders one recording of a dataset; see make_dataset. Without a product, of the toy."""
    if product is None:
        product = toy_product(procedure.num_components, rendered.streams(seed, "product")[0])
    when, how, looks, noise = rendered.streams(seed, "recording", split, name)
    if split == "cad":
        states, bodies = rendered.cad_bodies(name, renders[name], product, procedure, when)
        pictures: Iterator[Picture]
        if rendered.is_wrong(name):
            motion = plan_views(renders[name], how, hands=WRONG_HANDS, turn=WRONG_TURN)
            motion = motion.over(product.height)
            pictures = (
                Workplace(product, lambda _, body=body: body, looks).picture(motion, i, state, size)
                for i, (state, body) in enumerate(zip(states, bodies, strict=True))
            )
        else:
            motion = plan_views(renders[name], how, hands=0.0).over(product.height)
            pictures = clean_pictures(bodies, motion, size, looks)
        poses = poses_in_pictures(product, motion)
        return rendered.encode(name, 0, pictures, states, procedure, noise, poses=poses)
    timeline = _timeline(split, name, procedure, seed, directory, time_scale, pace, product.kit)
    step = rehearsal_step if is_rehearsal(name) else 1
    if is_rehearsal(name) or product.kit:
        wrong = rendered.streams(seed, "rehearsal", split, name)[0]
        product = with_wrong_poses(product, wrong, timeline.states if product.kit else None)
    places = np.array([part.right[:2, 3] for part in product.parts])
    motion = plan_recording(timeline, places, procedure.fps, OCCLUSIONS[occlusion], how)
    motion = _with_stand_ins(motion.over(product.height), product, timeline)
    shown = np.arange(timeline.num_frames) // step * step
    states = timeline.per_frame()[shown]
    workplace = Workplace(product, _bodies(product), looks)
    pictures = (workplace.picture(motion, i, states[i], size) for i in range(0, len(states), step))
    annotated = not is_rehearsal(name)
    return rendered.encode(
        name, timeline.first_frame, pictures, states, procedure, noise, annotated, step
    )


def _with_stand_ins(motion: Motion, product: Product, timeline: Timeline) -> Motion:
    """The motion in which hands bring what is put in a part's place by mistake."""
    carried = motion.carried.copy()
    for frame, changed in changes(timeline):
        for k, (_, new) in changed.items():
            stand_in = product.parts[k].stand_in
            if new < 0 and stand_in is not None:
                others = np.flatnonzero(carried[:frame] != k)
                carried[others[-1] + 1 if len(others) else 0 : frame] = stand_in
    return dataclasses.replace(motion, carried=carried)


def make_object(
    split: str, name: str, *, procedure: Procedure, seed: int, count: int, size: int
) -> shards.RecordingData:
    """Renders one random product; see make_objects."""
    when, how, looks, noise = rendered.streams(seed, "object", split, name)
    product = random_product(int(when.integers(2**62)), procedure.num_components)
    known = _related_states(when, procedure.num_components)
    states = known[when.integers(len(known), size=count)]
    motion = plan_views(count, how, hands=0.5)
    bodies = _bodies(product)
    pictures = (
        Workplace(product, bodies, looks).picture(motion, i, states[i], size) for i in range(count)
    )
    return rendered.encode(name, 0, pictures, states, procedure, noise)


def _bodies(product: Product) -> Callable[[tuple[int, ...]], Body]:
    """The product's body by state; those seen last are kept."""
    return functools.lru_cache(OBJECT_STATES)(lambda state: Body(product.mesh(state)))


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


def _make(
    out: str,
    size: int,
    workers: Workers,
    recordings: str,
    seed: int | None,
    objects: int,
    frames_per_object: int,
    **given: Any,
) -> None:
    """What the command does: products with --objects, else recordings of one."""
    counts = {split: given.pop(split) for split in RECORDINGS}
    told = {name: given.pop(name) for name in ("meshes", "procedure", "poses", "up")}
    of = products.find(**told, product_seed=given.pop("product_seed"), seed=seed or 0)
    if objects and of:
        raise ValueError(f"--objects={objects} are random products: leave out what tells another")
    if not objects:
        make_dataset(
            out,
            seed=seed or 0,
            recordings=counts,
            size=size,
            workers=workers,
            glob=recordings,
            of=of,
            **given,
        )
        return
    val = max(1, objects // 10)
    make_objects(
        out,
        seed=FIRST_OBJECT_SEED if seed is None else seed,
        objects={"train": objects - val, "val": val},
        frames_per_object=frames_per_object,
        size=size,
        workers=workers,
        glob=recordings,
    )


def _add_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add_count = functools.partial(add, type=command.at_least(0), metavar="N")
    command.add_shard_flags(parser)
    add("--meshes", metavar="DIR", help="of your own product: a mesh per component (data_prep.cad)")
    add("--procedure", metavar="FILE", help="of your own product, or a packaged name")
    command.add_poses_flags(parser)
    add(
        *("--product_seed", "--product-seed"),
        type=command.at_least(0),
        metavar="N",
        help="a product and a procedure drawn at random",
    )
    add("--seed", type=int, metavar="N", help="of everything drawn (0; of --objects: 1e9)")
    add("--occlusion", choices=OCCLUSIONS, default="default", help="how much hands hide")
    for split, number in RECORDINGS.items():
        add_count(f"--{split}", default=number, help=f"recordings in split {split} (%(default)s)")
    command.add_size_flag(parser, 64)
    add("--fps", type=float, metavar="F", help="frames per second; default: the procedure's")
    add_count("--cad_per_state", default=100, help="clean renders of each state (%(default)s)")
    add_count("--cad_wrong", default=0, help="further ones with parts that sit wrong (0)")
    add_count("--rehearsals", default=0, help="recordings for training, full of mistakes (0)")
    add(
        "--rehearsal_step",
        type=command.at_least(1),
        default=1,
        metavar="N",
        help="frames for which a picture of them is shown (%(default)s)",
    )
    add("--timelines", metavar="DIR", help="label timelines to play")
    add("--time_scale", type=float, default=1.0, metavar="F", help="divides label frame numbers")
    add("--pace", type=float, default=1.0, metavar="F", help="pauses are F times as long (1)")
    add_count("--objects", default=0, help="random products instead of recordings")
    add(
        "--frames_per_object",
        type=command.at_least(1),
        default=100,
        metavar="N",
        help="of each of them (%(default)s)",
    )


main = command.command("synthetic", __doc__, _add_flags, _make, renders=True)

if __name__ == "__main__":
    sys.exit(main())
