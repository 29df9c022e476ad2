"""Pictures of catalogued states, and rendered pictures as recordings."""

import itertools
import zlib
from collections.abc import Iterable, Iterator

import numpy as np
import simplejpeg

from data_prep.rendering.product import Product
from data_prep.rendering.scene import Body, Picture
from data_prep.rendering.wrong_poses import draw_states, wrong_mesh
from data_prep.writing import shards
from stormpsr_jax.data.annotation import EMPTY, NOT_ANNOTATED
from stormpsr_jax.psr.procedure import Procedure

JPEG_QUALITY = 92


def streams(seed: int, kind: str, split: str = "", name: str = "") -> list[np.random.Generator]:
    """Independent generators of one recording (or whatever `kind` is), for its four concerns."""
    words = [zlib.crc32(text.encode()) for text in (kind, split, name)]
    sequence = np.random.SeedSequence([seed, *words])
    return [np.random.default_rng(child) for child in sequence.spawn(4)]


def cad_recordings(
    procedure: Procedure, per_state: int, wrong: int, *, board: bool = True
) -> dict[str, int]:
    """Names of the recordings of split "cad" and their pictures.

    `cad_01` shows state 1 and nothing else; `wrong_01` shows it at workplaces, with some of its
    parts sitting wrong. A state without any component has nothing that could, and without a
    `board` nothing to show.
    """
    states = list(enumerate(procedure.states, start=1))
    right = {f"cad_{c:02d}": per_state for c, s in states if per_state and (board or s.any())}
    shown = [c for c, state in states if state.any()]
    return right | {f"wrong_{c:02d}": wrong for c in shown if wrong}


def is_wrong(name: str) -> bool:
    """Whether a recording of split "cad" shows parts that sit wrong."""
    return name.startswith("wrong_")


def cad_bodies(
    name: str, count: int, product: Product, procedure: Procedure, rng: np.random.Generator
) -> tuple[np.ndarray, Iterable[Body]]:
    """States (count, K) of a recording of `cad_recordings`, and the product in each of them."""
    state = procedure.states[int(name.split("_")[1]) - 1]
    if not is_wrong(name):
        return np.tile(state, (count, 1)), itertools.repeat(Body(product.mesh(state)))
    states = draw_states(state, count, rng)
    return states, (Body(wrong_mesh(product, row, rng)) for row in states)


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
) -> shards.RecordingData:
    """Returns a recording whose pictures are rendered as they are asked for.

    Each is shown for `step` frames. With boxes if it is `annotated`, and with poses (N, 6) if these
    are given.
    """
    from data_prep.rendering import sensor  # here, as flags and --help do without it

    count = len(states)
    boxes = np.full((count, 4), np.nan, np.float32)
    visible = np.zeros(count, np.float32)
    classes = np.full(count, EMPTY if annotated else NOT_ANNOTATED, np.int16)
    of_states = procedure.state_classes(states)
    level = rng.uniform(0.004, 0.014)

    def jpegs() -> Iterator[bytes]:
        for first, picture in zip(range(0, count, step), pictures, strict=True):
            shown = slice(first, first + step)
            visible[shown] = picture.visible
            if annotated and not np.isnan(picture.box[0]):
                boxes[shown], classes[shown] = picture.box, of_states[shown]
            pixels = sensor.exposed(picture.image, level, rng)
            jpeg = simplejpeg.encode_jpeg(pixels, JPEG_QUALITY, "RGB", "444", fastdct=False)
            yield from [jpeg] * min(step, count - first)

    return shards.RecordingData(
        name, first_frame, jpegs(), states, boxes, classes, visible, poses=poses
    )
