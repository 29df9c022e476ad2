"""Stage `detector`: assembly state detection, a box and a state in one picture."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from stormpsr_jax.data import pipelines
from stormpsr_jax.data.annotation import NOT_ANNOTATED
from stormpsr_jax.models import detection
from stormpsr_jax.stages import networks, validation
from stormpsr_jax.stages.context import Context
from stormpsr_jax.training import losses
from stormpsr_jax.training.loop import Definition
from stormpsr_jax.training.optimizer import make_optimizer, make_schedule


def build(context: Context) -> Definition:
    """Trains the detector and keeps the one with the best validation mAP@50."""
    config = context.config.detector
    train, val = context.detector_source("train"), context.detector_source("val")
    cad = context.detector_cad_source() if config.cad else None
    model = networks.detector(context)

    def init():
        images = np.zeros((1, *train.image_size, 3), np.float32)
        return model.init(context.key("detector/init"), images, train=False)["params"], {}

    def loss_fn(params, batch_stats, batch, rng):
        look_key, place_key = jax.random.split(rng)
        pictures = context.augment(look_key, batch["image"], shift=False)
        pictures, boxes, poses = detection.zoom(
            place_key, pictures, batch["box"], batch["pose"], config.zoom, config.shift
        )
        images = context.normalise(pictures, batch["cad"])
        outputs = model.apply({"params": params}, images, train=True)
        loss, metrics = detection.detection_loss(
            outputs, boxes, batch["class"], image_size=train.image_size, levels=config.levels
        )
        if config.pose_loss:
            pose, of_pose = detection.pose_loss(outputs["pose"], poses)
            loss, metrics = loss + config.pose_loss * pose, metrics | of_pose
        if config.part_loss:
            # Boxed frames of recordings show few parts that sit wrong, which are soon known by
            # heart: where renders do, these tell right from wrong, and frames from anywhere.
            tell = None
            if config.cad_wrong:
                tell = batch["cad"] | (batch["class"] == NOT_ANNOTATED)
                tell = tell.astype(jnp.float32)
            parts, of_parts = losses.condition_bce(outputs["parts"], batch["state"], tell)
            loss, metrics = loss + config.part_loss * parts, metrics | of_parts
        return loss, (metrics, batch_stats)

    def evaluate(params, _):
        detect = networks.detect(context, params, val)
        return {
            "map50": validation.mean_average_precision(detect, val),
            **validation.false_alarms(detect, val),
        }

    return Definition(
        model=model,
        init=init,
        loss_fn=loss_fn,
        data=pipelines.detector_pictures(
            train,
            cad,
            background=config.background,
            anywhere=config.anywhere,
            cad_share=config.cad,
            cad_wrong=config.cad_wrong,
            batch=config.batch,
            seed=context.config.seed,
            workers=context.config.data.workers,
        ),
        optimizer=lambda params: make_optimizer(config.optimizer, config.steps, params),
        schedule=make_schedule(config.optimizer, config.steps),
        evaluate=evaluate,
        best="map50",
    )


def run(context: Context) -> dict:
    """Trains it."""
    return context.train("detector", build(context))
