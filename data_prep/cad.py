"""Renders every catalogued state of a product from the meshes of its parts.

    python -m data_prep.cad --meshes=DIR --procedure=FILE --out=DIR

DIR holds one file per component (STL, OBJ, PLY or GLB; with `pip install cascadio` STEP, with `pip
install lxml networkx` 3MF), named after it ("front wheel.stl"; case, spaces, _ and - make no
difference) or after its index ("7.stl", the first component being 0); `data_prep.parts` makes such
a folder of one file.
The parts are in the coordinates of the assembled product, in any unit (what is read from STEP and
3MF is in millimetres), or `poses.json` in DIR says where they go:

    {"front wheel": [[1, 0, 0, 10], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]],
     "lid": {"translation": [0, 0, 5], "quaternion": [1, 0, 0, 0]},
     "colors": {"lid": "#c02020"},
     "wrong": {"lid": [{"translation": [0, 0, 5], "quaternion": [0, 1, 0, 0]}]}}

(4 × 4 matrix, mesh to product, or translation and quaternion w x y z.) `--poses=FILE` names another
file. "wrong" lists the incorrect poses of a part, else they are drawn. A part takes its colour from
"colors", else from its mesh, else one is drawn for it from the seed, the same in all pictures.
Textures are not read, and of the files that a mesh refers to only the material libraries of an OBJ
(`mtllib`) that lie beside it.
z points up, or y with `--up=y`.

Writes split "cad" of a folder of its own, with a recording per state (`cad_01` is state 1) of
`--per_state` pictures that have nothing to do with each other: each has its own camera, light,
background (a plain colour, or a table with loose parts on it) and, three of ten, hands. With
`--wrong=N` it also has N pictures of each state with incorrect installations (wrong_01): parts
that are turned, shifted, mirrored or on the wrong side, a pose drawn for each. With
`--turn=DEGREES` these have the product's front (−y, or z with `--up=y`) towards the camera, give or
take so much, as workers have it most of the time: then a detector learns more from as many
pictures. Without it all pictures show it from any side. A state without any part is left out. Every
recording is a function of the inputs, the seed and its name alone.
"""

import argparse
import dataclasses
import functools
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Unpack

import numpy as np

from data_prep import command
from data_prep.products.meshes import RADIUS
from data_prep.products.product import Product
from data_prep.products.products import from_meshes, show_drawn_colours
from data_prep.rendering import seeds
from data_prep.rendering.scene import Body, Picture
from data_prep.worlds import noticed, rendered
from data_prep.worlds.motion import Motion, plan_views
from data_prep.worlds.workplace import HALF_VIEW, clean_picture, plain_sketch, poses_in_pictures
from data_prep.writing import shards
from stormpsr_jax.recordings.procedure import Procedure

HAND_CLEARANCE = 0.8  # a product of this height fits under the hands as they are
ELEVATION = (35.0, 80.0)  # of the camera over the table in degrees
FILL = (0.5, 0.95)  # share of the picture's height that the product's bounding sphere takes
OCCLUDED = 0.3  # share of the pictures with hands


def plan(count: int, height: float, rng: np.random.Generator, turn: float | None = None) -> Motion:
    """Draws `count` views, all with hands, of a product of a height, turned as in make_dataset."""
    turn = None if turn is None else np.radians(turn)
    views = plan_views(count, rng, hands=1.0, turn=turn)
    rise = np.radians(rng.uniform(*ELEVATION, count))
    around = rng.uniform(-0.4, 0.4, count)  # besides the turns of the product
    flat = np.cos(rise)
    direction = np.column_stack([np.sin(around) * flat, -np.cos(around) * flat, np.sin(rise)])
    distance = RADIUS / (HALF_VIEW * rng.uniform(*FILL, count))
    middle = np.array([0.0, 0.0, height / 2])
    return dataclasses.replace(
        views,
        target=middle + rng.normal(0, (0.16, 0.16, 0.05), (count, 3)),
        camera=middle + direction * distance[:, None],
        lift=max(0.0, height - HAND_CLEARANCE),
    )


def make_recording(
    split: str,
    name: str,
    *,
    product: Product,
    procedure: Procedure,
    seed: int,
    counts: Mapping[str, int],
    size: int,
    turn: float | None,
) -> shards.RecordingData:
    """Renders one state; see make_dataset."""
    count = counts[name]
    when, how, looks, noise = seeds.streams(seed, "cad", split, name)
    views = plan(count, product.height, how, turn if rendered.is_wrong(name) else None)
    hands = when.random(count) < OCCLUDED
    views = dataclasses.replace(views, reach=views.reach * hands[:, None])
    plain = ~hands & (when.random(count) < 0.5)
    states, copies = rendered.cad_copies(name, count, product, procedure, when)

    def pictures() -> Iterator[Picture]:
        for i, copy in zip(range(count), copies, strict=False):
            if plain[i]:
                sketch = functools.partial(plain_sketch, copy, views, i)
                states[i] = noticed.as_told(sketch, states[i])
                yield clean_picture(Body(copy.mesh(states[i])), views, i, size, looks)
            else:
                yield noticed.picture(copy, views, i, states, size, looks)

    poses = poses_in_pictures(product, views)
    return rendered.encode(name, 0, pictures(), states, procedure, noise, poses=poses)


def make_dataset(
    out: str | Path,
    *,
    meshes: str | Path,
    procedure: Procedure,
    poses: str | Path | None = None,
    size: int = 224,
    per_state: int = 100,
    wrong: int = 0,
    seed: int = 0,
    turn: float | None = None,
    up: str = "z",
    **making: Unpack[shards.Making],
) -> None:
    """Writes a folder of clip shards with split "cad"; arguments are as `--help` says of the flags.

    Raises:
        ValueError: an argument is out of range, a mesh or poses.json is wrong, or the folder was
            made with other inputs.
    """
    if turn is not None and not 0 <= turn <= 180:
        raise ValueError(f"--turn={turn} is not in 0…180")
    if turn is not None and not wrong:
        raise ValueError(f"--turn={turn} is for incorrect installations: give --wrong=N too")
    of_user = from_meshes(meshes, procedure, poses=poses, seed=seed, up=up)
    counts = rendered.cad_recordings(procedure, per_state, wrong, board=False)
    if not procedure.states.any(axis=1).all():
        print("a state without any component has nothing to render; it is left out", flush=True)
    shards.build(
        out,
        procedure=procedure,
        image_size=(size, size),
        splits={"cad": list(counts)},
        make=functools.partial(
            make_recording,
            product=dataclasses.replace(of_user.product, kit=False),
            procedure=procedure,
            seed=seed,
            counts=counts,
            size=size,
            turn=turn,
        ),
        num_frames=counts,
        warnings=of_user.warnings,
        on_start=lambda: show_drawn_colours(of_user, Path(out)),
        settings={
            "seed": seed,
            "per_state": per_state,
            "wrong": wrong,
            "turn": turn,
            **of_user.settings,
        },
        **making,
    )


def _add_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--meshes", required=True, metavar="DIR", help="a mesh per component, and poses.json")
    add("--procedure", required=True, metavar="FILE", help="procedure file, or a packaged name")
    command.add_poses_flags(parser)
    command.add_shard_flags(parser)
    command.add_size_flag(parser, 224)
    add_count = functools.partial(add, metavar="N")
    what = "pictures of each (%(default)s)"
    add_count("--per_state", type=command.at_least(1), default=100, help=what)
    at_least_0 = command.at_least(0)
    add_count("--wrong", type=at_least_0, default=0, help="more, of incorrect installations (0)")
    add_count("--seed", type=at_least_0, default=0, help="of everything drawn (%(default)s)")
    add(
        "--turn",
        type=float,
        metavar="DEGREES",
        help="how far the product's front is turned from the camera in pictures of incorrect "
        "installations, standard deviation (any way round)",
    )


main = command.command("cad", __doc__, _add_flags, make_dataset, renders=True)

if __name__ == "__main__":
    sys.exit(main())
