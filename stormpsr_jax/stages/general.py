"""Stage `general`: a starting encoder for small pictures, from renders of many random objects.

It plays the part that ImageNet has for the full-size encoder. A class is a state of one object,
so what SupCon learns is to see which parts of an object are there, whatever the object.
"""

from __future__ import annotations

import math

import grain
import jax
import numpy as np

from stormpsr_jax.data import pipelines
from stormpsr_jax.data.clips import ClipSource
from stormpsr_jax.psr.procedure import load_procedure
from stormpsr_jax.serving.batched import Batched
from stormpsr_jax.stages import learning, networks, validation
from stormpsr_jax.stages.context import Context
from stormpsr_jax.stages.stage import LABELS, SPLITS, Reads, Stage
from stormpsr_jax.training import losses
from stormpsr_jax.training.checkpoint import BEST
from stormpsr_jax.training.definition import Definition
from stormpsr_jax.training.optimizer import optimisation
from stormpsr_jax.training.step import Batch, Loss, Params
from stormpsr_jax.weights import parameters

_EXPORTED = "encoder.safetensors"
_VALIDATION_FRAMES = 40  # pictures of each object that precision@1 is measured on


class _ObjectBatch:
    """Index → this host's rows of a batch of objects × states × views, which all draw alike."""

    def __init__(self, source: ClipSource, objects: int, states: int, views: int):
        if objects > len(source.recordings):
            raise ValueError(
                f"--config.general.objects={objects}: a batch has so many different objects, and "
                f"split {source.split!r} has {len(source.recordings)}; lower it, or make more"
            )
        self._source, self._counts = source, (objects, states, views)
        self._host, self._hosts = jax.process_index(), jax.process_count()
        # Per object: its states, and the frames that show each.
        self._frames = []
        for name, recording in source.recordings.items():
            _, number = np.unique(recording.states, axis=0, return_inverse=True)
            groups = [np.flatnonzero(number == i) for i in range(number.max() + 1)]
            self._frames.append((name, groups))

    def __call__(self, _: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        objects, states, views = self._counts
        picked = []  # owner, state, frame index
        for owner in rng.choice(len(self._frames), objects, replace=False).tolist():
            _, groups = self._frames[owner]
            for state in rng.choice(len(groups), states, replace=len(groups) < states).tolist():
                few = len(groups[state]) < views
                frames = rng.choice(groups[state], views, replace=few).tolist()
                picked += [(owner, state, frame) for frame in frames]
        rows = len(picked) // self._hosts
        picked = picked[self._host * rows : (self._host + 1) * rows]
        images, vectors = [], []
        for owner, _, frame in picked:
            name, _ = self._frames[owner]
            recording = self._source.recordings[name]
            images.append(self._source.rows(name, [frame])[0])
            vectors.append(recording.states[frame] == 1)
        return {
            "image": np.stack(images),
            "label": np.array([1_000 * owner + state for owner, state, _ in picked], np.int32),
            "state": np.array(vectors, np.float32),
            "object": np.array([owner for owner, _, _ in picked], np.int32),
        }


def open_split(context: Context, split: str) -> ClipSource:
    """Opens a split; its objects have parts of their own, which the folder's procedure counts."""
    procedure = load_procedure(context.data_dir / "procedure.json")
    source = ClipSource(context.data_dir, split, procedure)
    return source.at(context.config.encoder.image_size, "encoder.image_size")


def _counts(context: Context) -> tuple[int, int, int]:
    """Of a batch: objects, states of each, views of each."""
    config = context.config.general
    return config.objects, config.states, config.views


def build(context: Context) -> Definition:
    """What trains the encoder, and keeps the one best in precision@1 on objects it never saw.

    Its ViT is written to WORKDIR/general/encoder.safetensors, a file for `config.init_from`.
    """
    config = context.config.general
    train, val = (open_split(context, split) for split in SPLITS)
    pictures = math.prod(_counts(context))
    model = networks.encoder_to_train(context, train.image_size, pictures)
    components = train.procedure.num_components

    def init() -> tuple[Params, Params]:
        shape = (2, *train.image_size, 3)
        variables = networks.fresh(model, context.key("general/init"), shape)
        heads = np.zeros((len(train.recordings), context.config.encoder.hidden, components))
        params = {"spatial": variables["params"], "heads": {"kernel": heads.astype(np.float32)}}
        return params, variables["batch_stats"]

    def loss_fn(params: Params, batch_stats: Params, batch: Batch, rng: jax.Array) -> Loss:
        images = context.normalise(context.augment(rng, batch["image"]))
        outputs, updates = model.apply(
            {"params": params["spatial"], "batch_stats": batch_stats},
            images,
            train=True,
            mutable=["batch_stats"],
        )
        supcon = losses.supcon(outputs["projection"], batch["label"], 0.07)
        heads = params["heads"]["kernel"][batch["object"]]  # (B, D, K)
        scale = context.config.encoder.hidden**0.5
        logits = scale * (outputs["embedding"][:, None] @ heads)[:, 0]
        bce = losses.multilabel_bce(logits, batch["state"]).mean()
        metrics = {"supcon": supcon, "state_bce": bce}
        return supcon + bce, (metrics, updates["batch_stats"])

    def evaluate(params: Params, batch_stats: Params) -> dict[str, float]:
        encoder = networks.frame_encoder(context, params["spatial"], batch_stats, val)
        return {"precision_at_1": _precision_at_1(encoder, val)}

    def export(params: Params, metrics: dict[str, float]) -> None:
        parameters.save_params(
            context.workdir / "general" / _EXPORTED,
            params["spatial"]["encoder"],
            metadata={
                "data_seed": context.config.data.synthetic.seed,
                "objects": len(train.recordings) + len(val.recordings),
                "steps": config.steps,
                "precision_at_1": metrics,
            },
        )

    num_bytes = pictures // jax.process_count() * 3 * math.prod(train.image_size)
    element = _ObjectBatch(train, *_counts(context))
    dataset = grain.MapDataset.range(2**40).seed(context.config.seed).random_map(element)
    return Definition(
        init=init,
        loss_fn=loss_fn,
        data=pipelines.batches(dataset, context.workers, num_bytes),
        **optimisation(config),
        evaluate=evaluate,
        best="precision_at_1",
        batch_field="objects",
        export=export,
    )


def _precision_at_1(encoder: Batched, source: ClipSource) -> float:
    """Share of pictures whose nearest other picture of the same object shows the same state."""
    right = total = 0
    for name, recording in source.recordings.items():
        count = min(_VALIDATION_FRAMES, recording.num_frames)
        z = encoder(source.rows(name, np.arange(count)))
        _, labels, sizes = np.unique(
            recording.states[:count], axis=0, return_inverse=True, return_counts=True
        )
        agrees = validation.nearest_agrees(z, labels, ~np.eye(count, dtype=bool))
        possible = sizes[labels] > 1  # another picture shows the same state
        right, total = right + int((agrees & possible).sum()), total + int(possible.sum())
    return right / max(total, 1)


def _check(context: Context) -> list[str]:
    rows, size = math.prod(_counts(context)), learning.image_size(context, source=open_split)
    if context.has_data:
        _ObjectBatch(open_split(context, SPLITS[0]), *_counts(context))
    model = networks.encoder_to_train(context, size, rows, "none")
    return [
        *learning.batch_errors(context, "general", rows, "objects, .states or .views"),
        *learning.network_errors("encoder", model, (rows, *size, 3)),
    ]


STAGE = Stage(
    name="general",
    build=build,
    fields=(*learning.TRAINING, *learning.AUGMENTED, *learning.ENCODER, "attention", "general"),
    reads=lambda _: [Reads((LABELS, "pictures"), SPLITS, open_split)],
    results=(f"general/{BEST}", f"general/{_EXPORTED}"),
    check=_check,
)
