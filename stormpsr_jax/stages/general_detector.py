"""Stage `general_detector`: where a detector for small pictures starts, from many random objects.

It learns where a product is in a picture and how it lies, whatever the product. What its parts look
like is learned from the product alone: features that tell the states of many objects apart were
tried as a start, and products were learned more slowly from them than from random weights.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from stormpsr_jax.data import pipelines
from stormpsr_jax.data.clips import ClipSource
from stormpsr_jax.networks import detection
from stormpsr_jax.networks.detector import Detector
from stormpsr_jax.stages import learning, networks
from stormpsr_jax.stages.context import Context
from stormpsr_jax.stages.general import open_split
from stormpsr_jax.stages.stage import LABELS, SPLITS, Reads, Stage
from stormpsr_jax.training.checkpoint import BEST
from stormpsr_jax.training.definition import Definition
from stormpsr_jax.training.optimizer import optimisation
from stormpsr_jax.training.step import Batch, Loss, Params
from stormpsr_jax.weights import parameters

_FOLDER, _EXPORTED = "general_detector", "detector.safetensors"
_JUDGED = 40  # pictures of each object that it is judged on


def is_learned(module: str) -> bool:
    """Whether a module of a detector learns here; the others read the state."""
    return not module.startswith(("upright_", "state_", "logits", "parts"))


def _model(context: Context) -> Detector:
    return networks.detector(context).clone(num_classes=2, num_components=0)


def build(context: Context) -> Definition:
    """What trains it; it is judged on objects that it never saw.

    What learns is written to WORKDIR/general_detector/detector.safetensors, a file for
    `config.detector.init_from`.
    """
    config = context.config.detector
    train, val = (open_split(context, split) for split in SPLITS)
    model = _model(context)

    def init() -> tuple[Params, Params]:
        shape = (1, *train.image_size, 3)
        return networks.fresh(model, context.key("general_detector/init"), shape)["params"], {}

    def losses(params: Params, batch: Batch) -> tuple[jax.Array, dict[str, jax.Array]]:
        outputs: Any = model.apply({"params": params}, context.normalise(batch["image"]))
        loss, metrics = detection.detection_loss(
            *(outputs, batch["box"], batch["class"]),
            image_size=train.image_size,
            levels=config.levels,
        )
        # Its classes are of a procedure that all objects share, and none has.
        loss = loss - metrics.pop("state")
        del metrics["accuracy"]
        pose, of_pose = detection.pose_loss(outputs["pose"], batch["pose"])
        return loss + config.pose_loss * pose, metrics | of_pose

    def loss_fn(params: Params, batch_stats: Params, batch: Batch, rng: jax.Array) -> Loss:
        look_key, place_key = jax.random.split(rng)
        pictures = context.augment(look_key, batch["image"], shift=False)
        pictures, boxes, poses = detection.zoom(
            place_key, pictures, batch["box"], batch["pose"], config.zoom, config.shift
        )
        loss, metrics = losses(params, batch | {"image": pictures, "box": boxes, "pose": poses})
        return loss, (metrics, batch_stats)

    judged = jax.jit(lambda params, batch: losses(params, batch)[1])

    def evaluate(params: Params, _: Params) -> dict[str, float]:
        found = [
            judged(params, _pictures(val, name, np.arange(min(_JUDGED, recording.num_frames))))
            for name, recording in val.recordings.items()
        ]
        return {name: float(np.mean([row[name] for row in found])) for name in found[0]}

    def export(params: Params, metrics: dict[str, float]) -> None:
        about = {
            "data_seed": context.config.data.synthetic.seed,
            "objects": len(train.recordings) + len(val.recordings),
            "steps": context.config.general_detector.steps,
            "metrics": metrics,
        }
        learned = {name: part for name, part in params.items() if is_learned(name)}
        parameters.save_params(context.workdir / _FOLDER / _EXPORTED, learned, metadata=about)

    return Definition(
        init=init,
        loss_fn=loss_fn,
        data=_data(context, train),
        **optimisation(context.config.general_detector),
        evaluate=evaluate,
        export=export,
    )


def _pictures(source: ClipSource, name: str, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Pictures of a recording, with boxes, their classes and poses."""
    recording = source.recordings[name]
    return {
        "image": source.rows(name, rows),
        "box": recording.boxes[rows],
        "class": recording.classes[rows],
        "pose": recording.poses[rows],
    }


def _data(context: Context, train: ClipSource) -> pipelines.Batches:
    names = list(train.recordings)

    def draw(_: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        name = names[rng.integers(len(names))]
        row = rng.integers(train.recordings[name].num_frames, size=1)
        return {field: array[0] for field, array in _pictures(train, name, row).items()}

    batch = context.config.general_detector.batch
    return pipelines.of_elements(draw, context.config.seed, batch, context.workers)


def _check(context: Context) -> list[str]:
    rows = context.config.general_detector.batch
    size = learning.image_size(context, source=open_split)
    if not context.config.detector.pose_loss:
        return ["--config.detector.pose_loss=0: stage 'general_detector' learns poses; raise it"]
    return [
        *learning.batch_errors(context, _FOLDER, rows),
        *learning.network_errors("detector", _model(context), (rows, *size, 3)),
    ]


STAGE = Stage(
    name=_FOLDER,
    build=build,
    fields=(*learning.TRAINING, *learning.LOOKS, "detector", "general_detector"),
    reads=lambda _: [Reads((LABELS, "pictures", "poses"), SPLITS, open_split)],
    results=(f"{_FOLDER}/{BEST}", f"{_FOLDER}/{_EXPORTED}"),
    check=_check,
)
