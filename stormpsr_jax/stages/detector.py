"""Stage `detector`: assembly state detection, a box and a state in one picture."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from stormpsr_jax.base.errors import tell
from stormpsr_jax.configs import default as sections
from stormpsr_jax.data import pipelines
from stormpsr_jax.data.clips import ClipSource
from stormpsr_jax.data.folder import EMPTY, NOT_ANNOTATED
from stormpsr_jax.data.pipelines import Batches
from stormpsr_jax.networks import detection
from stormpsr_jax.networks.detector import Detector
from stormpsr_jax.psr import wrong_parts
from stormpsr_jax.serving.files.overlay import thumbnail
from stormpsr_jax.serving.functions import Batched, Network, functions
from stormpsr_jax.stages import learning
from stormpsr_jax.stages.data import CAD, SPLITS, Data, Reads
from stormpsr_jax.stages.stage import Run, Training
from stormpsr_jax.training import losses
from stormpsr_jax.training.optimizer import optimisation
from stormpsr_jax.training.step import Batch, Definition, Loss, Params
from stormpsr_jax.weights import parameters

ZOOM = 0.2  # pictures are scaled by 1 ± this, boxes with them
SHIFT = 0.08  # and moved by up to this share of the picture
MAX_DETECTIONS = 1  # rows a frame in the prediction files
# Of the picture of a part: pixels of its longer side, and how much larger it is than the box.
PART_PIXELS, PART_MARGIN = 240, 1.2


@dataclasses.dataclass(frozen=True)
class DetectorTraining(Training):
    """Trains the detector and keeps the one with the best validation mAP@50."""

    name = "detector"
    start = "detector.init_from"

    detector: sections.Detector
    augment: sections.Augment

    def network(self, run: Run) -> Detector:
        """The assembly state detector."""
        config = self.detector
        # A start that knows how products lie serves where no render tells it.
        upright = config.pose_loss > 0 or bool(config.init_from)
        return learning.module_of(
            Detector,
            config,
            num_classes=run.procedure.num_states + 1,
            num_components=run.procedure.num_components if config.part_loss else 0,
            upright=upright,
            corrections=2 if upright else 0,  # a third gains little (benchmarks/results/bench.md)
            dtype=run.activations,
        )

    def detect(self, run: Run, params: Params, source: ClipSource) -> Batched:
        """Pictures of a source → boxes (B, M, 4), classes (B, M), confidences (B, M), scores."""
        network = {"detector": Network(self.network(run), {"params": params})}
        pictures = run.data.pictures(source)
        return functions(network, pictures, MAX_DETECTIONS, self.detector.batch)["detect"]

    def build(self, run: Run) -> Definition:
        """Returns what it trains."""
        config, data = self.detector, run.data
        train, val = data.boxed_source("train"), data.boxed_source("val")
        model = self.network(run)
        if jax.process_index() == 0:
            self._warn(run)

        def init() -> tuple[Params, Params]:
            shape = (1, *train.image_size, 3)
            params = learning.fresh(model, run.key("detector/init"), shape)["params"]
            if path := self.start_file():
                params = started(path, params)
                print(f"detector: starts from {path}", flush=True)
            return params, {}

        def loss_fn(params: Params, batch_stats: Params, batch: Batch, rng: jax.Array) -> Loss:
            look_key, place_key = jax.random.split(rng)
            pictures = learning.augmented(self.augment, look_key, batch["image"])
            pictures, boxes, poses = detection.zoom(
                place_key, pictures, batch["box"], batch["pose"], ZOOM, SHIFT
            )
            images = data.normalise(pictures, batch["cad"])
            outputs: Any = model.apply({"params": params}, images, train=True)
            loss, metrics = detection.detection_loss(
                outputs, boxes, batch["class"], image_size=train.image_size, levels=config.levels
            )
            if config.pose_loss:
                pose, of_pose = detection.pose_loss(outputs["pose"], poses)
                loss, metrics = loss + config.pose_loss * pose, metrics | of_pose
            if config.part_loss:
                # Boxed frames of recordings show few incorrect parts, which are soon known by
                # heart: where renders do, these tell right from wrong, and frames from anywhere.
                weight = None
                if config.cad_wrong:
                    taught = batch["cad"] | (batch["class"] == NOT_ANNOTATED)
                    weight = taught.astype(jnp.float32)
                parts, of_parts = losses.condition_bce(outputs["parts"], batch["state"], weight)
                loss, metrics = loss + config.part_loss * parts, metrics | of_parts
            return loss, (metrics, batch_stats)

        def evaluate(params: Params, _: Params) -> dict[str, float]:
            detect = self.detect(run, params, val)
            return {
                "map50": learning.mean_average_precision(detect, val),
                **learning.false_alarms(detect, val),
            }

        return Definition(
            init=init,
            loss_fn=loss_fn,
            data=self._batches(run, run.workers),
            **optimisation(config, _kept(config, model)),
            evaluate=evaluate,
            best="map50",
        )

    def _batches(self, run: Run, workers: int) -> Batches:
        """What it is trained on; ValueError if the data do not have what the config asks for."""
        config, data = self.detector, run.data
        return pipelines.detector_pictures(
            data.boxed_source("train"),
            data.detector_source(CAD) if config.cad else None,
            background=config.background,
            unboxed_share=config.unboxed_share,
            cad_share=config.cad,
            cad_wrong=config.cad_wrong,
            with_poses=config.pose_loss > 0,
            batch=config.batch,
            seed=run.config.seed,
            workers=workers,
        )

    def _warn(self, run: Run) -> None:
        """Tells what training will do, but perhaps not as its user expects."""
        config = self.detector
        recordings = run.data.boxed_source("train").recordings.values()
        if config.background and not any((r.classes == EMPTY).any() for r in recordings):
            tell(
                "warning",
                f"detector.background={config.background:g}, but no frame of split 'train' is "
                "annotated as empty: the detector sees pictures with a box only, and may find "
                "objects where there are none. Look at some frames without a whole object too "
                "(docs/own-product.md)",
            )
        if config.part_loss and not config.cad_wrong:
            num_wrong = sum(
                len(wrong_parts.spans(r.first_frame + np.arange(r.num_frames), r.states, -1))
                for r in recordings
            )
            tell(
                "warning",
                f"--config.detector.part_loss={config.part_loss}, but detector.cad_wrong=0: what "
                "an incorrect part looks like is learnt from the training recordings alone (wrong "
                f"parts in them: {num_wrong}), and others will hardly be noticed; train on renders "
                "too (--config=cad with data.extra, docs/own-product.md), or label more",
            )

    def reads(self, run: Run) -> list[Reads]:
        """Pictures and boxes, and what its further heads learn from."""
        config = self.detector
        heads = {"states": config.part_loss, "poses": config.pose_loss}
        parts = ("pictures", "boxes", *(part for part, weight in heads.items() if weight))
        reads = [Reads(parts, SPLITS, Data.boxed_source), Reads(("states",))]
        if config.cad:
            if config.cad_wrong and "states" not in parts:  # by which those are found
                parts = (*parts, "states")
            reads.append(Reads(parts, (CAD,), Data.detector_source))
        return reads

    def check(self, run: Run) -> list[str]:
        """Says whether the batches and the network can be made."""
        rows, path, model = self.detector.batch, self.start_file(), self.network(run)
        size = learning.image_size(run, "detector")
        if path is not None and not path.is_file():
            return [
                f"--config.detector.init_from={path}: no such file; give 'general_detector', which "
                "ships, or '' to train it from random weights"
            ]
        if run.data.is_there:
            learning.boxed_rows(run.data.boxed_source("val"))
            self._batches(run, 0)
        errors = [
            *learning.batch_errors(run, "detector", rows),
            *learning.network_errors("detector", model, (rows, *size, 3)),
        ]
        if path is not None and not errors:
            images = jax.ShapeDtypeStruct((1, *size, 3), np.float32)
            started(path, jax.eval_shape(model.init, jax.random.key(0), images)["params"])
        return errors


def _kept(config: sections.Detector, model: Detector) -> dict[str, float]:
    """Factors 0 on the learning rate of what knows how products lie, where nothing tells it."""
    if not model.upright or config.pose_loss:
        return {}
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))["params"]
    known = ("pose", "correction")
    return {name: 0.0 for name in shapes if name == "stem" or name.startswith(known)}


def is_general(module: str) -> bool:
    """Whether a module finds products, whatever they are; the others read the state."""
    return not module.startswith(("upright_", "state_", "logits", "parts"))


def started(path: Path, fresh: Params) -> Params:
    """The weights of a file: a run's of the same product, or what finds any product, else fresh.

    The latter is a file of `tools.general_networks`.

    Raises:
        ValueError: it does not fit the config's detector; names the array.
    """
    try:
        general = all(map(is_general, parameters.load_params(path)[0]))
        taken = {name: part for name, part in fresh.items() if not general or is_general(name)}
        params, _, _ = parameters.initialise_from(path, taken, {})
    except ValueError as error:
        raise ValueError(
            f"--config.detector.init_from={path}: is of a detector of another width, depth, levels "
            "or grid, of another product or of an older version; leave these as they were, make "
            f"the file again, or set it to '' ({error})"
        ) from error
    return {**fresh, **params}


def part_pictures(data: Data) -> list[bytes | None]:
    """Returns a JPEG by component: of the training frames in which it was put on last, the best.

    That is the one with most of the product in view, then the largest. It is cut out with the
    product's box, so that a model tells nothing else of who and what was filmed; without a box, or
    where a part is incorrect, no frame counts. Without any all are None.
    """
    pictures: list[bytes | None] = [None] * data.procedure.num_components
    if "train" not in data.recordings():
        return pictures
    source = data.boxed_source("train")
    best: dict[int, tuple[float, str, int]] = {}
    for name, labelled in source.recordings.items():
        states = labelled.states
        put_on, changes = np.zeros(states.shape, bool), np.zeros(len(states), int)
        put_on[1:] = (states[1:] == 1) & (states[:-1] != 1)
        changes[1:] = (states[1:] != states[:-1]).any(axis=1)
        since = np.cumsum(changes)
        shows = put_on[np.searchsorted(since, since)]
        shows[(labelled.classes < 0) | (states < 0).any(axis=1)] = False
        area = np.nan_to_num(labelled.boxes[:, 2:].prod(axis=1))
        score = np.nan_to_num(labelled.visible) + area / 1000
        for k in np.flatnonzero(shows.any(axis=0)).tolist():
            row = int(np.where(shows[:, k], score, -1).argmax())
            best[k] = max(best.get(k, (-1.0, "", 0)), (float(score[row]), name, row))
    for k, (_, name, row) in best.items():
        labelled = source.recordings[name]
        picture = source.frames(name, [labelled.first_frame + row])[0]
        pictures[k] = thumbnail(_cut_out(picture, labelled.boxes[row]), PART_PIXELS)
    return pictures


def _cut_out(picture: np.ndarray, box: np.ndarray) -> np.ndarray:
    size = np.array(picture.shape[1::-1])
    middle, half = box[:2] * size, PART_MARGIN * box[2:] * size / 2
    x0, y0 = np.clip(np.floor(middle - half), 0, size - 1).astype(int)
    x1, y1 = np.clip(np.ceil(middle + half), (x0 + 1, y0 + 1), size).astype(int)
    return picture[y0:y1, x0:x1]
