"""Stage `finetune`: encoder and temporal transformer together, end to end.

STORM-PSR (arXiv 2510.12385), Sec. 3.3.
"""

import zlib
from typing import Any

import jax

from stormpsr_jax.data import pipelines
from stormpsr_jax.stages import learning, networks, pretrain, temporal, validation
from stormpsr_jax.stages.context import Context
from stormpsr_jax.stages.stage import SPLITS, Reads, Stage
from stormpsr_jax.stages.temporal import clip_loss
from stormpsr_jax.training import checkpoint
from stormpsr_jax.training.definition import Definition
from stormpsr_jax.training.optimizer import optimisation
from stormpsr_jax.training.step import Batch, Loss, Params


def build(context: Context) -> Definition:
    """What trains both, with the encoder unfrozen.

    With finetune.batch_norm "train" its BatchNorm goes on as well: it normalises by all pictures of
    a batch of clips, and its running statistics, which recognition takes, follow. With "frozen" it
    keeps the statistics of `pretrain`.
    """
    config = context.config.finetune
    train, val = context.source("train"), context.source("val")
    pictures = config.batch * context.window.num_frames
    spatial = networks.encoder_to_train(context, train.image_size, pictures)
    transformer = networks.to_train(context, networks.temporal_encoder(context))
    loss_of = clip_loss(context, config.batch)
    val_states = {name: r.states for name, r in val.recordings.items()}

    def init() -> tuple[Params, Params]:
        spatial_params, batch_stats = checkpoint.load_best(context.workdir / "pretrain")
        temporal_params, _ = checkpoint.load_best(context.workdir / "temporal")
        return {"spatial": spatial_params, "temporal": temporal_params}, batch_stats

    def loss_fn(params: Params, batch_stats: Params, batch: Batch, rng: jax.Array) -> Loss:
        augment_key, dropout_key = jax.random.split(rng)
        images = context.normalise(context.augment(augment_key, batch["image"]))
        flat = images.reshape((-1, *images.shape[2:]))  # (B·T, H, W, 3)
        embeddings, updates = spatial.apply(
            {"params": params["spatial"], "batch_stats": batch_stats},
            flat,
            train=config.batch_norm == "train",
            method="embed",
            mutable=["batch_stats"],
        )
        predicted: Any = transformer.apply(
            {"params": params["temporal"]},
            embeddings.reshape((*images.shape[:2], -1)),
            train=True,
            rngs={"dropout": dropout_key},
        )
        return loss_of(predicted, batch, updates["batch_stats"])

    def evaluate(params: Params, batch_stats: Params) -> dict[str, float]:
        encoder = networks.frame_encoder(context, params["spatial"], batch_stats, val)
        logits = networks.clip_logits(context, params["temporal"])
        embeddings = validation.embeddings(encoder, val)
        return validation.clip_scores(logits, embeddings, val_states, context.window)

    # Clips are drawn by another seed than those of stage `temporal`, or the very same would come
    # first; in 31 bits, as grain takes seeds.
    seed = (context.config.seed + zlib.crc32(b"finetune")) % 2**31
    return Definition(
        init=init,
        loss_fn=loss_fn,
        data=pipelines.picture_clips(train, **context.clip_options(train, config.batch, seed)),
        **optimisation(config, {"spatial": config.encoder_lr_scale}),
        evaluate=evaluate,
        best=context.config.temporal.best,
        evaluate_start=True,
        unit="clips",
    )


def _check(context: Context) -> list[str]:
    size, clips = learning.image_size(context), context.config.finetune.batch
    pictures = clips * context.window.num_frames
    model = networks.encoder_to_train(context, size, pictures, "none")
    return [
        *learning.window_errors(context),
        *learning.batch_errors(context, "finetune", clips),
        *learning.network_errors("encoder", model, (pictures, *size, 3)),
    ]


STAGE = Stage(
    name="finetune",
    build=build,
    fields=(
        *learning.TRAINING,
        *learning.AUGMENTED,
        *learning.ENCODER,
        "attention",
        "window",
        "temporal.delta",
        "temporal.sigma",
        "temporal.sampling",
        "temporal.loss",
        "temporal.state_loss",
        "temporal.best",
        "temporal_model",
        "finetune",
    ),
    reads=lambda _: [Reads(("pictures", "states"), SPLITS, Context.source)],
    after=lambda _: (pretrain.STAGE, temporal.STAGE),
    check=_check,
)
