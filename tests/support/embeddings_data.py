"""Recordings with embeddings that another encoder has made: labels tell them apart by a line."""

from pathlib import Path

import numpy as np
import simplejpeg

from data_prep.writing import shards
from stormpsr_jax.configs import default
from stormpsr_jax.recordings.procedure import Procedure
from tests.support import toy

K, D, N, FIRST, W = 4, 12, 240, 1, 16
RECORDINGS = {"train": list("abcdefgh"), "val": list("ij"), "test": list("kl")}
PROCEDURE = Procedure.from_json(
    toy.content("base, wheel, lid, pin", "1000 1100 1110 1111", name="box", fps=10.0, variant="any")
)
GREY = simplejpeg.encode_jpeg(np.full((16, 16, 3), 128, np.uint8))
SMALL = {
    "window.frames": W,
    "temporal_model.depth": 1,
    "temporal_model.num_heads": 2,
    "temporal_model.dim_head": 8,
    "temporal_model.mlp_dim": 32,
    "temporal.steps": 400,
    "temporal.batch": 64,
    "temporal.delta": 5.0,
    "temporal.sigma": 4.0,
    "temporal.eval_every": 100,
    "checkpoint_every": 400,
    "temporal.optimizer.name": "adamw",
    "temporal.optimizer.lr": 1e-2,
    "temporal.optimizer.warmup_steps": 10,
}


def steps_of(name):
    """Four installs at random frames, of which no two share a window."""
    rng = np.random.default_rng(ord(name))
    frames = FIRST + np.arange(20, 201, 50) + rng.integers(0, 30, K)
    return [(int(frame), 3 * k) for k, frame in enumerate(frames)]


def states_of(name):
    """(N, K), written here without the package."""
    states = np.zeros((N, K), np.int8)
    for frame, step in steps_of(name):
        states[frame - FIRST :, step // 3] = 1
    return states


def features_of(name, width=D, scale=5.0):
    rng = np.random.default_rng(1000 + ord(name))
    mixing = np.random.default_rng(0).normal(size=(K, width))
    noise = rng.normal(size=(N, width))
    return (scale * (1 + states_of(name) @ mixing + 0.3 * noise)).astype(np.float32)


def recording(split, name):
    unknown = np.full((N, 4), np.nan)
    return shards.RecordingData(
        name, FIRST, iter([GREY] * N), states_of(name), unknown, np.full(N, -2), unknown[:, 0]
    )


def write(folder: Path) -> Path:
    """Writes FOLDER/data, of grey pictures, and FOLDER/features; returns the folder."""
    shards.build(
        folder / "data",
        procedure=PROCEDURE,
        image_size=(16, 16),
        splits=RECORDINGS,
        make=recording,
        clip_length=16,
    )
    (folder / "features").mkdir()
    for name in (name for names in RECORDINGS.values() for name in names):
        np.save(folder / "features" / f"{name}.npy", features_of(name))
    return folder


def config_for(folder: Path, **changes):
    config = default.get_config()
    config.stages = ("embed", "temporal", "predict", "evaluate")
    places = {"data.dir": str(folder / "data"), "embed.files": str(folder / "features")}
    places["procedure"] = ""
    config.update_from_flattened_dict({**SMALL, **places, **changes})
    return config
