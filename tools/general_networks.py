"""Trains the networks that runs start from, for small pictures, on renders of many random objects.

    python -m tools.general_networks encoder --workdir=runs/general_encoder
    python -m tools.general_networks detector --workdir=runs/general_detector

They are WORKDIR/encoder.safetensors and WORKDIR/detector.safetensors, and ship as
stormpsr_jax/pretrained/general_NAME.safetensors. An interrupted command goes on, given again.

The encoder's part is that of ImageNet for the full-size one. A class is a state of one object, so
what SupCon learns is to see which parts of an object are there, whatever the object. The detector
learns where a product is in a picture and how it lies. What its parts look like is learned from the
product alone: products were learned more slowly from features that tell the states of many objects
apart than from random weights.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import grain
import jax
import numpy as np
from ml_collections import ConfigDict

from data_prep.products.product import random_product
from data_prep.rendering import ranges
from data_prep.synthetic import FIRST_OBJECT_SEED
from data_prep.worlds import rendered
from data_prep.worlds.motion import plan_views
from data_prep.worlds.workplace import Workplace, bodies_of, poses_in_pictures
from data_prep.writing import shards
from stormpsr_jax.configs import synthetic_full
from stormpsr_jax.data import pipelines
from stormpsr_jax.data.clips import ClipSource
from stormpsr_jax.networks import detection
from stormpsr_jax.recordings.procedure import Procedure, Variant
from stormpsr_jax.serving.functions import Batched
from stormpsr_jax.stages import config_flag, learning, order
from stormpsr_jax.stages.detector import SHIFT, ZOOM, DetectorTraining, is_general
from stormpsr_jax.stages.pretrain import Pretraining
from stormpsr_jax.stages.run import run_of
from stormpsr_jax.stages.stage import Run, Training
from stormpsr_jax.training import losses
from stormpsr_jax.training.checkpoint import load_best
from stormpsr_jax.training.devices import make_mesh
from stormpsr_jax.training.optimizer import optimisation
from stormpsr_jax.training.step import Batch, Definition, Loss, Params
from stormpsr_jax.weights import parameters

COMPONENTS, STATES = 11, 12  # of every object
JUDGED = 40  # pictures of each object of split "val"
# By network: objects by split, pictures of each, and how far they are turned from their usual way
# round (standard deviation in radians; 0 turns them any way round).
DATA = {
    "encoder": ({"train": 480, "val": 30}, 96, 0.0),
    "detector": ({"train": 960, "val": 30}, 64, 0.9),  # about as far as in recordings
}
# Objects in a batch of the encoder, states of each, views of each; pictures in one of the detector.
BATCH: dict[str, Any] = {"encoder": (8, 4, 3), "detector": 64}
# How they train: fields of section `pretrain`, of which the rest is as in the stage.
TRAINING = {
    "encoder": {"steps": 3_000, "eval_every": 500, "optimizer.lr": 2e-3},
    "detector": {"steps": 4_000, "eval_every": 1_000, "optimizer.lr": 3e-3},
}


def config_of(network: str) -> ConfigDict:
    """The config of a network, which trains by section `pretrain`."""
    config = synthetic_full.get_config()
    config.procedure = ""  # the objects'
    config.data.synthetic.seed = FIRST_OBJECT_SEED
    own = {"state_loss": 0.0, "optimizer.warmup_steps": 200, **TRAINING[network]}
    config.pretrain.update_from_flattened_dict(own)
    return config


def make_objects(
    out: Path, objects: Mapping[str, int], count: int, turn: float, *, size: int, workers: int
) -> None:
    """Writes random products in random states, as the seeds of no run draw them.

    Each recording is one product: `count` independent frames with their own camera, light, table,
    clutter and (half of them) hands, in a dozen states that are one change apart.
    """
    procedure = Procedure(
        "objects",
        1.0,
        tuple(f"part {k}" for k in range(1, COMPONENTS + 1)),
        np.ones((1, COMPONENTS), np.int8),
        {"any": Variant("any", (0,) * COMPONENTS, (), ("*",))},
    )
    splits, first = {}, 0
    for split, number in objects.items():
        splits[split] = tuple(f"object_{i:05d}" for i in range(first, first + number))
        first += number
    shards.build(
        out,
        procedure=procedure,
        image_size=(size, size),
        splits=splits,
        make=functools.partial(_object, procedure=procedure, count=count, turn=turn, size=size),
        workers=workers,
        settings={"seed": FIRST_OBJECT_SEED, "frames_per_object": count, "turn": turn},
        num_frames={name: count for names in splits.values() for name in names},
    )


def _object(
    split: str, name: str, *, procedure: Procedure, count: int, turn: float, size: int
) -> shards.RecordingData:
    when, how, looks, noise = ranges.streams(FIRST_OBJECT_SEED, "object", split, name)
    product = random_product(int(when.integers(2**62)), COMPONENTS)
    known = related_states(when)
    states = known[when.integers(len(known), size=count)]
    motion = plan_views(count, how, hands=0.5, turn=turn or None)
    place = functools.partial(Workplace, product, bodies_of(product), looks)
    pictures = (place().picture(motion, i, states[i], size) for i in range(count))
    poses = poses_in_pictures(product, motion)
    return rendered.encode(name, pictures, states, procedure, noise, poses=poses)


def related_states(rng: np.random.Generator) -> np.ndarray:
    """(STATES, COMPONENTS) different states, each one change away from another one."""
    states = [(rng.random(COMPONENTS) < rng.uniform(0.2, 0.8)).astype(np.int8)]
    while len(states) < STATES:
        state = states[rng.integers(len(states))].copy()
        k = rng.integers(COMPONENTS)
        others = [v for v in (-1, 0, 1) if v != state[k]]
        state[k] = rng.choice(others, p=(0.2, 0.8) if -1 in others else (0.5, 0.5))
        if not any((state == other).all() for other in states):
            states.append(state)
    return np.stack(states)


def _object_batch(source: ClipSource) -> Any:
    """The function index → a batch of objects × states × views."""
    objects, states, views = BATCH["encoder"]
    frames = []  # per object: its name, and for each of its states the frames that show it
    for name, recording in source.recordings.items():
        _, number = np.unique(recording.states, axis=0, return_inverse=True)
        frames.append((name, [np.flatnonzero(number == i) for i in range(number.max() + 1)]))

    def draw(_: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        picked = []  # owner, state, frame
        for owner in rng.choice(len(frames), objects, replace=False).tolist():
            groups = frames[owner][1]
            for state in rng.choice(len(groups), states, replace=len(groups) < states).tolist():
                few = len(groups[state]) < views
                shown = rng.choice(groups[state], views, replace=few).tolist()
                picked += [(owner, state, frame) for frame in shown]
        named = [(frames[owner][0], frame) for owner, _, frame in picked]
        vectors = [source.recordings[name].states[frame] == 1 for name, frame in named]
        return {
            "image": np.stack([source.rows(name, [frame])[0] for name, frame in named]),
            "label": np.array([1_000 * owner + state for owner, state, _ in picked], np.int32),
            "state": np.array(vectors, np.float32),
            "object": np.array([owner for owner, _, _ in picked], np.int32),
        }

    return draw


@dataclasses.dataclass(frozen=True)
class GeneralEncoder(Training):
    """Trains the encoder, and keeps the one best in precision@1 on objects it never saw."""

    name = "general"

    pretrain: Pretraining

    @property
    def learning(self) -> Any:
        """How it trains."""
        return self.pretrain.pretrain

    def build(self, run: Run) -> Definition:
        """Returns what it trains."""
        train, val = run.data.source("train"), run.data.source("val")
        pictures, hidden = math.prod(BATCH["encoder"]), self.pretrain.encoder.hidden
        model = self.pretrain.network_to_train(run, train.image_size, pictures)

        def init() -> tuple[Params, Params]:
            shape = (2, *train.image_size, 3)
            variables = learning.fresh(model, run.key("general/init"), shape)
            heads = np.zeros((len(train.recordings), hidden, COMPONENTS), np.float32)
            params = {"spatial": variables["params"], "heads": {"kernel": heads}}
            return params, variables["batch_stats"]

        def loss_fn(params: Params, batch_stats: Params, batch: Batch, rng: jax.Array) -> Loss:
            pictures = learning.augmented(self.pretrain.augment, rng, batch["image"])
            outputs, updates = model.apply(
                {"params": params["spatial"], "batch_stats": batch_stats},
                run.data.normalise(pictures),
                train=True,
                mutable=["batch_stats"],
            )
            supcon = losses.supcon(outputs["projection"], batch["label"], 0.07)
            heads = params["heads"]["kernel"][batch["object"]]  # (B, D, K)
            logits = hidden**0.5 * (outputs["embedding"][:, None] @ heads)[:, 0]
            bce = losses.multilabel_bce(logits, batch["state"]).mean()
            return supcon + bce, ({"supcon": supcon, "state_bce": bce}, updates["batch_stats"])

        def evaluate(params: Params, batch_stats: Params) -> dict[str, float]:
            found = self.pretrain.encode(run, params["spatial"], batch_stats, val)
            return {"precision_at_1": precision_at_1(found, val)}

        element = grain.MapDataset.range(2**40).seed(run.config.seed)
        return Definition(
            init=init,
            loss_fn=loss_fn,
            data=pipelines.batches(
                element.random_map(_object_batch(train)),
                run.workers,
                pictures * 3 * math.prod(train.image_size),
            ),
            **optimisation(self.learning),
            evaluate=evaluate,
            best="precision_at_1",
        )


def precision_at_1(embed: Batched, source: ClipSource) -> float:
    """Share of pictures whose nearest other picture of the same object shows the same state."""
    right = total = 0
    for name, recording in source.recordings.items():
        count = min(JUDGED, recording.num_frames)
        z = embed(source.rows(name, np.arange(count)))
        _, labels, sizes = np.unique(
            recording.states[:count], axis=0, return_inverse=True, return_counts=True
        )
        agrees = learning.nearest_agrees(z, labels, ~np.eye(count, dtype=bool))
        possible = sizes[labels] > 1  # another picture shows the same state
        right, total = right + int((agrees & possible).sum()), total + int(possible.sum())
    return right / max(total, 1)


@dataclasses.dataclass(frozen=True)
class GeneralDetector(Training):
    """Trains the detector; it is judged on objects that it never saw."""

    name = "general_detector"

    pretrain: Pretraining
    detector: DetectorTraining

    @property
    def learning(self) -> Any:
        """How it trains."""
        return self.pretrain.pretrain

    def build(self, run: Run) -> Definition:
        """Returns what it trains."""
        train, val = run.data.source("train"), run.data.source("val")
        config = self.detector.detector
        model = self.detector.network(run).clone(num_classes=2, num_components=0)

        def init() -> tuple[Params, Params]:
            shape = (1, *train.image_size, 3)
            return learning.fresh(model, run.key("general_detector/init"), shape)["params"], {}

        def loss_of(params: Params, batch: Batch) -> tuple[jax.Array, dict[str, jax.Array]]:
            outputs: Any = model.apply({"params": params}, run.data.normalise(batch["image"]))
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
            pictures = learning.augmented(self.detector.augment, look_key, batch["image"])
            pictures, boxes, poses = detection.zoom(
                place_key, pictures, batch["box"], batch["pose"], ZOOM, SHIFT
            )
            shown = {"image": pictures, "box": boxes, "pose": poses}
            loss, metrics = loss_of(params, batch | shown)
            return loss, (metrics, batch_stats)

        judged = jax.jit(lambda params, batch: loss_of(params, batch)[1])

        def evaluate(params: Params, _: Params) -> dict[str, float]:
            rows = [
                judged(params, _pictures(val, name, np.arange(min(JUDGED, recording.num_frames))))
                for name, recording in val.recordings.items()
            ]
            return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}

        names = list(train.recordings)

        def draw(_: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
            name = names[rng.integers(len(names))]
            row = rng.integers(train.recordings[name].num_frames, size=1)
            return {field: array[0] for field, array in _pictures(train, name, row).items()}

        return Definition(
            init=init,
            loss_fn=loss_fn,
            data=pipelines.of_elements(draw, run.config.seed, BATCH["detector"], run.workers),
            **optimisation(self.learning),
            evaluate=evaluate,
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


def train(network: str, config: ConfigDict, workdir: Path) -> Path:
    """Renders the objects, trains a network on them and writes the file to start from."""
    objects, count, turn = DATA[network]
    made = config.data.synthetic
    make_objects(workdir / "data", objects, count, turn, size=made.size, workers=2)
    values = config_flag.typed(config)
    stages: dict[str, Any] = order.stages(values)
    general: Training = GeneralEncoder(stages["pretrain"])
    if network == "detector":
        general = GeneralDetector(stages["pretrain"], stages["detector"])
    facts = general.make(run_of(values, workdir, make_mesh(1, 1)))
    params = load_best(workdir / general.name)[0]
    if network == "encoder":
        params = params["spatial"]["encoder"]
    else:
        params = {key: part for key, part in params.items() if is_general(key)}
    about = {"data_seed": FIRST_OBJECT_SEED, "objects": sum(objects.values()), **facts}
    path = workdir / f"{network}.safetensors"
    parameters.save_params(path, params, metadata=about)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("network", choices=DATA)
    parser.add_argument("--workdir", type=Path, required=True)
    args = parser.parse_args()
    print(train(args.network, config_of(args.network), args.workdir))


if __name__ == "__main__":
    main()
