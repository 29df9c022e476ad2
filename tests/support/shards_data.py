"""Toy recordings for the tests of the shard builder; worker processes import it."""

import os
import time
from pathlib import Path

import numpy as np
import simplejpeg

from data_prep.writing import shards
from stormpsr_jax.psr.procedure import Procedure
from tests.support import toy

SIZE = (16, 24)
SPLITS = {"train": ["b", "a", "c"], "test": ["d"], "val": []}


def toy_procedure(**changes) -> Procedure:
    content = toy.content()
    return Procedure.from_json(content | changes)


def toy_jpegs(name: str, count: int) -> list[bytes]:
    rng = np.random.default_rng(ord(name[0]))
    return [
        simplejpeg.encode_jpeg(rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8))
        for _ in range(count)
    ]


def toy_recording(name: str) -> shards.RecordingData:
    n = 11 + ord(name[0]) % 7
    rng = np.random.default_rng(1000 + ord(name[0]))
    boxes = rng.uniform(0, 1, (n, 4))
    boxes[rng.uniform(size=n) < 0.5] = np.nan
    visible = rng.uniform(0, 1, n)
    visible[::3] = np.nan
    states = np.zeros((n, 3), int)
    states[3:, 0] = 1
    states[5:, 1] = -1
    states[7:, 1:] = 1
    states[9:, 2] = 0
    return shards.RecordingData(
        name=name,
        first_frame=1,
        jpegs=iter(toy_jpegs(name, n)),
        states=states,
        boxes=boxes,
        classes=rng.integers(-1, 5, n),
        visible=visible,
    )


def make(split: str, name: str, log: Path | None = None, sleep: float = 0, fail: str = ""):
    """Toy recordings; module level, so that worker processes can import it."""
    if log is not None:
        with log.open("a") as file:
            file.write(f"{name}\n")
    if name in fail.split(","):
        if fail.startswith("die"):
            os._exit(3)
        raise {"value": ValueError, "key": KeyError}[fail.split(",")[0]](f"no {name} here")
    data = toy_recording(name)
    if sleep and name != "d":  # the first one made is quick, so that something is finished
        data.jpegs = slowly(data.jpegs, sleep)
    return data


def slowly(jpegs, sleep):
    for jpeg in jpegs:
        time.sleep(sleep)
        yield jpeg


def build(out: Path, **changes):
    arguments = {
        "procedure": toy_procedure().at(5),
        "image_size": SIZE,
        "splits": SPLITS,
        "make": make,
        "clip_length": 4,
    }
    shards.build(out, **(arguments | changes))
