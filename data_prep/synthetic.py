"""Makes clip shards of an assembly that is rendered: of a toy, or of your own product.

A product is assembled on a table, seen by a head-mounted camera; hands and tools hide it for long
stretches, above all around each step completion. It is a toy of coloured parts; with --meshes and
--procedure it is that of your own (a mesh for each component: docs/formats.md#mesh-folders).
Split "cad" has pictures of each state, right and wrong, that have nothing to do with each other.

    python -m data_prep.synthetic --out=DIR --seed=0
    python -m data_prep.synthetic --out=DIR --meshes=MESHES --procedure=FILE
    python -m data_prep.synthetic --out=DIR --world=bench

Every recording is a function of the seed, its split and its name alone.
"""

import argparse
import dataclasses
import functools
import sys
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from data_prep import command
from data_prep.products import products
from data_prep.products.product import Product
from data_prep.products.wrong_poses import draw_states, with_wrong_poses
from data_prep.rendering import ranges
from data_prep.rendering.ranges import Range
from data_prep.rendering.scene import Body
from data_prep.worlds import noticed, orders, rendered, timelines, worlds
from data_prep.worlds.hiding import OCCLUSIONS
from data_prep.worlds.motion import Motion, plan_recording, plan_views
from data_prep.worlds.noticed import copy_of
from data_prep.worlds.rendered import is_rehearsal, split_names
from data_prep.worlds.timelines import Timeline
from data_prep.worlds.workplace import Workplace, bodies_of, clean_picture, poses_in_pictures
from data_prep.worlds.worlds import TOY, World
from data_prep.writing import shards
from data_prep.writing.parallel import Workers
from stormpsr_jax.configs import cad, default
from stormpsr_jax.recordings.procedure import Procedure

# Seeds from here on are of the objects of tools.general_networks: what networks start from has
# never seen the product of a run.
FIRST_OBJECT_SEED = 1_000_000_000
RECORDINGS = {"train": 40, "val": 12, "test": 12}
WRONG_HANDS = 0.5  # share of the renders of wrong parts with hands in them
WRONG_TURN = 0.9  # radians, about as far as in recordings, where workers turn it back
# Flags with the values of configs/cad.py for a product of a user, else of configs/default.py.
_RENDERED = ("cad_per_state", "cad_wrong", "error_recordings", "world")
REHEARSED_WRONG = 0.5  # chance that a component is put on wrong first in a rehearsal


def make_dataset(
    out: str | Path,
    *,
    seed: int = 0,
    recordings: Mapping[str, int] | None = None,
    fps: float | None = None,
    size: int = 64,
    occlusion: str = "default",
    world: str = "toy",
    cad_per_state: int = 100,
    cad_wrong: int = 0,
    error_recordings: int = 0,
    workers: Workers = 1,
    glob: str = "*",
    **of_product: Any,
) -> Procedure:
    """Writes recordings of one product being assembled, and clean renders of its states.

    Workers make few mistakes, and a network that has seen two dozen of them knows these by heart:
    in `error_recordings` of split "train" every other part is put on wrong first, in poses that no
    other recording has. They have no boxes: the temporal network learns from them, and the detector
    from renders (`cad_wrong`), with which it does better.

    Arguments are as `--help` says of the flags, but that `glob` is --recordings; ValueError if one
    is out of range, or the procedure cannot be built in its order.
    """
    if not 0 <= seed < FIRST_OBJECT_SEED:
        raise ValueError(
            f"--seed={seed} is not in [0, {FIRST_OBJECT_SEED}): seeds from there on are of what "
            "networks start from, so that none has seen the product of a run."
        )
    of = products.find(**of_product, seed=seed)
    procedure = of.procedure if fps is None else of.procedure.at(fps)
    board = len(of.product.board.faces) > 0
    renders = rendered.cad_recordings(procedure, cad_per_state, cad_wrong, board)
    recipe = Recipe(procedure, of.product, seed, occlusion, size, worlds.WORLDS[world], renders)
    orders.check(procedure)
    counts = RECORDINGS if recordings is None else recordings
    splits = split_names(procedure, counts, error_recordings)
    told = {name: recipe.timeline(split, name) for split, names in splits.items() for name in names}
    if renders:
        splits["cad"] = tuple(renders)
    num_frames = renders | {name: timeline.num_frames for name, timeline in told.items()}
    plain = [timeline for name, timeline in told.items() if not is_rehearsal(name)]
    drawn: dict[str, Any] = {}  # what recordings of another world than the toy depend on
    if recipe.world != TOY:
        drawn = {"world": world, "drawn": zlib.crc32(repr(recipe.world).encode())}
    shards.build(
        out,
        procedure=procedure,
        image_size=(size, size),
        splits=splits,
        make=recipe.make,
        workers=workers,
        settings={
            "seed": seed,
            "occlusion": occlusion,
            "error_recordings_step": recipe.error_recordings_step,
            "cad_per_state": cad_per_state,
            "cad_wrong": cad_wrong,
            "error_recordings": error_recordings,
            **of.settings,
            **drawn,
        },
        recordings=glob,
        num_frames=num_frames,
        on_start=lambda: products.show_drawn_colours(of, Path(out)),
        warnings=(*of.warnings, *timelines.warnings(procedure, plain)) if of.product.kit else (),
    )
    return procedure


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What recordings are made of.

    Attributes:
        product: the toy, or a kit.
        occlusion: a key of OCCLUSIONS.
        world: what is drawn of looks and habits. Rehearsals have the habits of `toy`, as nobody
            learns from pauses, and are as well in view as there.
        renders: pictures of each recording of split "cad".
        error_recordings_step: only every so many-th frame of rehearsals is rendered, and shown
            until the next: so they cost less, and windows of such strides see no less in them.
    """

    procedure: Procedure
    product: Product
    seed: int = 0
    occlusion: str = "default"
    size: int = 64
    world: World = TOY
    renders: Mapping[str, int] = dataclasses.field(default_factory=dict)
    error_recordings_step: int = 4  # window.stride: more is never seen at once

    def timeline(self, split: str, name: str) -> Timeline:
        """What happens in a recording. Nobody looks at a rehearsal's product in the end."""
        drawn = timelines.draw_timeline(
            self.procedure,
            _stream(self.seed, "recording", split, name),
            REHEARSED_WRONG if is_rehearsal(name) else None,
            self._world_of(name).habits,
            variant=self.procedure.variant_for(name),
            covers=self.product.kit,
        )
        if is_rehearsal(name):
            return drawn
        look = _stream(self.seed, "last look", split, name)
        return timelines.with_last_look(drawn, self.procedure.fps, look)

    def _world_of(self, name: str) -> World:
        world = self.world
        if world.also and _stream(self.seed, "world", name=name).random() < 0.5:
            world = world.also
        if not is_rehearsal(name):
            return world
        return dataclasses.replace(world, habits=TOY.habits, hidden=TOY.hidden)

    def make(self, split: str, name: str) -> shards.RecordingData:
        """Renders one recording, picture by picture as they are asked for."""
        if split == "cad":
            return self._render_states(name)
        product, world, fps = self.product, self._world_of(name), self.procedure.fps
        timeline = self.timeline(split, name)
        step = self.error_recordings_step if is_rehearsal(name) else 1
        if is_rehearsal(name) or product.kit or world.nearly_right:
            wrong = _stream(self.seed, "rehearsal", split, name)
            product = with_wrong_poses(product, wrong, timeline.states if product.kit else None)
        product = copy_of(product, world, _stream(self.seed, "copy", split, name))
        places = np.array([part.right[:2, 3] for part in product.parts])
        hidden = world.hidden[self.occlusion]
        rows = np.arange(timeline.num_frames) // step * step

        def filmed(product: Product, told: Timeline) -> tuple[Workplace, Motion, np.ndarray]:
            """The recording in which parts do what is told; all else is by `timeline`."""
            _, how, looks, _ = ranges.streams(self.seed, "recording", split, name)
            motion = plan_recording(
                *(timeline, places, fps, hidden, how, world.cameras),
                drawn_timeline=told,
                stand_ins=product.stand_ins,
            )
            early = _stream(self.seed, "early", split, name)
            seen = timelines.in_pictures(told, world.habits, fps, early).per_frame()[rows]
            place = Workplace(product, bodies_of(product), looks, world)
            return place, motion.over(product.height), seen

        place, motion, seen = filmed(product, timeline)
        told = timeline
        if wrongs := noticed.spells(timeline, step):
            again = _stream(self.seed, "again", split, name)
            product = noticed.with_visible_poses(product, wrongs, motion, seen, world, again)
            place, motion, seen = filmed(product, timeline)
            told = noticed.without_unseen(timeline, wrongs, place, motion, seen, world)
            place, motion, seen = filmed(product, told)
        states = told.per_frame()[rows]
        visible_from = None  # of rehearsals, which are for training alone
        if not is_rehearsal(name):
            visible_from = noticed.visible_from(told, place, motion, seen, world)
        noise = ranges.streams(self.seed, "recording", split, name)[3]
        pictures = (place.picture(motion, i, seen[i], self.size) for i in range(0, len(seen), step))
        return rendered.encode(
            name,
            timeline.first_frame,
            pictures,
            states,
            self.procedure,
            noise,
            annotated=not is_rehearsal(name),
            step=step,
            world=world,
            visible_from=visible_from,
        )

    def _render_states(self, name: str) -> shards.RecordingData:
        when, how, looks, noise = ranges.streams(self.seed, "recording", "cad", name)
        world, count = self.world, self.renders[name]
        state = self.procedure.states[int(name.split("_")[1]) - 1]
        if name.startswith("wrong_"):
            states = draw_states(state, count, when)
            copies = (
                with_wrong_poses(self.product, when, row[None], np.flatnonzero(row < 0).tolist())
                for row in states
            )
            at_work = dataclasses.replace(world, lens=Range(0, 0))  # poses are of pinhole cameras
            views = plan_views(count, how, hands=WRONG_HANDS, turn=WRONG_TURN, views=world.cameras)
            motion = views.over(self.product.height)
            pictures = (
                noticed.picture(copy, motion, i, states, self.size, looks, at_work)
                for i, copy in enumerate(copies)
            )
        else:
            states = np.tile(state, (count, 1))
            motion = plan_views(count, how, hands=0.0).over(self.product.height)
            body = Body(self.product.mesh(state))
            pictures = (clean_picture(body, motion, i, self.size, looks) for i in range(count))
        poses = poses_in_pictures(self.product, motion)
        return rendered.encode(
            name, 0, pictures, states, self.procedure, noise, poses=poses, world=world
        )


def _stream(seed: int, kind: str, split: str = "", name: str = "") -> np.random.Generator:
    return ranges.streams(seed, kind, split, name)[0]


def _make(out: str, recordings: str, **given: Any) -> None:
    counts = {split: given.pop(split) for split in RECORDINGS}
    usual = (cad if given["meshes"] else default).get_config().data.synthetic
    given |= {name: usual[name] for name in _RENDERED if given[name] is None}
    make_dataset(out, recordings=counts, glob=recordings, **given)


def _add_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add_count = functools.partial(add, type=command.at_least(0), metavar="N")
    command.add_shard_flags(parser)
    add("--meshes", metavar="DIR", help="of your own product: a mesh per component")
    add("--procedure", metavar="FILE", help="of your own product, or a packaged name")
    add("--poses", metavar="FILE", help="in place of poses.json in the folder of the meshes")
    add("--up", choices=("z", "y"), default="z", help="axis of the meshes that points up (z)")
    add("--seed", type=int, default=0, metavar="N", help="of everything drawn (%(default)s)")
    add("--occlusion", choices=OCCLUSIONS, default="default", help="how much hands hide")
    for split, number in RECORDINGS.items():
        add_count(f"--{split}", default=number, help=f"recordings in split {split} (%(default)s)")
    command.add_size_flag(parser, 64)
    add("--fps", type=float, metavar="F", help="frames per second; default: the procedure's")
    add_count("--cad_per_state", help="clean renders of each state (100)")
    add_count("--cad_wrong", help="more, of incorrect installations (0; your product: 300)")
    what = "training recordings full of assembly errors (0; your product: 80)"
    add_count("--error_recordings", help=what)
    what = "kind, real or any looks (toy; your product: anywhere)"
    add("--world", choices=worlds.WORLDS, help=what)


main = command.command("synthetic", __doc__, _add_flags, _make, renders=True)

if __name__ == "__main__":
    sys.exit(main())
