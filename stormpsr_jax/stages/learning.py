"""What stages that train have in common: how networks begin, what has to fit, what judges them.

The frames and clips that they are judged by are shared out over the processes, and each process
computes its own on all of its devices. What they find is put together before it is judged, so all
come to the same figures.
"""

import contextlib
import dataclasses
import itertools
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import msgspec
import numpy as np

from stormpsr_jax.configs import default as sections
from stormpsr_jax.configs.default import Section
from stormpsr_jax.data import augment, sampling
from stormpsr_jax.data.clips import ClipSource, in_order
from stormpsr_jax.data.folder import EMPTY
from stormpsr_jax.networks import architectures
from stormpsr_jax.psr.detection_scores import TrueBoxes, average_precisions
from stormpsr_jax.recordings.predictions import Detections
from stormpsr_jax.recordings.procedure import Procedure
from stormpsr_jax.serving.content import Window
from stormpsr_jax.serving.functions import Batched
from stormpsr_jax.stages.data import SPLITS
from stormpsr_jax.stages.stage import Run
from stormpsr_jax.training import devices, hosts
from stormpsr_jax.training.step import Params

BRIGHTNESS = CONTRAST = 0.1  # augmentation: factors drawn from 1 ± this, the paper's


def module_of(kind: type[nn.Module], section: Section | Mapping[str, Any], **given: Any) -> Any:
    """A network whose other fields are those of a section of the config with the same names."""
    values = msgspec.structs.asdict(section) if isinstance(section, Section) else section
    names = {field.name for field in dataclasses.fields(kind)} - given.keys()
    return kind(**{name: value for name, value in values.items() if name in names}, **given)


def to_train(run: Run, module: nn.Module, attention: str) -> Any:
    """A network with the attention that the devices of a run train best, if it has ours."""
    if getattr(module, "attention", None) != "xla":
        return module
    device = run.devices.devices.flat[0]
    return module.clone(attention=devices.attention(attention, run.activations, device))


def fresh(module: nn.Module, key: jax.Array, shape: tuple[int, ...]) -> Params:
    """Random variables of a network for input of this shape, from one program.

    Without `jit`, each operation of the network would be compiled by itself.
    """

    def init(key: jax.Array) -> Params:
        return module.init(key, jnp.zeros(shape, jnp.float32), train=False)

    # Else XLA multiplies constants into each other, and the weights would not be those that the
    # initialisers give one operation after another, to the last bit.
    exact = {"xla_disable_hlo_passes": "algsimp"} if jax.default_backend() == "cpu" else None
    return jax.jit(init, compiler_options=exact)(key)


def augmented(
    section: sections.Augment, key: jax.Array, images: jax.Array, occluders: float | jax.Array = 0.0
) -> jax.Array:
    """Augments uint8 pictures (B, H, W, 3) or clips (B, T, H, W, 3) as the config says."""
    fields = msgspec.structs.asdict(section) | {"occluders": occluders}
    return augment.augment(key, images, brightness=BRIGHTNESS, contrast=CONTRAST, **fields)


# --- Checks ---------------------------------------------------------------------------------------


def batch_errors(run: Run, name: str, rows: int, fields: str = "batch") -> list[str]:
    """Says whether devices cannot share the batches of a stage; `fields`: those that say `rows`."""
    devices, processes = run.devices.size, jax.process_count()
    if rows % devices == rows % processes == 0:
        return []
    return [
        f"stage {name!r} has batches of {rows}, which {devices} devices of {processes} "
        f"processes cannot share evenly; change --config.{name}.{fields}, or --config.mesh"
    ]


def image_size(run: Run, of: str = "encoder") -> tuple[int, int]:
    """Pixels (H, W) of what the encoder, or the detector, trains on, rendered yet or not."""
    if run.data.is_there:
        source = run.data.source if of == "encoder" else run.data.boxed_source
        return source(SPLITS[0]).image_size
    return (getattr(run.config, of).image_size or run.config.data.synthetic.size,) * 2


def network_errors(section: str, module: nn.Module, shape: tuple[int, ...]) -> list[str]:
    """Says whether a network cannot be trained on a batch, or its model not be written at the end.

    Nothing is computed. `section` of the config describes it, `shape` is that of its input.
    """

    def step(key: jax.Array, x: jax.Array) -> Any:
        variables = module.init(key, x)
        rngs, mutable = {"dropout": key}, ["batch_stats"]
        return module.apply(variables, x, train=True, mutable=mutable, rngs=rngs)

    where = f"--config.{section}"
    try:
        architectures.check(module, where, shape)
        jax.eval_shape(step, jax.random.key(0), jax.ShapeDtypeStruct(shape, jnp.float32))
    except Exception as error:  # of fields that contradict each other, nearly anything
        what = (str(error).strip() or type(error).__name__).splitlines()[0].removeprefix(where)
        pictures = f"; see also {where}.image_size, and --size of the data" * (len(shape) == 4)
        return [f"{where}: {what.removeprefix(': ')}{pictures}"]
    return []


# --- On the validation split ----------------------------------------------------------------------

KEY_FRAMES = 2_000  # that precision@1 is measured on, at most
BOXED_FRAMES = 2_000  # that mAP is measured on, at most
EMPTY_FRAMES = 500  # that false alarms are counted on, at most


def nearest_agrees(z: np.ndarray, labels: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """Whether the nearest neighbour of each embedding has its label; the mean is precision@1.

    `z` (N, D) has rows of length 1, `labels` are (N,), and `candidates` (N, N) says which rows may
    be a row's neighbour. Returns (N,) bool, False where there is no candidate.
    """
    similarity = np.where(candidates, z @ z.T, -np.inf)
    return (labels[similarity.argmax(axis=1)] == labels) & candidates.any(axis=1)


def key_frame_precision(
    encoder: Batched, source: ClipSource, procedure: Procedure, window: int, initial: bool
) -> float:
    """Share of key frames whose nearest one of another recording shows the same state.

    `encoder`: uint8 pictures (B, H, W, 3) → embeddings (B, D) of length 1; the others are of
    `sampling.key_frames`. ValueError: the split has no key frame.
    """
    key_frames = key_frame_rows(source, procedure, window, initial)
    key_frames = key_frames[:: -(-len(key_frames) // KEY_FRAMES)]
    owners = np.array([owner for owner, _, _ in key_frames])
    labels = np.array([label for _, label, _ in key_frames])
    z = _of_pictures(encoder, source, [(owner, row) for owner, _, row in key_frames])
    return float(nearest_agrees(z, labels, owners[:, None] != owners[None]).mean())


def key_frame_rows(
    source: ClipSource, procedure: Procedure, window: int, initial: bool
) -> list[tuple[str, int, int]]:
    """(recording, state, row) of every key frame of a split; ValueError if it has none."""
    key_frames = [
        (name, label, row)
        for name, recording in source.recordings.items()
        for label, rows in sampling.key_frames(
            recording, procedure, window, initial=initial
        ).items()
        for row in rows.tolist()
    ]
    if not key_frames:
        raise ValueError(
            f"split {source.split!r} has no key frame, by which the encoder is judged: no "
            "completion in it reaches a catalogued state; check the states against the labels"
        )
    return key_frames


def shares_key_frames(source: ClipSource, procedure: Procedure, window: int, initial: bool) -> bool:
    """Whether two recordings have key frames of the same state; arguments as above.

    Of others `key_frame_precision` is 0 whatever the encoder.
    """
    rows = key_frame_rows(source, procedure, window, initial)
    found = {(owner, label) for owner, label, _ in rows}
    return len({label for _, label in found}) < len(found)


def clip_scores(
    logits: Batched,
    embeddings: Mapping[str, np.ndarray],
    states: Mapping[str, np.ndarray],
    window: Window,
) -> dict[str, float]:
    """Scores of all clips of a split that end at every stride-th frame.

    Args:
        logits: embeddings (B, T, D) → (B, K).
        embeddings, states: {recording: (N, D)}, {recording: (N, K)}.

    Returns:
        f1: over all components of all clips, a component above probability ½ counts as changed;
        f1_macro: mean over the components of the F1 of each, 0 where one neither changes nor is
            predicted to;
        bce: mean binary cross-entropy, nats.
    """
    tp = wrong = np.zeros(next(iter(states.values())).shape[1], int)  # wrong: FP + FN
    count, bce = 0, 0.0
    for name, embedded in embeddings.items():
        last = np.arange(0, len(embedded), window.stride)
        labels = sampling.clip_labels(states[name], last, frames=window.frames).astype(bool)
        clips = sampling.window_frames(last, frames=window.frames, stride=window.stride)
        own = clips[hosts.part(len(last))]
        parts = [
            logits(np.asarray(embedded[own[start : start + logits.batch]], np.float32))
            for start in range(0, max(len(own), 1), logits.batch)
        ]
        found = np.concatenate(parts)
        predicted = hosts.together(found, len(last)).astype(np.float64)
        tp = tp + ((predicted > 0) & labels).sum(axis=0)
        wrong = wrong + ((predicted > 0) ^ labels).sum(axis=0)
        bce += float(np.logaddexp(0, np.where(labels, -predicted, predicted)).sum())
        count += labels.size
    macro = (2 * tp / np.maximum(2 * tp + wrong, 1)).mean()
    pooled = 2 * tp.sum() / max(2 * tp.sum() + wrong.sum(), 1)
    return {"f1": float(pooled), "f1_macro": float(macro), "bce": bce / count}


def mean_average_precision(detector: Batched, source: ClipSource) -> float:
    """mAP@50 of a split's boxed frames, over the classes that occur; ValueError without any box.

    `detector`: uint8 pictures (B, H, W, 3) → boxes, classes and confidences (B, M, …).
    """
    frames = boxed_rows(source)
    frames = frames[:: -(-len(frames) // BOXED_FRAMES)]
    truth_boxes = np.stack([source.recordings[name].boxes[row] for name, row in frames])
    truth_classes = np.array([source.recordings[name].classes[row] for name, row in frames])
    boxes, classes, confidences = _of_pictures(detector, source, frames)[:3]
    at = np.nonzero(classes > 0)  # pictures, and rows of them
    rows = Detections(at[0], classes[at], confidences[at], boxes[at])
    true = TrueBoxes(np.arange(len(truth_boxes)), truth_classes, truth_boxes)
    return float(np.mean(list(average_precisions(rows, true).values())))


def boxed_rows(source: ClipSource) -> list[tuple[str, int]]:
    """(recording, row) of the frames of a split that have a box; ValueError if none has."""
    if not (boxed := _rows(source, lambda classes: classes > 0)):
        raise ValueError(
            f"split {source.split!r} has no box of a catalogued or error state, which the detector "
            "needs; drop 'detector' from stages, or label boxes (docs/own-product.md)"
        )
    return boxed


def false_alarms(detector: Batched, source: ClipSource) -> dict[str, float]:
    """{"false_alarms": share of frames annotated as empty in which something is surer than ½}.

    Nothing if no frame is annotated as empty.
    """
    if not (found := _rows(source, lambda classes: classes == EMPTY)):
        return {}
    seen = found[:: -(-len(found) // EMPTY_FRAMES)]
    confidences = _of_pictures(detector, source, seen)[2]
    return {"false_alarms": float((confidences.max(axis=1) > 0.5).mean())}


def embeddings(encoder: Batched, source: ClipSource) -> dict[str, np.ndarray]:
    """{recording: (N, D)} of all frames of a split."""
    whole = _of_pictures(encoder, source, _rows(source, np.ones_like))
    ends = np.cumsum([r.num_frames for r in source.recordings.values()])
    return dict(zip(source.recordings, np.split(whole, ends[:-1]), strict=True))


def _rows(source: ClipSource, of: Callable[[np.ndarray], np.ndarray]) -> list[tuple[str, int]]:
    return [
        (name, row)
        for name, recording in source.recordings.items()
        for row in np.flatnonzero(of(recording.classes)).tolist()
    ]


def _of_pictures(function: Batched, source: ClipSource, frames: list[tuple[str, int]]) -> Any:
    """The outputs (N, …) for N ≥ 1 frames, (recording, row), each computed by one process."""
    share = frames[hosts.part(len(frames))]
    parts = [
        share[start : start + function.batch] for start in range(0, len(share), function.batch)
    ]

    def read(part: list[tuple[str, int]]) -> np.ndarray:
        # Frames of one record are read at once.
        groups = itertools.groupby(part, key=lambda frame: frame[0])
        return np.concatenate([source.rows(name, [row for _, row in of]) for name, of in groups])

    with contextlib.closing(in_order(read, parts, source.readers)) as pictures:
        outputs = list(function.over(pictures))
    if not share:
        outputs = [function(np.zeros((0, *source.image_size, 3), np.uint8))]
    found = jax.tree.map(lambda *parts: np.concatenate(parts), *outputs)
    return hosts.together(found, len(frames))
