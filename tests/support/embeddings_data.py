import importlib
import json

import numpy as np

from stormpsr_jax.psr.files import labels
from stormpsr_jax.psr.procedure import load_procedure
from tests.support import toy

K, D, N, FIRST, W = 4, 12, 240, 1, 16
RECORDINGS = {"train": "abcdefgh", "val": "ij", "test": "kl"}
PROCEDURE = toy.content(
    "base, wheel, lid, pin", "1000 1100 1110 1111", name="box", fps=10.0, variant="any"
)
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


def write(folder, change=lambda array: array, raw=True):
    (folder / "box.json").parent.mkdir(parents=True, exist_ok=True)
    (folder / "box.json").write_text(json.dumps(PROCEDURE))
    procedure = load_procedure(folder / "box.json")
    for split, names in RECORDINGS.items():
        (folder / "features" / split).mkdir(parents=True)
        for name in names:
            np.save(folder / "features" / split / f"{name}.npy", change(features_of(name)))
            to = folder / "labels" / split / name
            to.mkdir(parents=True)
            labels.write_steps(to / "PSR_labels.csv", steps_of(name), procedure)
            if raw:
                rows = [0, *(frame - FIRST for frame, _ in steps_of(name))]
                frames = FIRST + np.array(rows)
                labels.write_states(to / "PSR_labels_raw.csv", frames, states_of(name)[rows])
    return [
        f"--features={folder / 'features'}",
        f"--labels={folder / 'labels'}",
        f"--procedure={folder / 'box.json'}",
        f"--out={folder / 'out'}",
        f"--first_frame={FIRST}",
    ]


def config_for(folder, **changes):
    config = importlib.import_module("stormpsr_jax.configs.embeddings").get_config()
    config.update_from_flattened_dict({**SMALL, "data.dir": str(folder), **changes})
    return config
