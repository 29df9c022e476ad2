"""Renders every catalogued state of a product from the meshes of its parts.

    python -m data_prep.cad --meshes=DIR --procedure=FILE --out=DIR

DIR holds one file per component (STL, OBJ, GLB or, with the extra `step`, STEP), named after it
("front wheel.stl"; case, spaces, _ and - make no difference) or after its index ("7.stl", the first
component being 0). The parts are in the coordinates of the assembled product, in any unit (what is
read from STEP is in millimetres), or `poses.json` in DIR says where they go:

    {"front wheel": [[1, 0, 0, 10], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]],
     "lid": {"translation": [0, 0, 5], "quaternion": [1, 0, 0, 0]},
     "colors": {"lid": "#c02020"}}

(4 × 4 matrix, mesh to product, or translation and quaternion w x y z.) A part takes its colour from
"colors", else from its mesh, else one is drawn for it from the seed, the same in all pictures.
Textures and material libraries (`mtllib`) are not read, nor any other file that a mesh refers to.
z points up, or y with `--up=y`.

Writes split "cad" of a folder of its own, with a recording per state (`cad_01` is state 1) of
`--per_state` pictures that have nothing to do with each other: each has its own camera, light,
background (a plain colour, or a table with loose parts on it) and, a share `--occluded` of them,
hands. With `--wrong=N` it also has N pictures of each state in which some of the parts sit wrong
(`wrong_01`): turned, shifted, mirrored or on the wrong side, a pose drawn for each. With
`--turn=DEGREES` these have the product's front (−y, or z with `--up=y`) towards the camera, give or
take so much, as workers have it most of the time: then a detector learns more of wrong parts from
as many pictures. Without it all pictures show it from any side. A state without any part is left
out. Every recording is a function of the inputs, the seed and its name alone.
"""

import argparse
import dataclasses
import functools
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Unpack

import numpy as np

from data_prep import command
from data_prep.rendering import rendered
from data_prep.rendering.motion import Motion, plan_views
from data_prep.rendering.product import Product
from data_prep.rendering.products import RADIUS, from_meshes
from data_prep.rendering.scene import Picture
from data_prep.rendering.workplace import (
    HALF_VIEW,
    Workplace,
    clean_pictures,
    poses_in_pictures,
)
from data_prep.writing import shards
from stormpsr_jax.psr.procedure import Procedure

HAND_CLEARANCE = 0.8  # a product of this height fits under the hands as they are


def plan(
    count: int,
    height: float,
    elevation: tuple[float, float],
    fill: tuple[float, float],
    rng: np.random.Generator,
    turn: float | None = None,
) -> Motion:
    """Draws `count` views, all with hands.

    Args:
        count: N.
        height: of the product.
        elevation: of the camera over the table in degrees, lowest and highest.
        fill: share of the picture's height that the product's bounding sphere takes, from … to.
        rng: draws everything.
        turn: of the product in degrees, see `make_dataset`.
    """
    turn = None if turn is None else np.radians(turn)
    views = plan_views(count, rng, hands=1.0, turn=turn)
    rise = np.radians(rng.uniform(*elevation, count))
    around = rng.uniform(-0.4, 0.4, count)  # besides the turns of the product
    flat = np.cos(rise)
    direction = np.column_stack([np.sin(around) * flat, -np.cos(around) * flat, np.sin(rise)])
    distance = RADIUS / (HALF_VIEW * rng.uniform(*fill, count))
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
    elevation: tuple[float, float],
    fill: tuple[float, float],
    occluded: float,
    turn: float | None,
) -> shards.RecordingData:
    """Renders one state; see make_dataset."""
    count = counts[name]
    when, how, looks, noise = rendered.streams(seed, "cad", split, name)
    height = max(part.right[2, 3] + part.height / 2 for part in product.parts)
    views = plan(count, height, elevation, fill, how, turn if rendered.is_wrong(name) else None)
    hands = when.random(count) < occluded
    plain = ~hands & (when.random(count) < 0.5)
    states, bodies = rendered.cad_bodies(name, count, product, procedure, when)

    def pictures() -> Iterator[Picture]:
        for i, body in zip(range(count), bodies, strict=False):
            if plain[i]:
                yield from clean_pictures([body], _view(views, i, hands=False), size, looks)
            else:
                workplace = Workplace(product, lambda _, body=body: body, looks)
                yield workplace.picture(_view(views, i, hands=bool(hands[i])), 0, states[i], size)

    poses = poses_in_pictures(product, views)
    return rendered.encode(name, 0, pictures(), states, procedure, noise, poses=poses)


def _view(views: Motion, i: int, *, hands: bool) -> Motion:
    """View i alone, with or without its hands."""
    of_frames = [f.name for f in dataclasses.fields(Motion) if f.name != "lift"]
    one = dataclasses.replace(
        views, **{name: getattr(views, name)[i : i + 1] for name in of_frames}
    )
    return dataclasses.replace(one, reach=one.reach * hands)


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
    elevation: tuple[float, float] = (35.0, 80.0),
    fill: tuple[float, float] = (0.5, 0.95),
    occluded: float = 0.3,
    turn: float | None = None,
    up: str = "z",
    **making: Unpack[shards.Making],
) -> None:
    """Writes a folder of clip shards with split "cad": pictures of every catalogued state.

    Args:
        out: the folder; finished recordings in it are kept.
        meshes: folder of part meshes; see the module's docstring.
        procedure: whose states are rendered.
        poses: a file in place of poses.json there.
        size: height and width in pixels.
        per_state: pictures of each state.
        wrong: further pictures of each in which some parts sit wrong.
        seed: of everything drawn.
        elevation: of the camera over the table in degrees, lowest and highest.
        fill: share of the picture's height that the complete product takes, from … to.
        occluded: share of the pictures with hands.
        turn: in pictures of wrong parts, the standard deviation in degrees of how far the product's
            front is turned away from the camera; None turns it any way round, as in all others.
        up: the axis of the meshes that points up, "z" or "y".
        **making: see shards.build.

    Raises:
        ValueError: an argument is out of range, a mesh or poses.json is wrong (named), or the
            folder was made with other inputs.
    """
    _check_range("elevation", elevation, 10, 90)
    _check_range("fill", fill, 0.1, 2)
    for name, value, low, high in (
        ("size", size, 8, command.MAX_SIZE),
        ("per_state", per_state, 1, 10**6),
        ("wrong", wrong, 0, 10**6),
        ("seed", seed, 0, 2**63 - 1),
        ("occluded", occluded, 0, 1),
    ):
        if not low <= value <= high:
            raise ValueError(f"--{name}={value} is not in {low}…{high}")
    if turn is not None and not 0 <= turn <= 180:
        raise ValueError(f"--turn={turn} is not in 0…180")
    if turn is not None and not wrong:
        raise ValueError(f"--turn={turn} is for pictures of wrong parts: give --wrong=N too")
    of_user = from_meshes(meshes, procedure, poses=poses, seed=seed, up=up)
    counts = rendered.cad_recordings(procedure, per_state, wrong, board=False)
    if not procedure.states.any(axis=1).all():
        print("a state without any component has nothing to render; it is left out", flush=True)
    shards.build(
        out,
        procedure=procedure,
        fps=procedure.fps,
        image_size=(size, size),
        splits={"cad": list(counts)},
        make=functools.partial(
            make_recording,
            product=dataclasses.replace(of_user.product, kit=False),
            procedure=procedure,
            seed=seed,
            counts=counts,
            size=size,
            elevation=elevation,
            fill=fill,
            occluded=occluded,
            turn=turn,
        ),
        num_frames=counts,
        settings={
            "seed": seed,
            "per_state": per_state,
            "wrong": wrong,
            "elevation": list(elevation),
            "fill": list(fill),
            "occluded": occluded,
            "turn": turn,
            **of_user.settings,
        },
        **making,
    )


def _check_range(name: str, value: Sequence[float], low: float, high: float) -> None:
    if len(value) != 2 or not low <= value[0] <= value[1] <= high:
        shown = ",".join(f"{v:g}" for v in value)
        raise ValueError(f"--{name}={shown} is not MIN,MAX with {low} ≤ MIN ≤ MAX ≤ {high}")


def _pair(text: str) -> tuple[float, ...]:
    return tuple(float(part) for part in text.split(","))


_pair.__name__ = "MIN,MAX"  # argparse shows it: "invalid MIN,MAX value: 'x'"


def _add_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--meshes", required=True, metavar="DIR", help="a mesh per component, and poses.json")
    add("--procedure", required=True, metavar="FILE", help="procedure file, or a packaged name")
    command.add_poses_flags(parser)
    command.add_shard_flags(parser)
    command.add_size_flag(parser, 224)
    add("--per_state", type=int, default=100, metavar="N", help="pictures of each (%(default)s)")
    add("--wrong", type=int, default=0, metavar="N", help="further ones with parts wrong (0)")
    add(
        "--turn",
        type=float,
        metavar="DEGREES",
        help="how far the product's front is turned from the camera in pictures of wrong parts, "
        "standard deviation (any way round)",
    )
    add("--seed", type=int, default=0, metavar="N", help="of everything drawn (%(default)s)")
    add("--occluded", type=float, default=0.3, help="share of pictures with hands (%(default)s)")
    add(
        "--elevation",
        type=_pair,
        default=(35.0, 80.0),
        metavar="MIN,MAX",
        help="degrees of the camera above the table (35,80)",
    )
    add(
        "--fill",
        type=_pair,
        default=(0.5, 0.95),
        metavar="MIN,MAX",
        help="share of the picture's height that the complete product takes (0.5,0.95)",
    )


main = command.command("cad", __doc__, _add_flags, make_dataset, renders=True)

if __name__ == "__main__":
    sys.exit(main())
