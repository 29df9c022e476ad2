"""Pictures of catalogued states, and rendered pictures as recordings."""

import re
from collections.abc import Iterator, Mapping

import numpy as np
import simplejpeg

from data_prep.rendering.scene import Picture
from data_prep.worlds.worlds import TOY, World
from data_prep.writing import shards
from stormpsr_jax.base.files import check_name
from stormpsr_jax.data.folder import EMPTY, NOT_ANNOTATED
from stormpsr_jax.recordings.labels import Step
from stormpsr_jax.recordings.procedure import Procedure, Variant

REHEARSAL = "rehearsal_"
_CHARACTERS = re.compile(r"\[([^]!])[^]]*\]|\?")


def split_names(
    procedure: Procedure, recordings: Mapping[str, int], error_recordings: int
) -> dict[str, tuple[str, ...]]:
    """The names of recordings in each split, of all variants in turn.

    `recordings` are how many each split has, `error_recordings` further ones in split "train", of
    which `is_rehearsal` tells. ValueError: there is no name that a variant alone matches.
    """
    plain = {split: [f"{split}_{i:03d}" for i in range(n)] for split, n in recordings.items() if n}
    if error_recordings:
        plain.setdefault("train", []).extend(f"{REHEARSAL}{i:03d}" for i in range(error_recordings))
    variants = list(procedure.variants.values())
    return {
        split: tuple(
            _matched(procedure, variants[i % len(variants)], name) for i, name in enumerate(names)
        )
        for split, names in plain.items()
    }


def is_rehearsal(name: str) -> bool:
    """Whether a recording is one of the rehearsals."""
    return REHEARSAL in name


def _matched(procedure: Procedure, variant: Variant, name: str) -> str:
    """The name itself if it is of the variant, else the globs' first that is with it filled in."""
    for found in (name, *(_filled(glob, name) for glob in variant.recordings)):
        try:
            if procedure.variant_for(check_name(found, "")) is variant and name in found:
                return found
        except ValueError:
            continue  # no variant, or several, or no name of a file
    raise ValueError(
        f"procedure {procedure.name!r}: variants.{variant.name}.recordings: a recording that is "
        f"made up needs a name that they match and no other variant does; add a glob such as "
        f"'{variant.name}_*'"
    )


def _filled(glob: str, name: str) -> str:
    """A name that a glob matches: `name` for its first *."""
    plain = _CHARACTERS.sub(lambda match: match[1] or "0", glob)
    return plain.replace("*", name, 1).replace("*", "")


def cad_recordings(procedure: Procedure, per_state: int, wrong: int, board: bool) -> dict[str, int]:
    """Names of the recordings of split "cad" and their pictures.

    cad_01 shows state 1 and nothing else; wrong_01 shows it at workplaces, with some of its
    parts incorrect. A state without any component has nothing that could, and without a
    `board` nothing to show.
    """
    states = list(enumerate(procedure.states, start=1))
    right = {f"cad_{c:02d}": per_state for c, s in states if per_state and (board or s.any())}
    shown = [c for c, state in states if state.any()]
    return right | {f"wrong_{c:02d}": wrong for c in shown if wrong}


def encode(
    name: str,
    first_frame: int,
    pictures: Iterator[Picture],
    states: np.ndarray,
    procedure: Procedure,
    rng: np.random.Generator,
    annotated: bool = True,
    step: int = 1,
    poses: np.ndarray | None = None,
    world: World = TOY,
    visible_from: Mapping[Step, int | None] | None = None,
) -> shards.RecordingData:
    """Returns a recording whose pictures are rendered as they are asked for.

    Each is shown for `step` frames; its state may change while it is rendered. With boxes if it is
    `annotated`, and with poses (N, 6) if these are given. The camera is one of `world`.
    """
    from data_prep.rendering import sensor  # here, as flags and --help do without it

    count = len(states)
    boxes = np.full((count, 4), np.nan, np.float32)
    visible = np.zeros(count, np.float32)
    classes = np.full(count, EMPTY if annotated else NOT_ANNOTATED, np.int16)
    level, quality = rng.uniform(*world.noise), round(world.jpeg.draw(rng))

    def jpegs() -> Iterator[bytes]:
        for first, picture in zip(range(0, count, step), pictures, strict=True):
            shown = slice(first, first + step)
            visible[shown] = picture.visible
            if annotated and not np.isnan(picture.box[0]):
                boxes[shown], classes[shown] = picture.box, procedure.state_classes(states[shown])
            pixels = sensor.exposed(picture.image, level, rng)
            jpeg = simplejpeg.encode_jpeg(pixels, quality, "RGB", "444", fastdct=False)
            yield from [jpeg] * min(step, count - first)

    labels = (states, boxes, classes, visible, poses)
    return shards.RecordingData(name, first_frame, jpegs(), *labels, visible_from=visible_from)
