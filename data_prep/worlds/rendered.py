"""Pictures of catalogued states, and rendered pictures as recordings."""

from collections.abc import Iterator, Mapping

import numpy as np
import simplejpeg

from data_prep.rendering.scene import Picture
from data_prep.worlds.worlds import TOY, World
from data_prep.writing import shards
from stormpsr_jax.data.annotation import EMPTY, NOT_ANNOTATED
from stormpsr_jax.recordings.labels import Step
from stormpsr_jax.recordings.procedure import Procedure


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


def is_wrong(name: str) -> bool:
    """Whether a recording of split "cad" shows incorrect parts."""
    return name.startswith("wrong_")


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
