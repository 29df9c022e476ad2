"""Stage `pretrain`: the spatial encoder by contrastive learning on key frames (P, Sec. 3.2)."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np

from stormpsr_jax import losses, weights
from stormpsr_jax.data import pipelines, sampling
from stormpsr_jax.data.clips import ClipSource
from stormpsr_jax.stages.context import Context
from stormpsr_jax.stream import Batched
from stormpsr_jax.training import loop
from stormpsr_jax.training.optimizer import make_optimizer, make_schedule

_VALIDATION_FRAMES = 2_000  # key frames that precision@1 is measured on


def run(context: Context) -> None:
    """Trains f·g and keeps the encoder with the best validation precision@1."""
    config = context.config.pretrain
    train, val = context.source("train"), context.source("val")
    cad = context.cad_source(train) if config.cad_per_state else None
    sampler = sampling.KeyFrameSampler(
        train.recordings,
        context.procedure,
        window=max(1, round(config.t_f * train.fps)),
        n_states=config.n_states,
        n_per_state=config.n_per_state,
        cad=cad.recordings if cad else None,
        cad_per_state=config.cad_per_state,
        backgrounds=config.backgrounds,
        background_gap=round(config.background_gap * train.fps),
        any_frames=config.any_frames,
    )
    model = context.spatial_encoder()
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
        encoder = context.frame_encoder(params, batch_stats, context.config.embed.batch)
        return {"precision_at_1": _precision_at_1(context, encoder, val)}

    loop.train(
        context.workdir / "pretrain",
        config=config,
        mesh=context.mesh,
        profile_steps=context.profile_steps,
        init=functools.partial(starting_point, context, train.image_size),
        optimizer=lambda params: make_optimizer(config.optimizer, config.steps, params),
        loss_fn=loss_fn,
        rng=context.key("pretrain/steps"),
        schedule=make_schedule(config.optimizer, config.steps),
        data=pipelines.key_frame_batches(
            train, cad, sampler, seed=context.config.seed, workers=context.config.data.workers
        ),
        evaluate=evaluate,
        best="precision_at_1",
        batch_field="n_per_state",
    )


def starting_point(context: Context, image_size: tuple[int, int]) -> tuple[dict, dict]:
    """(params, batch_stats) for pictures of (H, W) pixels: those of `init_from`, else fresh ones.

    Raises:
      ValueError: the file does not fit the config's encoder.
    """
    model = context.spatial_encoder()
    images = np.zeros((2, *image_size, 3), np.float32)
    variables = model.init(context.key("pretrain/init"), images, train=False)
    params, batch_stats = variables["params"], variables.get("batch_stats", {})
    if context.config.init_from:
        path = packaged_or_path(context.config.init_from)
        grid = (image_size[0] // model.patch_size, image_size[1] // model.patch_size)
        params, batch_stats, report = weights.initialise_from(path, params, batch_stats, grid)
        print(f"pretrain: {len(report)} arrays from {path}")
    return params, batch_stats


def packaged_or_path(name: str) -> Path:
    """The file that `init_from` names: one that ships with the package, or a path."""
    packaged = Path(__file__).parents[1] / "pretrained" / f"{name}.safetensors"
    return packaged if packaged.exists() else Path(name)


def _precision_at_1(context: Context, encoder: Batched, source: ClipSource) -> float:
    """Share of key frames whose nearest key frame of another recording shows the same state."""
    window = max(1, round(context.config.pretrain.t_f * source.fps))
    found = [
        (number, label, recording.first_frame + index, name)
        for number, (name, recording) in enumerate(source.recordings.items())
        for label, frames in sampling.key_frames(recording, context.procedure, window).items()
        for index in frames.tolist()
    ]
    if not found:
        raise ValueError("the validation split has no key frame: no completion of a known state")
    found = found[:: -(-len(found) // _VALIDATION_FRAMES)]
    recordings = np.array([number for number, *_ in found])
    labels = np.array([label for _, label, *_ in found])
    images = np.stack([source.frames(name, [frame])[0] for *_, frame, name in found])
    z = encoder(images)
    similarity = z @ z.T
    similarity[recordings[:, None] == recordings[None]] = -np.inf
    nearest = similarity.argmax(axis=1)
    return float((labels[nearest] == labels).mean())
