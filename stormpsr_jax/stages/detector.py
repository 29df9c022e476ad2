"""Stage `detector`: assembly state detection, a box and a state in one picture."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from stormpsr_jax.data import pipelines
from stormpsr_jax.data.annotation import NOT_ANNOTATED
from stormpsr_jax.networks import detection
from stormpsr_jax.psr.scoring import wrong_parts
from stormpsr_jax.stages import learning, networks, validation
from stormpsr_jax.stages.context import CAD, Context
from stormpsr_jax.stages.stage import SPLITS, Reads, Stage
from stormpsr_jax.training import losses
from stormpsr_jax.training.definition import Definition
from stormpsr_jax.training.optimizer import optimisation
from stormpsr_jax.training.step import Batch, Loss, Params


def build(context: Context) -> Definition:
    """What trains the detector and keeps the one with the best validation mAP@50."""
    config = context.config.detector
    train, val = context.boxed_source("train"), context.boxed_source("val")
    cad = context.detector_source(CAD) if config.cad else None
    model = networks.detector(context)

    def init() -> tuple[Params, Params]:
        shape = (1, *train.image_size, 3)
        return networks.fresh(model, context.key("detector/init"), shape)["params"], {}

    def loss_fn(params: Params, batch_stats: Params, batch: Batch, rng: jax.Array) -> Loss:
        look_key, place_key = jax.random.split(rng)
        pictures = context.augment(look_key, batch["image"], shift=False)
        pictures, boxes, poses = detection.zoom(
            place_key, pictures, batch["box"], batch["pose"], config.zoom, config.shift
        )
        images = context.normalise(pictures, batch["cad"])
        outputs: Any = model.apply({"params": params}, images, train=True)
        loss, metrics = detection.detection_loss(
            outputs, boxes, batch["class"], image_size=train.image_size, levels=config.levels
        )
        if config.pose_loss:
            pose, of_pose = detection.pose_loss(outputs["pose"], poses)
            loss, metrics = loss + config.pose_loss * pose, metrics | of_pose
        if config.part_loss:
            # Boxed frames of recordings show few parts that sit wrong, which are soon known by
            # heart: where renders do, these tell right from wrong, and frames from anywhere.
            weight = None
            if config.cad_wrong:
                taught = batch["cad"] | (batch["class"] == NOT_ANNOTATED)
                weight = taught.astype(jnp.float32)
            parts, of_parts = losses.condition_bce(outputs["parts"], batch["state"], weight)
            loss, metrics = loss + config.part_loss * parts, metrics | of_parts
        return loss, (metrics, batch_stats)

    def evaluate(params: Params, _: Params) -> dict[str, float]:
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
            unboxed_share=config.unboxed_share,
            cad_share=config.cad,
            cad_wrong=config.cad_wrong,
            batch=config.batch,
            seed=context.config.seed,
            workers=context.workers,
        ),
        **optimisation(config),
        evaluate=evaluate,
        best="map50",
    )


def _reads(context: Context) -> list[Reads]:
    config = context.config.detector
    heads = {"states": config.part_loss, "poses": config.pose_loss}
    parts = ("pictures", "boxes", *(part for part, weight in heads.items() if weight))
    found = [Reads(parts, SPLITS, Context.boxed_source)]
    if config.cad:
        kinds = {"plain": config.cad_wrong < 1, "wrong": config.cad_wrong > 0}
        renders = tuple(kind for kind, asked in kinds.items() if asked)
        if config.cad_wrong and "states" not in parts:  # by which those are found
            parts = (*parts, "states")
        found.append(Reads(parts, (CAD,), Context.detector_source, renders=renders))
    return found


def _mistakes(context: Context) -> list[str]:
    """Fields that ask for what others rule out."""
    config, mistakes = context.config.detector, []
    if config.cad_wrong and not config.cad:
        mistakes.append(
            "--config.detector.cad=0.0: detector.cad_wrong is a share of the CAD renders; give "
            "some of these, or set both to 0"
        )
    if config.pose_loss and not config.cad:
        mistakes.append(
            f"--config.detector.pose_loss={config.pose_loss}: how the product lies is learnt "
            "from CAD renders alone; give detector.cad, or set it to 0"
        )
    if config.unboxed_share and not config.part_loss:
        mistakes.append(
            "--config.detector.part_loss=0.0: it alone learns from detector.unboxed_share; give it "
            "a weight, or set unboxed_share to 0"
        )
    shares = (config.background, config.unboxed_share, config.cad)
    if max(shares) <= 1 < sum(shares):
        mistakes.append(
            "--config.detector.background={}, .unboxed_share={}, .cad={}: are shares of a batch, "
            "and {:g} is more than all of it".format(*shares, sum(shares))
        )
    return mistakes


def _size_mistakes(context: Context) -> list[str]:
    source, who = Context.detector_source, "the detector needs"
    mistakes = learning.division_mistakes(context, "detector", source, 4, who)
    return mistakes + learning.batch_mistakes(context, "detector", context.config.detector.batch)


def _data_mistakes(context: Context) -> list[str]:
    mistakes = _mistakes_of_renders(context) if context.config.detector.cad else []
    for split in SPLITS:
        recordings = context.boxed_source(split).recordings.values()
        if not any((r.classes > 0).any() for r in recordings):
            mistakes.append(
                f"split {split!r} has no box of a catalogued or error state, which the "
                "detector needs; drop 'detector' from stages, or label boxes "
                "(data_prep/README.md) and make the data folder again"
            )
        highest = max((int(r.classes.max(initial=0)) for r in recordings), default=0)
        if highest > context.procedure.error_class:
            mistakes.append(
                f"{context.detector_dir}: its boxes have classes up to {highest}, the "
                f"procedure only {context.procedure.error_class}: it was made with other "
                "catalogued states; make it again"
            )
    return mistakes


def _mistakes_of_renders(context: Context) -> list[str]:
    """Renders of another size, or that do not show what is to be learnt from them."""
    config, folder = context.config.detector, context.cad_dir
    recordings = context.detector_source(CAD).recordings.values()
    mistakes = learning.render_mistakes(context, "detector", Context.detector_source)
    if config.cad_wrong and not any((r.states == -1).any() for r in recordings):
        mistakes.append(
            f"{folder}: no render shows a part that sits wrong, which "
            "detector.cad_wrong asks for; render some with data_prep.cad --wrong=N, or set it "
            "to 0"
        )
    if config.pose_loss > 0 and not any(np.isfinite(r.poses).any() for r in recordings):
        mistakes.append(
            f"{folder}: no render tells how the product lies in it, which "
            "detector.pose_loss asks for; a folder of an earlier version does not: make it "
            "again elsewhere, or set it to 0"
        )
    states = np.arange(1, context.procedure.num_states + 1)
    if config.cad_wrong < 1 and not any(np.isin(r.classes, states).any() for r in recordings):
        mistakes.append(
            f"{folder}: no render shows a state with all parts right and a box around "
            "it, which detector.cad asks for; render some with data_prep.cad --per_state=N, "
            "or set detector.cad_wrong to 1 or detector.cad to 0"
        )
    return mistakes


def _doubts(context: Context) -> list[str]:
    config = context.config.detector
    if not config.part_loss or config.cad_wrong:
        return []
    shown = sum(
        len(wrong_parts.spans(r.first_frame + np.arange(r.num_frames), r.states, -1))
        for r in context.source("train").recordings.values()
    )
    return [
        f"--config.detector.part_loss={config.part_loss}, but detector.cad_wrong=0: what a part "
        "that sits wrong looks like is learnt from the training recordings alone (wrong parts in "
        f"them: {shown}), and others will hardly be noticed; render some with data_prep.cad "
        "--wrong=N and give data.cad_dir, detector.cad and detector.cad_wrong, or label more"
    ]


STAGE = Stage(
    name="detector",
    build=build,
    fields=(*learning.TRAINING, *learning.LOOKS, *learning.CAD, "detector"),
    reads=_reads,
    procedure=("number of components", "states"),
    mistakes=_mistakes,
    size_mistakes=_size_mistakes,
    data_mistakes=_data_mistakes,
    doubts=_doubts,
)
