"""How many frames a second a trained model recognises on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from stormpsr_jax.psr.streams import streams
from stormpsr_jax.serving.model import Model, load_model
from stormpsr_jax.serving.recogniser import stack

_SECONDS = 3.0  # that each rate is measured for
_PICTURES = 4  # different ones, shown in turn


def device() -> str:
    """What computes, for people."""
    found = jax.devices()
    return f"{len(found)} × {found[0].device_kind}"


def measure(folder: Path, seconds: float = _SECONDS) -> dict[str, dict[str, float]]:
    """Rates of the streams of a model, whole windows included.

    Pictures are noise of 720 × 1280 pixels, in memory. One by one, they are brought to the sizes
    that the networks look at, as those of a camera are; in batches they have these sizes already.

    Args:
        folder: of the model.
        seconds: for each rate.

    Returns:
        {stream: {"live": pictures one by one, "batch": the model's batch at once}}, frames a
        second.
    """
    model = load_model(folder)
    pictures = np.random.default_rng(0).integers(0, 256, (_PICTURES, 720, 1280, 3), np.uint8)
    return {
        stream: {
            "live": _live(model, stream, pictures, seconds),
            "batch": _batch(model, stream, pictures, seconds),
        }
        for stream in model.streams
        if not streams.find(stream).fitted  # the paper has none
    }


def _live(model: Model, stream: str, pictures: np.ndarray, seconds: float) -> float:
    live = model.live(variant=next(iter(model.procedure.variants)), stream=stream)
    return _rate(lambda n: live.update(pictures[n % len(pictures)], n / model.fps), 1, seconds)


def _batch(model: Model, stream: str, pictures: np.ndarray, seconds: float) -> float:
    recogniser = model.recogniser(stream=stream)
    rows = [model.prepare(picture, stream) for picture in pictures]
    chunk = stack([rows[i % len(rows)] for i in range(model.batch)])
    return _rate(lambda _: recogniser(chunk), model.batch, seconds)


def _rate(call: Callable[[int], Any], frames: int, seconds: float) -> float:
    """Frames a second, `frames` a call; the first call, which compiles, is not counted."""
    call(0)
    start, count = time.perf_counter(), 0
    while (passed := time.perf_counter() - start) < seconds:
        count += 1
        call(count)
    return frames * count / passed
