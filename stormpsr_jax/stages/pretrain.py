"""Stage `pretrain`: contrastive learning of the spatial encoder on key frames.

STORM-PSR (arXiv 2510.12385), Sec. 3.2: key-frame sampling and the supervised contrastive loss.
"""

import functools
from collections.abc import Callable

import jax
import numpy as np
from ml_collections import ConfigDict

from stormpsr_jax.base.errors import tell
from stormpsr_jax.data import pipelines, sampling
from stormpsr_jax.data.clips import ClipSource
from stormpsr_jax.stages import learning, networks, validation
from stormpsr_jax.stages.context import CAD, Context, packaged_or_path
from stormpsr_jax.stages.stage import FPS, SPLITS, Reads, Stage, train_stage
from stormpsr_jax.training import losses
from stormpsr_jax.training.checkpoint import BEST
from stormpsr_jax.training.definition import Definition
from stormpsr_jax.training.optimizer import layer_lr_scale, optimisation
from stormpsr_jax.training.step import Batch, Loss, Params
from stormpsr_jax.weights import parameters


def build(context: Context) -> Definition:
    """What trains f·g and keeps the encoder with the best validation precision@1.

    Where no two validation recordings can be compared, it keeps the last one.
    """
    config = context.config.pretrain
    train, val = context.source("train"), context.source("val")
    sampler = _sampler(context)
    model = networks.encoder_to_train(context, train.image_size, sampler.batch_size)
    # Frames from anywhere stand last and are for the state loss alone.
    keyed = sampler.batch_size - config.any_frames
    contrast = _loss(context, keyed)
    share = context.config.augment.occluders if takes_renders(context.config) else 0.0

    def loss_fn(params: Params, batch_stats: Params, batch: Batch, rng: jax.Array) -> Loss:
        # A number and no array where it is 0, so that no limbs are computed.
        limbs = share * batch["cad"] if share else 0.0
        images = context.normalise(context.augment(rng, batch["image"], limbs), batch["cad"])
        outputs, updates = model.apply(
            {"params": params, "batch_stats": batch_stats},
            images,
            train=True,
            mutable=["batch_stats"],
        )
        loss = contrast(outputs["projection"][:keyed], batch["label"][:keyed])
        metrics = {config.loss.rpartition(":")[2]: loss}
        if config.state_loss:
            bce = losses.multilabel_bce(outputs["state_logits"], batch["state"]).mean()
            metrics["state_bce"] = bce
            loss = loss + config.state_loss * bce
        return loss, (metrics, updates["batch_stats"])

    def evaluate(params: Params, batch_stats: Params) -> dict[str, float]:
        encoder = networks.frame_encoder(context, params, batch_stats, val)
        window = key_frame_window(context, val)
        precision = validation.key_frame_precision(
            encoder, val, context.procedure, window, config.initial_state
        )
        return {"precision_at_1": precision}

    judged = _is_judged(context)
    if not judged and jax.process_index() == 0:
        tell(
            "warning",
            "no two recordings of split 'val' have key frames of the same state, so stage "
            "'pretrain' cannot choose its best weights and keeps the last ones",
        )
    scale = layer_lr_scale(
        "encoder", model.encoder.layers, config.encoder_lr_scale, config.layer_decay
    )
    return Definition(
        init=functools.partial(starting_point, context, train.image_size),
        loss_fn=loss_fn,
        data=_data(context, sampler, context.workers),
        **optimisation(config, scale),
        evaluate=evaluate if judged else None,
        best="precision_at_1" if judged else "",
        batch_field="n_per_state",
    )


def _loss(context: Context, keyed: int) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """The loss of so many key frames."""
    name, width = context.config.pretrain.loss, networks.spatial_encoder(context).projection
    return losses.find("pretrain.loss", name, (keyed, width), (keyed,), ())


def _renders(context: Context) -> ClipSource | None:
    return context.source(CAD) if takes_renders(context.config) else None


def _data(context: Context, sampler: sampling.KeyFrameSampler, workers: int) -> pipelines.Batches:
    train, config = context.source("train"), context.config
    return pipelines.key_frame_batches(
        train, _renders(context), sampler, seed=config.seed, workers=workers
    )


def key_frame_window(context: Context, source: ClipSource) -> int:
    """Frames after a completion that carry its state: t_f in frames."""
    return max(1, round(context.config.pretrain.t_f * source.fps))


def _is_judged(context: Context) -> bool:
    """Whether precision@1 tells encoders apart, so that one can be the best."""
    val = context.source("val")
    window, initial = key_frame_window(context, val), context.config.pretrain.initial_state
    return validation.shares_key_frames(val, context.procedure, window, initial)


def _sampler(context: Context) -> sampling.KeyFrameSampler:
    """What draws the batches; ValueError if the labels do not have what the config asks for."""
    config, train, cad = context.config.pretrain, context.source("train"), _renders(context)
    return sampling.KeyFrameSampler(
        train.recordings,
        context.procedure,
        window=key_frame_window(context, train),
        anywhere=config.key_frames == "random",
        initial=config.initial_state,
        n_per_state=config.n_per_state,
        cad=cad.recordings if cad else None,
        cad_per_state=config.cad_per_state,
        backgrounds=config.backgrounds,
        background_frames=config.background_frames,
        any_frames=config.any_frames,
    )


def starting_point(context: Context, image_size: tuple[int, int]) -> tuple[dict, dict]:
    """(params, batch_stats) for pictures of (H, W) pixels: those of `init_from`, else fresh ones.

    Raises:
        ValueError: the file does not fit the config's encoder.
    """
    model, key = networks.spatial_encoder(context), context.key("pretrain/init")
    variables = networks.fresh(model, key, (2, *image_size, 3))
    params, batch_stats = variables["params"], variables.get("batch_stats", {})
    if context.config.init_from:
        path = packaged_or_path(context.config.init_from)
        params, batch_stats, number = parameters.initialise_from(
            path, params, batch_stats, image_size
        )
        print(f"pretrain: {number} arrays from {path}")
    else:
        print("pretrain: init_from is '', so the encoder starts from random weights", flush=True)
    return params, batch_stats


def takes_renders(config: ConfigDict) -> bool:
    """Whether there are clean renders in its batches."""
    return bool(config.pretrain.steps and config.pretrain.cad_per_state)


def run(context: Context) -> dict:
    """Trains the encoder; returns facts for the record.

    With pretrain.steps=0, the ablation without KFS, it keeps what it starts from: the backbone
    then has the weights of `init_from`, and its head random ones.
    """
    if context.config.pretrain.steps:
        return train_stage(context, "pretrain", build(context))
    params, batch_stats = starting_point(context, context.source("train").image_size)
    if jax.process_index() == 0:
        parameters.save_params(context.workdir / "pretrain" / BEST, params, batch_stats)
    return {"steps": 0, "best_step": 0, "metrics": {}}


def _reads(context: Context) -> list[Reads]:
    splits = (*SPLITS, CAD) if takes_renders(context.config) else SPLITS
    return [
        Reads(("pictures", "states"), splits, Context.source),
        Reads((FPS,), SPLITS, Context.source),
        Reads(("states",)),
    ]


def _check(context: Context) -> list[str]:
    config, path = context.config, packaged_or_path(context.config.init_from)
    if config.init_from and not path.is_file():
        return [
            f"--config.init_from={path}: no such file; give the backbone's weights as published, "
            "or of `python -m stormpsr_jax.weights import`, or '' to train it from random weights"
        ]
    size, rows, errors = learning.image_size(context), context.devices.size * 2, []
    if config.pretrain.steps and context.has_data:
        sampler = _sampler(context)
        _data(context, sampler, 0)
        _is_judged(context)  # ValueError without any key frame
        rows, fields = sampler.batch_size, "n_per_state, .cad_per_state or .any_frames"
        errors += learning.batch_errors(context, "pretrain", rows, fields)
    _loss(context, rows)
    model = networks.encoder_to_train(context, size, rows, "none")
    errors += learning.network_errors("encoder", model, (rows, *size, 3))
    if config.init_from and not errors:
        key, images = jax.random.key(0), jax.ShapeDtypeStruct((2, *size, 3), np.float32)
        fresh = jax.eval_shape(model.init, key, images)
        parameters.initialise_from(path, fresh["params"], fresh.get("batch_stats", {}), size)
    return errors


STAGE = Stage(
    name="pretrain",
    run=run,
    build=build,
    fields=(
        *learning.TRAINING,
        *learning.CAD,
        "augment",
        "attention",
        "encoder",
        "pretrain",
    ),
    start="init_from",
    reads=_reads,
    check=_check,
)
