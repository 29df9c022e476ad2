"""Stage `temporal`: the [CLS] temporal transformer on embeddings of KCAS clips (P, Sec. 3.3)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from stormpsr_jax import losses
from stormpsr_jax.data import pipelines, sampling
from stormpsr_jax.data.clips import ClipSource
from stormpsr_jax.data.features import EmbeddingFile, FeatureSource
from stormpsr_jax.stages import embed
from stormpsr_jax.stages.context import Context, Window
from stormpsr_jax.training import loop
from stormpsr_jax.training.optimizer import make_optimizer, make_schedule


def run(context: Context, transform: Callable[[np.ndarray, int], np.ndarray] | None = None) -> None:
    """Trains the temporal encoder and keeps the one with the best clip F1 on validation.

    Args:
      context: the run.
      transform: (windows (B, T, D), seed) → windows, shown to the encoder in their place both in
        training and in validation; for experiments (benchmarks/controls.py).
    """
    config = context.config.temporal
    train, val = context.source("train"), context.source("val")
    embeddings = embed.load(context, "train")
    val_embeddings = {name: views[0] for name, views in embed.load(context, "val").items()}
    val_states = {name: r.states for name, r in val.recordings.items()}
    model = context.temporal_encoder()
    width = next(iter(val_embeddings.values())).shape[1]
    shape = (1, context.num_frames, width)
    logits = jax.jit(lambda params, x: model.apply({"params": params}, x, train=False))

    def init():
        return model.init(context.key("temporal/init"), np.zeros(shape, np.float32), train=False)[
            "params"
        ], {}

    def loss_fn(params, batch_stats, batch, rng):
        predicted = model.apply(
            {"params": params}, batch["embeddings"], train=True, rngs={"dropout": rng}
        )
        return losses.multilabel_bce(predicted, batch["label"]).mean(), ({}, batch_stats)

    def evaluate(params, batch_stats):
        del batch_stats

        def shown(x):
            return logits(params, transform(x, len(x)) if transform else x)

        return clip_scores(shown, val_embeddings, val_states, context.window)

    loop.train(
        context.workdir / "temporal",
        config=config,
        mesh=context.mesh,
        profile_steps=context.profile_steps,
        init=init,
        optimizer=lambda params: make_optimizer(config.optimizer, config.steps, params),
        loss_fn=loss_fn,
        rng=context.key("temporal/steps"),
        schedule=make_schedule(config.optimizer, config.steps),
        data=pipelines.embedded_clips(
            embeddings,
            {name: r.states for name, r in train.recordings.items()},
            transform=transform,
            **clip_options(context, train, config.batch),
        ),
        evaluate=evaluate,
        best="f1",
    )


def clip_options(
    context: Context, source: ClipSource | FeatureSource, batch: int
) -> dict[str, Any]:
    """What the pipelines of training clips take from the config, distances in rows."""
    config, step = context.config.temporal, context.frame_step
    sampler = sampling.ClipSampler(
        source.recordings,
        sampling=config.sampling,
        delta=config.delta / step,
        sigma=config.sigma / step,
        floor=config.floor * step,  # as the density of a row, which stands for `step` frames
    )
    return {
        "sampler": sampler,
        **context.window._asdict(),
        "batch": batch,
        "seed": context.config.seed,
        "workers": context.config.data.workers,
    }


def clip_scores(
    logits: Callable[[np.ndarray], np.ndarray],
    embeddings: Mapping[str, np.ndarray | EmbeddingFile],
    states: Mapping[str, np.ndarray],
    window: Window,
    batch: int = 256,
) -> dict[str, float]:
    """Scores of all clips of a split that end at every stride-th frame.

    Args:
      logits: embeddings (B, T, D) → (B, K).
      embeddings: {recording: (N, D)}, arrays or files.
      states: {recording: (N, K)}.
      window: of the context, in rows.
      batch: B; the last batch is filled up, so that one shape is compiled.

    Returns:
      f1: over all components of all clips, a component above probability ½ counts as changed;
      bce: mean binary cross-entropy, nats.
    """
    tp = fp = fn = count = 0
    bce = 0.0
    for name, embedded in embeddings.items():
        last = np.arange(0, len(embedded), window.stride)
        labels = sampling.clip_labels(states[name], last, frames=window.frames).astype(bool)
        clips = sampling.window_frames(last, frames=window.frames, stride=window.stride)
        for start in range(0, len(last), batch):
            rows = slice(start, min(start + batch, len(last)))
            x = np.asarray(embedded[clips[rows]], np.float32)
            x = np.concatenate([x, np.zeros((batch - len(x), *x.shape[1:]), np.float32)])
            predicted = np.asarray(logits(x), np.float64)[: rows.stop - rows.start]
            label = labels[rows]
            tp += int(((predicted > 0) & label).sum())
            fp += int(((predicted > 0) & ~label).sum())
            fn += int(((predicted <= 0) & label).sum())
            bce += float(np.logaddexp(0, np.where(label, -predicted, predicted)).sum())
            count += label.size
    return {"f1": 2 * tp / max(2 * tp + fp + fn, 1), "bce": bce / count}
