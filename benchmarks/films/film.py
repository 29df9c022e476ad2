"""Films of an assembly by another renderer, VTK, in two styles.

Figures of what was learnt from this package's renders are worth little on more of these renders.
Here nothing but the product's meshes and the timeline comes from `data_prep`: light,
table, clutter, hands, their ways, the camera, its path and its faults are made anew.

Style "vtk" has shadows, gloss and a head's camera; "cartoon" has flat tones, outlines, noise, one
hand and a fixed camera, low down. VTK (`pip install vtk`, in the extra `dev`) draws off screen, on
the processor if need be.
"""

import dataclasses
from collections.abc import Iterator

import numpy as np

from benchmarks.films.cartoon import Cartoon
from benchmarks.films.script import Script
from benchmarks.films.stage import Stage
from data_prep.products.product import Product
from data_prep.worlds.timelines import Timeline

# The stage of each, and the noise of its camera, in grey levels.
STYLES = {"vtk": (Stage, (1.0, 4.0)), "cartoon": (Cartoon, (6.0, 14.0))}


@dataclasses.dataclass(frozen=True)
class Frame:
    """A frame of a film.

    Attributes:
        picture: uint8 (S, S, 3) RGB.
        box: (4,) cx, cy, w, h in 0..1 of the product, NaN where more than a tenth of it is hidden.
    """

    picture: np.ndarray
    box: np.ndarray


def film(
    product: Product,
    timeline: Timeline,
    fps: float,
    size: int,
    rng: np.random.Generator,
    box_every: int = 1,
    style: str = "vtk",
) -> Iterator[Frame]:
    """Films a recording; `rng` draws everything that the timeline does not say.

    Args:
        product: its parts and their right and wrong places.
        timeline: what happens when, states (K,) as in the product.
        fps: frames per second.
        size: S, pixels each way.
        rng: draws looks and movements.
        box_every: only every so many-th frame has a box, as each takes two pictures more.
        style: of STYLES.
    """
    looks, ways, faults = rng.spawn(3)
    make, noise = STYLES[style]
    script = Script(product, timeline, fps, ways)
    stage = make(product, size, looks)
    sensor = Sensor(faults, noise)
    states = timeline.per_frame()
    for i, state in enumerate(states):
        stage.set(state, script, i)
        box = np.full(4, np.nan) if i % box_every else stage.box()
        yield Frame(sensor.expose(stage.picture()), box)


class Sensor:
    """What a cheap camera makes of a picture: softness, gain, colour cast, gamma, noise."""

    def __init__(self, rng: np.random.Generator, noise: tuple[float, float]):
        self._rng = rng
        self._gain = rng.uniform(0.85, 1.15) * (1 + rng.uniform(-0.05, 0.05, 3))
        self._gamma = rng.uniform(0.85, 1.15)
        self._noise = rng.uniform(*noise)
        self._soft = rng.uniform(0.0, 0.25)

    def expose(self, picture: np.ndarray) -> np.ndarray:
        """uint8 (S, S, 3) of a picture (S, S, 3) in 0..1."""
        padded = np.pad(picture, ((1, 1), (1, 1), (0, 0)), "edge")
        around = padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:]
        soft = (1 - self._soft) * picture + self._soft * around / 4
        shown = 255 * np.clip(soft * self._gain, 0, 1) ** self._gamma
        shown += self._noise * self._rng.standard_normal(picture.shape)
        return np.clip(shown + 0.5, 0, 255).astype(np.uint8)
