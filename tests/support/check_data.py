"""What the tests of data_prep.check have in common: a small folder of clip shards."""

import functools

import numpy as np
import simplejpeg

from data_prep.writing import shards
from tests.support import toy

SIZE = (16, 24)
SPLITS = {"train": ["a", "b"], "val": ["c"], "test": ["d"]}
PROCEDURE = toy.procedure()


def jpeg(seed, size=SIZE):
    image = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    return simplejpeg.encode_jpeg(image)


def make(split, name, change=None):
    """11 frames 1…11 that a hand can count: 000, 100 from frame 4, 1-10 from 6, 111 from 8."""
    n = 11
    states = np.zeros((n, 3), int)
    states[3:, 0] = 1
    states[5:, 1] = -1
    states[7:, 1:] = 1
    boxes = np.full((n, 4), np.nan)
    boxes[[4, 6, 10]] = (0.5, 0.5, 0.4, 0.1)
    classes = np.full(n, -1)
    classes[[4, 6, 10]] = (1, 4, 3)
    classes[0] = -2  # nobody looked
    visible = np.full(n, np.nan)
    visible[:2] = (0.2, 0.6)
    data = shards.RecordingData(
        name=name,
        first_frame=1,
        jpegs=[jpeg([ord(name[0]), i]) for i in range(n)],
        states=states,
        boxes=boxes,
        classes=classes,
        visible=visible,
        poses=np.linspace(-1, 1, 6 * n).reshape(n, 6),
    )
    return change(data) if change is not None and name == "b" else data


def build(out, change=None, splits=SPLITS):
    shards.build(
        out,
        procedure=PROCEDURE.at(5),
        image_size=SIZE,
        splits=splits,
        make=functools.partial(make, change=change),
        clip_length=4,
    )
    return out
