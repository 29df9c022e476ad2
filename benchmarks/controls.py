"""What the window gives: the temporal stream with its windows spoilt, on a finished run.

    python benchmarks/controls.py --workdir=runs/synthetic

`last` replaces every window by its last frame, repeated; `shuffled` puts its frames into a random
order. Both are done to the temporal transformer that the run trained (`trained`), and to one that
is trained on such windows with the run's own recipe (`retrained`). Thresholds are chosen on the
validation split anew each time, by the rule of the run.
"""

from __future__ import annotations

import copy
import functools
import json
import tempfile
from pathlib import Path

import numpy as np
from absl import app, flags
from ml_collections import ConfigDict

from stormpsr_jax.data import sampling
from stormpsr_jax.psr import decoding
from stormpsr_jax.psr.predictions import TemporalPredictions
from stormpsr_jax.psr.scoring import evaluate_recordings
from stormpsr_jax.psr.select import select
from stormpsr_jax.stages import embed, predict, temporal
from stormpsr_jax.stages.context import Context
from stormpsr_jax.stages.evaluate import read_split
from stormpsr_jax.training.sharding import make_mesh

CONTROLS = ("as they are", "last", "shuffled")
_WORKDIR = flags.DEFINE_string("workdir", None, "A finished run.", required=True)


def spoil(control: str, windows: np.ndarray, seed: int) -> np.ndarray:
    """Embeddings (B, T, D) as the control wants them."""
    if control == "last":
        return np.repeat(windows[:, -1:], windows.shape[1], axis=1)
    if control == "shuffled":
        rng = np.random.default_rng(seed)
        return np.stack([w[rng.permutation(len(w))] for w in windows])
    return windows


def encode(context: Context, encoder) -> dict[str, dict[str, np.ndarray]]:
    """{split: {recording: embeddings (N, D)}} of the splits to choose and to score on."""
    return {
        split: {
            name: embed.embed_recording(encoder, context.source(split), name)
            for name in context.source(split).recordings
        }
        for split in ("val", "test")
    }


def score(context: Context, probabilities, embedded: dict, control: str) -> dict:
    """F1, POS and delay of the temporal stream on test, thresholds from validation."""
    config, window = context.config, context.config.window
    recordings = {}
    for split, by_name in embedded.items():
        recordings[split] = read_split(context, split)
        for name, r in context.source(split).recordings.items():
            last = np.arange(r.num_frames)
            clips = sampling.window_frames(last, frames=window.frames, stride=window.stride)
            labels = sampling.clip_labels(r.states, last, frames=window.frames)
            p = probabilities(spoil(control, by_name[name][clips], seed=len(name)))
            recordings[split][name].temporal = TemporalPredictions(
                r.first_frame + last, labels, (p > 0.5).astype(int), p
            )
            recordings[split][name].detections = None
    base = decoding.Settings(
        decoder=config.evaluate.decoder, decay=config.evaluate.decay, window=window.frames
    )
    fps = context.source("val").fps
    chosen = select(context.procedure, recordings["val"], base, fps)
    settings = {stream: choice.settings for stream, choice in chosen.items()}
    result = evaluate_recordings(context.procedure, recordings["test"], settings, fps=fps)
    return {k: result["streams"]["temporal"][k] for k in ("f1", "pos", "delay_s")}


def retrain(context: Context, control: str, folder: Path):
    """Trains the temporal transformer of the run on spoilt windows; returns its probabilities."""
    for name in ("embed", "pretrain"):
        (folder / name).symlink_to(context.workdir.resolve() / name)
    config = copy.deepcopy(context.config)
    config.stages = ("pretrain", "embed", "temporal")
    other = Context(config, folder, context.mesh)
    temporal.run(other, transform=functools.partial(spoil, control))
    return predict.build_streams(other, 256)


def main(_):
    workdir = Path(_WORKDIR.value)
    config = ConfigDict(json.loads((workdir / "config.json").read_text()))
    if not config.data.dir:
        config.data.dir = str(workdir / "data")
    context = Context(config, workdir, make_mesh(1, 1))
    streams = predict.build_streams(context, 256)
    embedded = encode(context, streams["encode"])
    print(f"{'':10}{'windows':12}{'F1':>7}{'POS':>7}{'delay s':>9}")
    for control in CONTROLS:
        _print("trained", control, score(context, streams["temporal"], embedded, control))
    embedded = None
    for control in CONTROLS:
        with tempfile.TemporaryDirectory() as folder:
            new = retrain(context, control, Path(folder))
        if embedded is None:  # of the encoder before fine-tuning
            embedded = encode(context, new["encode"])
        _print("retrained", control, score(context, new["temporal"], embedded, control))


def _print(which: str, control: str, s: dict) -> None:
    delay = "–" if s["delay_s"] is None else f"{s['delay_s']:.1f}"
    print(f"{which:10}{control:12}{s['f1']:7.3f}{s['pos']:7.3f}{delay:>9}", flush=True)


if __name__ == "__main__":
    app.run(main)
