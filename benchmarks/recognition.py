"""Recognition that encodes each frame once, against encoding all frames of every window.

    python benchmarks/recognition.py [--config=meccano] [--frames=128] [--windows=4]
        [--rounds=3] [--config.FIELD=value …]

Both sides have the config's models, with random weights, and say for random pictures which
components changed within the window that ends there:

* once: what stage `predict` and live recognition run (`stream.Recogniser`): a frame is encoded
  once, and the window slides over the embeddings kept; predict.batch frames at a time;
* every window: encodes the window's frames (65 for frames=256, stride=4) for each window anew, all
  in one batch, then the temporal encoder.

Windows a second, the median of the rounds, in which the sides take turns after warming up; the
probabilities of the same windows must agree. Target: once ≥ 40 times every window.
"""

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
from absl import app, flags, logging
from flag_of_config import Config

from stormpsr_jax.data import sampling
from stormpsr_jax.model.content import Network, Pictures
from stormpsr_jax.model.functions import functions
from stormpsr_jax.model.recogniser import Recogniser
from stormpsr_jax.stages import networks
from stormpsr_jax.stages.context import Context
from stormpsr_jax.training.sharding import make_mesh

_CONFIG = Config("meccano")
_FRAMES = flags.DEFINE_integer("frames", 128, "Frames of a round of the fast side.")
_WINDOWS = flags.DEFINE_integer("windows", 4, "Windows of a round of the slow side.")
_ROUNDS = flags.DEFINE_integer("rounds", 3, "The median is reported.")
_SIZE = flags.DEFINE_integer("size", 224, "Picture height and width.")
TOLERANCE = {"float32": 1e-4, "bfloat16": 2e-2}


def random_networks(context: Context) -> dict[str, Network]:
    """The config's encoder and temporal transformer, with random weights."""
    spatial, temporal = networks.spatial_encoder(context), networks.temporal_encoder(context)
    images = np.zeros((2, _SIZE.value, _SIZE.value, 3), np.float32)
    embeddings = np.zeros((1, context.num_frames, context.config.encoder.hidden), np.float32)
    return {
        "encoder": Network(spatial, jax.jit(spatial.init)(jax.random.key(0), images)),
        "temporal": Network(temporal, jax.jit(temporal.init)(jax.random.key(1), embeddings)),
    }


def rate(run: Callable, images: np.ndarray, count: int) -> tuple[float, np.ndarray]:
    """Windows a second, and the probabilities."""
    start = time.perf_counter()
    probabilities = run(images, count)
    return len(probabilities) / (time.perf_counter() - start), probabilities


def main(argv: list[str]) -> None:
    logging.set_verbosity(logging.WARNING)
    if len(argv) > 1:
        sys.exit(f"error: unknown argument {argv[1]!r}")
    config = _CONFIG.value
    shape = (_FRAMES.value, _SIZE.value, _SIZE.value, 3)
    video = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    context = Context(config, Path(), make_mesh())
    window, data = context.window, config.data
    pictures = Pictures(shape[1:3], tuple(data.mean), tuple(data.std))
    found = random_networks(context)
    batches = config.predict.batch, context.num_frames, 1
    streams, clip, one = (functions(found, pictures, 1, batch) for batch in batches)

    def once(images, count):
        recogniser = Recogniser(**streams, detect=None, frames=window.frames, stride=window.stride)
        step = config.predict.batch
        chunks = [images[i : min(i + step, count)] for i in range(0, count, step)]
        return np.concatenate([recogniser(chunk).probabilities for chunk in chunks])

    def every_window(images, count):
        probabilities = []
        for last in range(count):
            rows = sampling.window_frames(last, frames=window.frames, stride=window.stride)
            probabilities.append(one["temporal"](clip["encode"](images[rows])[None])[0][0])
        return np.stack(probabilities)

    once(video, config.predict.batch), every_window(video, 1)  # warms up
    rates = []
    for _ in range(_ROUNDS.value):
        fast, probabilities = rate(once, video, _FRAMES.value)
        slow, expected = rate(every_window, video, _WINDOWS.value)
        np.testing.assert_allclose(
            probabilities[: _WINDOWS.value], expected, atol=TOLERANCE[config.dtype]
        )
        rates.append((fast, slow))
    fast, slow = (statistics.median(column) for column in zip(*rates, strict=True))
    print(
        f"{context.num_frames} frames a window, {config.dtype}, median of {_ROUNDS.value} rounds\n"
    )
    print("| each frame encoded | windows/s |\n|---|---|")
    print(f"| once | {fast:.2f} |\n| for every window | {slow:.3f} |")
    print(f"\nonce / every window: {fast / slow:.1f} (target ≥ 40)")


if __name__ == "__main__":
    app.run(main, flags_parser=_CONFIG.parse_flags)
