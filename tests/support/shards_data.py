"""Toy recordings as clip shards, whose frames a hand can count; worker processes import it."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import simplejpeg

from data_prep.writing import shards
from stormpsr_jax.recordings.procedure import Procedure
from tests.support import toy

SIZE = (16, 24)
SPLITS = {"train": ["b", "a", "c"], "test": ["d"], "val": []}


def toy_procedure(**changes) -> Procedure:
    content = toy.content()
    return Procedure.from_json(content | changes)


def jpeg(seed) -> bytes:
    return simplejpeg.encode_jpeg(
        np.random.default_rng(seed).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    )


def toy_recording(name: str) -> shards.RecordingData:
    """11 frames 1…11: 000, 100 from frame 4, 1-10 from 6, 111 from 8."""
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
    return shards.RecordingData(
        name=name,
        first_frame=1,
        jpegs=iter([jpeg([ord(name[0]), i]) for i in range(n)]),
        states=states,
        boxes=boxes,
        classes=classes,
        visible=visible,
        poses=np.linspace(-1, 1, 6 * n).reshape(n, 6),
    )


def make(
    split: str,
    name: str,
    log: Path | None = None,
    sleep: float = 0,
    fail: str = "",
    change: Callable | None = None,
) -> shards.RecordingData:
    """Toy recordings, of which `change` makes another b."""
    if log is not None:
        with log.open("a") as file:
            file.write(f"{name}\n")
    if name in fail.split(","):
        if fail.startswith("die"):
            os._exit(3)
        raise {"value": ValueError, "key": KeyError}[fail.split(",")[0]](f"no {name} here")
    data = toy_recording(name)
    if change is not None and name == "b":
        return change(data)
    if sleep and name != "d":  # the first one made is quick, so that something is finished
        data.jpegs = slowly(data.jpegs, sleep)
    return data


def slowly(jpegs, sleep):
    for jpeg in jpegs:
        time.sleep(sleep)
        yield jpeg


def build(out: Path, **changes) -> None:
    arguments = {
        "procedure": toy_procedure().at(5),
        "image_size": SIZE,
        "splits": SPLITS,
        "make": make,
        "clip_length": 4,
    }
    shards.build(out, **(arguments | changes))
