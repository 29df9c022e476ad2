"""Stage `finetune`: encoder and temporal transformer together, end to end (P, Sec. 3.3)."""

from __future__ import annotations

import jax

from stormpsr_jax import losses
from stormpsr_jax.data import pipelines
from stormpsr_jax.stages.context import Context
from stormpsr_jax.stages.embed import embed_recording
from stormpsr_jax.stages.temporal import clip_options, clip_scores
from stormpsr_jax.training import checkpoint, loop
from stormpsr_jax.training.optimizer import layer_lr_scale, make_optimizer, make_schedule


def run(context: Context) -> None:
    """Unfreezes the encoder. Its BatchNorm keeps the statistics of `pretrain`."""
    config = context.config.finetune
    train, val = context.source("train"), context.source("val")
    spatial, temporal = context.spatial_encoder(), context.temporal_encoder()
    val_states = {name: r.states for name, r in val.recordings.items()}
    logits = jax.jit(lambda params, x: temporal.apply({"params": params}, x, train=False))

    def init():
        spatial_params, batch_stats = checkpoint.load_best(context.workdir / "pretrain")
        temporal_params, _ = checkpoint.load_best(context.workdir / "temporal")
        return {"spatial": spatial_params, "temporal": temporal_params}, batch_stats

    def loss_fn(params, batch_stats, batch, rng):
        augment_key, dropout_key = jax.random.split(rng)
        images = context.normalise(context.augment(augment_key, batch["image"]))
        flat = images.reshape((-1, *images.shape[2:]))  # (B·T, H, W, 3)
        embeddings = spatial.apply(
            {"params": params["spatial"], "batch_stats": batch_stats}, flat, method="embed"
        )
        predicted = temporal.apply(
            {"params": params["temporal"]},
            embeddings.reshape((*images.shape[:2], -1)),
            train=True,
            rngs={"dropout": dropout_key},
        )
        return losses.multilabel_bce(predicted, batch["label"]).mean(), ({}, batch_stats)

    def evaluate(params, batch_stats):
        encoder = context.frame_encoder(params["spatial"], batch_stats, context.config.embed.batch)
        embeddings = {name: embed_recording(encoder, val, name) for name in val.recordings}
        return clip_scores(
            lambda x: logits(params["temporal"], x), embeddings, val_states, context.window
        )

    loop.train(
        context.workdir / "finetune",
        config=config,
        mesh=context.mesh,
        profile_steps=context.profile_steps,
        init=init,
        optimizer=lambda params: make_optimizer(
            config.optimizer,
            config.steps,
            params,
            layer_lr_scale(
                "spatial", context.config.encoder.depth, config.encoder_lr_scale, config.layer_decay
            ),
        ),
        loss_fn=loss_fn,
        rng=context.key("finetune/steps"),
        schedule=make_schedule(config.optimizer, config.steps),
        data=pipelines.picture_clips(train, **clip_options(context, train, config.batch)),
        evaluate=evaluate,
        best="f1",
        evaluate_start=True,
    )
