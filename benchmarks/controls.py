"""What the window gives: the temporal stream with its windows spoilt, on a finished run.

    python benchmarks/controls.py --workdir=runs/synthetic

`last` replaces every window by its last frame, repeated; `shuffled` puts its frames into a random
order. Both are done to the temporal transformer that the run trained (`trained`), and to one that
is trained on such windows with the run's own recipe (`retrained`). Thresholds are chosen on the
validation split anew each time, by the rule of the run.
"""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import jax
import numpy as np
from absl import app, flags
from ml_collections import ConfigDict

from stormpsr_jax.data import pipelines, sampling
from stormpsr_jax.model import Network, functions
from stormpsr_jax.psr import decoding
from stormpsr_jax.psr.predictions import TemporalPredictions
from stormpsr_jax.psr.scoring import evaluate_recordings
from stormpsr_jax.psr.select import select
from stormpsr_jax.stages import networks, provenance, temporal, validation
from stormpsr_jax.stages.context import Context
from stormpsr_jax.stages.labelled import read_split
from stormpsr_jax.stream import Batched
from stormpsr_jax.training import checkpoint, loop
from stormpsr_jax.training.sharding import make_mesh

CONTROLS = ("as they are", "last", "shuffled")
BATCH = 256  # frames and windows computed at once
_WORKDIR = flags.DEFINE_string("workdir", None, "A finished run on pictures.", required=True)


def spoil(control: str, windows: np.ndarray, seed: int) -> np.ndarray:
    """Embeddings (B, T, D) as the control wants them."""
    if control == "last":
        return np.repeat(windows[:, -1:], windows.shape[1], axis=1)
    if control == "shuffled":
        rng = np.random.default_rng(seed)
        return np.stack([w[rng.permutation(len(w))] for w in windows])
    return windows


def spoilt_data(data: pipelines.Batches, control: str) -> pipelines.Batches:
    """The batches of stage `temporal` with their windows spoilt."""

    def batches(step: int) -> Iterator[dict[str, np.ndarray]]:
        for number, batch in enumerate(data(step), step):
            yield {**batch, "embeddings": spoil(control, batch["embeddings"], seed=number)}

    return batches


def encode(context: Context, encoder: Batched) -> dict[str, dict[str, np.ndarray]]:
    """{split: {recording: embeddings (N, D)}} of the splits to choose and to score on."""
    return {
        split: {
            name: np.concatenate([encoder(images) for _, images in source.chunks(name, BATCH)])
            for name in source.recordings
        }
        for split in ("val", "test")
        for source in [context.source(split)]
    }


def score(context: Context, probabilities: Callable, embedded: Mapping, control: str) -> dict:
    """F1, POS and delay of the temporal stream on test, thresholds from validation."""
    config, window = context.config, context.window
    recordings = {}
    for split, by_name in embedded.items():
        source = context.source(split)
        recordings[split] = read_split(context, split)
        for name, r in source.recordings.items():
            last = np.arange(r.num_frames)
            clips = sampling.window_frames(last, frames=window.frames, stride=window.stride)
            labels = sampling.clip_labels(r.states, last, frames=window.frames)
            p, _ = probabilities(spoil(control, by_name[name][clips], seed=len(name)))
            recordings[split][name].temporal = TemporalPredictions(
                source.numbers(name), labels, (p > 0.5).astype(int), p
            )
            recordings[split][name].detections = None
    base = decoding.Settings(
        decoder=config.evaluate.decoder, decay=config.evaluate.decay, window=config.window.frames
    )
    fps = context.source("val").fps
    chosen = select(context.procedure, recordings["val"], base, fps)
    settings = {stream: choice.settings for stream, choice in chosen.items()}
    result = evaluate_recordings(context.procedure, recordings["test"], settings, fps=fps)
    return {k: result["streams"]["temporal"][k] for k in ("f1", "pos", "delay_s")}


def retrain(context: Context, control: str, folder: Path) -> Batched:
    """Trains the temporal transformer of the run on spoilt windows; returns its probabilities."""
    definition = temporal.build(context)
    model, val = definition.model, context.source("val")
    embeddings = {name: views[0] for name, views in context.embeddings("val").items()}
    states = {name: r.states for name, r in val.recordings.items()}
    logits = jax.jit(lambda params, x: model.apply({"params": params}, x, train=False))

    def evaluate(params, _):
        spoilt = lambda x: logits(params, spoil(control, x, seed=0))  # noqa: E731
        return validation.clip_scores(spoilt, embeddings, states, context.window)

    loop.train(
        folder / "temporal",
        dataclasses.replace(
            definition, data=spoilt_data(definition.data, control), evaluate=evaluate
        ),
        config=context.config.temporal,
        mesh=context.mesh,
        rng=context.key("temporal/steps"),
    )
    params, _ = checkpoint.load_best(folder / "temporal")
    return functions({"temporal": Network(model, {"params": params})}, None, 1, BATCH)["temporal"]


def main(_):
    workdir = Path(_WORKDIR.value)
    config = ConfigDict(json.loads((workdir / "config.json").read_text()))
    context = Context(config, workdir, make_mesh(1, 1))
    found = networks.trained(context, provenance.stages_before(context, "predict"))
    trained = functions(found, networks.pictures(context, context.source("val")), 1, BATCH)
    embedded = encode(context, trained["encode"])
    print(f"{'':10}{'windows':12}{'F1':>7}{'POS':>7}{'delay s':>9}")
    for control in CONTROLS:
        _print("trained", control, score(context, trained["temporal"], embedded, control))
    # What the temporal transformer was trained on: the encoder before fine-tuning.
    weights = checkpoint.load_best(workdir / "pretrain")
    embedded = encode(context, networks.frame_encoder(context, *weights, context.source("val")))
    for control in CONTROLS:
        with tempfile.TemporaryDirectory() as folder:
            probabilities = retrain(context, control, Path(folder))
        _print("retrained", control, score(context, probabilities, embedded, control))


def _print(which: str, control: str, s: dict) -> None:
    delay = "–" if s["delay_s"] is None else f"{s['delay_s']:.1f}"
    print(f"{which:10}{control:12}{s['f1']:7.3f}{s['pos']:7.3f}{delay:>9}", flush=True)


if __name__ == "__main__":
    app.run(main)
