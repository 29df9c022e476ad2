"""Stage `temporal`: the [CLS] temporal transformer on embeddings of key clips.

STORM-PSR (arXiv 2510.12385), Sec. 3.3: key-clip-aware sampling, XOR labels, binary cross-entropy.
"""

from collections.abc import Callable
from typing import Any

import jax

from stormpsr_jax.data import clip_rows
from stormpsr_jax.stages import embed, learning, networks, validation
from stormpsr_jax.stages.context import Context
from stormpsr_jax.stages.stage import SPLITS, Reads, Stage
from stormpsr_jax.training import hosts, losses, sharding
from stormpsr_jax.training.definition import Definition
from stormpsr_jax.training.optimizer import optimisation
from stormpsr_jax.training.step import Batch, Loss, Params

SHARE = 4  # of a device's free memory, the part that embeddings may take of it by themselves
STEPS_PER_DISPATCH = 25


def build(context: Context, on_device: bool | None = None) -> Definition:
    """What trains the temporal encoder and keeps the one with the best clip F1 on validation.

    Which F1, `temporal.best` says.

    Args:
        on_device: whether clips are put together on the devices, each of which then has all
            embeddings; None: if they fit.
    """
    config = context.config.temporal
    train, val = context.source("train"), context.source("val")
    embeddings = context.embeddings("train")
    if on_device is None:
        most = sharding.free_bytes(context.devices) // SHARE
        on_device = not hosts.where(clip_rows.table_bytes(embeddings) > most)
    val_embeddings = context.embeddings("val")
    val_states = {name: r.states for name, r in val.recordings.items()}
    model = networks.to_train(context, networks.temporal_encoder(context))
    width = next(iter(val_embeddings.values())).shape[1]
    shape = (1, context.window.num_frames, width)
    loss_of = clip_loss(context, config.batch)

    def init() -> tuple[Params, Params]:
        return networks.fresh(model, context.key("temporal/init"), shape)["params"], {}

    def loss_fn(params: Params, batch_stats: Params, batch: Batch, rng: jax.Array) -> Loss:
        if on_device:
            # Behind a barrier the network is compiled as without the table, and rounds alike.
            x = jax.lax.optimization_barrier(batch["table"][batch["rows"]])
        else:
            x = batch["embeddings"]
        predicted: Any = model.apply({"params": params}, x, train=True, rngs={"dropout": rng})
        return loss_of(predicted, batch, batch_stats)

    def evaluate(params: Params, _: Params) -> dict[str, float]:
        logits = networks.clip_logits(context, params)
        return validation.clip_scores(logits, val_embeddings, val_states, context.window)

    return Definition(
        init=init,
        loss_fn=loss_fn,
        data=clip_rows.embedded_clips(
            embeddings,
            {name: r.states for name, r in train.recordings.items()},
            **context.clip_options(
                train, config.batch, context.config.seed, context.config.embed.every
            ),
            held=on_device,
        ),
        **optimisation(config),
        evaluate=evaluate,
        best=config.best,
        unit="clips",
        steps_per_dispatch=STEPS_PER_DISPATCH,
        held=(lambda: {"table": clip_rows.table(embeddings)}) if on_device else None,
    )


def clip_loss(context: Context, clips: int) -> Callable[[jax.Array, Batch, Params], Loss]:
    """Of logits and so many clips: XOR loss, and that of conditions at last frames if asked for."""
    config, K = context.config.temporal, context.procedure.num_components
    change_loss = losses.find("temporal.loss", config.loss, (clips, K), (clips, K), (clips,))

    def loss_of(logits: jax.Array, batch: Batch, batch_stats: Params) -> Loss:
        loss = change_loss(logits[:, :K], batch["label"]).mean()
        metrics: dict[str, jax.Array] = {}
        if weight := config.state_loss:
            states, metrics = losses.condition_bce(logits[:, K:], batch["state"])
            loss = loss + weight * states
        return loss, (metrics, batch_stats)

    return loss_of


def _check(context: Context) -> list[str]:
    rows, T = context.config.temporal.batch, context.window.num_frames
    clip_loss(context, rows)
    model = networks.to_train(context, networks.temporal_encoder(context))
    width = embed.width(context)
    return [
        *learning.window_errors(context),
        *learning.batch_errors(context, "temporal", rows),
        *(learning.network_errors("temporal_model", model, (rows, T, width)) if width else ()),
    ]


STAGE = Stage(
    name="temporal",
    build=build,
    fields=(
        "seed",
        "dtype",
        "attention",
        "window",
        "temporal_model",
        "temporal",
        "embed.every",
        "encoder.hidden",
        "encoder.image_size",
    ),
    reads=lambda _: [Reads(("states",), SPLITS)],
    after=lambda _: (embed.STAGE,),
    check=_check,
)
