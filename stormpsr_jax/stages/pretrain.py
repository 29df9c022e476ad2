"""Stage `pretrain`: contrastive learning of the spatial encoder on key frames.

STORM-PSR (arXiv 2510.12385), Sec. 3.2: key-frame sampling and the supervised contrastive loss.
"""

from __future__ import annotations

import functools
import math
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from stormpsr_jax.data import pipelines, sampling
from stormpsr_jax.data.clips import ClipSource
from stormpsr_jax.stages import networks, validation
from stormpsr_jax.stages.context import Context
from stormpsr_jax.training import losses
from stormpsr_jax.training.checkpoint import BEST
from stormpsr_jax.training.loop import Definition
from stormpsr_jax.training.optimizer import layer_lr_scale, make_optimizer, make_schedule
from stormpsr_jax.weights import parameters


def build(context: Context) -> Definition:
    """Trains f·g and keeps the encoder with the best validation precision@1."""
    config = context.config.pretrain
    train, val = context.source("train"), context.source("val")
    cad = context.cad_source() if takes_renders(context.config) else None
    sampler = key_frame_sampler(context, train, cad)
    model = networks.spatial_encoder(context)
    supcon = losses.supcon
    if config.supcon_block:
        supcon = functools.partial(
            losses.supcon_blockwise, mesh=context.mesh, block=config.supcon_block
        )

    def loss_fn(params, batch_stats, batch, rng):
        limbs = context.config.augment.limbs * batch["cad"]
        images = context.normalise(context.augment(rng, batch["image"], limbs), batch["cad"])
        outputs, updates = model.apply(
            {"params": params, "batch_stats": batch_stats},
            images,
            train=True,
            mutable=["batch_stats"],
        )
        # Frames from anywhere stand last and are for the state loss alone.
        keyed = sampler.batch_size - config.any_frames
        loss = supcon(outputs["projection"][:keyed], batch["label"][:keyed], config.temperature)
        metrics = {"supcon": loss}
        if config.state_loss:
            metrics["state_bce"] = losses.multilabel_bce(
                outputs["state_logits"], batch["state"]
            ).mean()
            loss = loss + config.state_loss * metrics["state_bce"]
        return loss, (metrics, updates["batch_stats"])

    def evaluate(params, batch_stats):
        encoder = networks.frame_encoder(context, params, batch_stats, val)
        window = key_frame_window(context, val)
        precision = validation.key_frame_precision(
            encoder, val, context.procedure, window, config.initial_state
        )
        return {"precision_at_1": precision}

    def optimizer(params):
        scale = layer_lr_scale(
            "encoder", model.encoder.layers, config.encoder_lr_scale, config.layer_decay
        )
        return make_optimizer(config.optimizer, config.steps, params, scale)

    return Definition(
        model=model,
        init=functools.partial(starting_point, context, train.image_size),
        loss_fn=loss_fn,
        data=pipelines.key_frame_batches(
            train, cad, sampler, seed=context.config.seed, workers=context.config.data.workers
        ),
        optimizer=optimizer,
        schedule=make_schedule(config.optimizer, config.steps),
        evaluate=evaluate,
        best="precision_at_1",
        batch_field="n_per_state",
    )


def key_frame_window(context: Context, source: ClipSource) -> int:
    """Frames after a completion that carry its state: t_f in frames."""
    return max(1, round(context.config.pretrain.t_f * source.fps))


def background_frames(config: ConfigDict, fps: float) -> tuple[int, int]:
    """(gap, span) of hard backgrounds in frames; `config` is the section of the stage."""
    return round(config.background_gap * fps), math.ceil(config.background_span * fps)


def key_frame_sampler(
    context: Context, train: ClipSource, cad: ClipSource | None
) -> sampling.KeyFrameSampler:
    """What draws the batches; ValueError if the labels do not have what the config asks for."""
    config = context.config.pretrain
    gap, span = background_frames(config, train.fps)
    return sampling.KeyFrameSampler(
        train.recordings,
        context.procedure,
        window=key_frame_window(context, train),
        anywhere=config.key_frames == "random",
        initial=config.initial_state,
        n_states=config.n_states,
        n_per_state=config.n_per_state,
        cad=cad.recordings if cad else None,
        cad_per_state=config.cad_per_state,
        backgrounds=config.backgrounds,
        background_gap=gap,
        background_span=span,
        any_frames=config.any_frames,
    )


def starting_point(context: Context, image_size: tuple[int, int]) -> tuple[dict, dict]:
    """(params, batch_stats) for pictures of (H, W) pixels: those of `init_from`, else fresh ones.

    Raises:
        ValueError: the file does not fit the config's encoder.
    """
    model = networks.spatial_encoder(context)
    images = np.zeros((2, *image_size, 3), np.float32)
    variables = model.init(context.key("pretrain/init"), images, train=False)
    params, batch_stats = variables["params"], variables.get("batch_stats", {})
    if context.config.init_from:
        path = packaged_or_path(context.config.init_from)
        params, batch_stats, report = parameters.initialise_from(
            path, params, batch_stats, image_size
        )
        print(f"pretrain: {len(report)} arrays from {path}")
    else:
        print("pretrain: init_from is '', so the encoder starts from random weights", flush=True)
    return params, batch_stats


def packaged_or_path(name: str) -> Path:
    """The file that `init_from` names: one that ships with the package, or a path."""
    packaged = Path(__file__).parents[1] / "pretrained" / f"{name}.safetensors"
    return packaged if packaged.exists() else Path(name)


def takes_renders(config: ConfigDict) -> bool:
    """Whether there are clean renders in its batches."""
    return bool(config.pretrain.steps and config.pretrain.cad_per_state)


def run(context: Context) -> dict:
    """Trains it. With pretrain.steps=0, the ablation without KFS, it keeps what it starts from.

    The backbone then has the weights of `init_from`, and its head random ones.
    """
    if context.config.pretrain.steps:
        return context.train("pretrain", build(context))
    params, batch_stats = starting_point(context, context.source("train").image_size)
    if jax.process_index() == 0:
        parameters.save_params(context.workdir / "pretrain" / BEST, params, batch_stats)
    return {"steps": 0, "best_step": 0, "metrics": {}}
