"""Stage `detector`: assembly state detection, a box and a state in one picture."""

from __future__ import annotations

import jax
import numpy as np

from stormpsr_jax.data import pipelines
from stormpsr_jax.data.clips import ClipSource
from stormpsr_jax.models import detection
from stormpsr_jax.stages.context import Context
from stormpsr_jax.stream import Batched
from stormpsr_jax.training import loop
from stormpsr_jax.training.optimizer import make_optimizer, make_schedule

_VALIDATION_PICTURES = 2_000  # boxed frames that mAP is measured on


def run(context: Context) -> None:
    """Trains the detector and keeps the one with the best validation mAP@50."""
    config = context.config.detector
    train, val = context.source("train"), context.source("val")
    cad = context.cad_source(train) if config.cad else None
    model = context.detector()

    def init():
        images = np.zeros((1, *train.image_size, 3), np.float32)
        return model.init(context.key("detector/init"), images, train=False)["params"], {}

    def loss_fn(params, batch_stats, batch, rng):
        look_key, place_key = jax.random.split(rng)
        pictures = context.augment(look_key, batch["image"], shift=False)
        pictures, boxes = detection.zoom(
            place_key, pictures, batch["box"], config.zoom, config.shift
        )
        images = context.normalise(pictures, batch["cad"])
        outputs = model.apply({"params": params}, images, train=True)
        loss, metrics = detection.detection_loss(
            outputs, boxes, batch["class"], image_size=train.image_size, levels=config.levels
        )
        return loss, (metrics, batch_stats)

    def evaluate(params, batch_stats):
        del batch_stats
        detector = detect(context, params, config.batch)
        return {"map50": mean_average_precision(detector, val)}

    loop.train(
        context.workdir / "detector",
        config=config,
        mesh=context.mesh,
        profile_steps=context.profile_steps,
        init=init,
        optimizer=lambda params: make_optimizer(config.optimizer, config.steps, params),
        loss_fn=loss_fn,
        rng=context.key("detector/steps"),
        schedule=make_schedule(config.optimizer, config.steps),
        data=pipelines.detector_pictures(
            train,
            cad,
            background=config.background,
            cad_share=config.cad,
            batch=config.batch,
            seed=context.config.seed,
            workers=context.config.data.workers,
        ),
        evaluate=evaluate,
        best="map50",
    )


def detect(context: Context, params, batch: int) -> Batched:
    """uint8 pictures (B, H, W, 3) → boxes (B, M, 4), classes (B, M), confidences (B, M)."""
    model = context.detector()

    def function(params, images):
        outputs = model.apply({"params": params}, context.normalise(images), train=False)
        return detection.decode(outputs, context.config.detector.max_detections)

    return Batched(function, params, batch)


def mean_average_precision(detector: Batched, source: ClipSource) -> float:
    """mAP@50 of a split's boxed frames, over the classes that occur."""
    found = [
        (name, index)
        for name, recording in source.recordings.items()
        for index in np.flatnonzero(recording.classes > 0).tolist()
    ]
    if not found:
        raise ValueError(
            f"split {source.split!r} has no box to validate the detector on; label some, or drop "
            "'detector' from stages"
        )
    found = found[:: -(-len(found) // _VALIDATION_PICTURES)]
    truth_boxes = np.stack([source.recordings[name].boxes[i] for name, i in found])
    truth_classes = np.array([source.recordings[name].classes[i] for name, i in found])
    outputs = []
    for start in range(0, len(found), detector.batch):
        images = [
            source.frames(name, [source.recordings[name].first_frame + i])[0]
            for name, i in found[start : start + detector.batch]
        ]
        outputs.append(detector(np.stack(images)))
    boxes, classes, confidences = jax.tree.map(lambda *a: np.concatenate(a), *outputs)
    return detection.average_precision(boxes, classes, confidences, truth_boxes, truth_classes)
