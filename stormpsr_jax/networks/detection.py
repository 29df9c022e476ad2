"""Targets, loss and decoding of the assembly-state detector."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from stormpsr_jax.networks.detector import STRIDE, anchor_points

_EPS = 1e-7


def _corners(boxes: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(…, 4) cx, cy, w, h → left top (…, 2) and right bottom (…, 2)."""
    half = boxes[..., 2:] / 2
    return boxes[..., :2] - half, boxes[..., :2] + half


def box_iou(a: jax.Array, b: jax.Array, generalised: bool = False) -> jax.Array:
    """Intersection over union of boxes (…, 4) cx, cy, w, h; broadcasts.

    With `generalised`, minus the share of the enclosing box that neither covers, which has a
    gradient for boxes apart (GIoU, Rezatofighi et al. 2019).
    """
    (a0, a1), (b0, b1) = _corners(a), _corners(b)
    inner = jnp.maximum(jnp.minimum(a1, b1) - jnp.maximum(a0, b0), 0).prod(-1)
    union = a[..., 2:].prod(-1) + b[..., 2:].prod(-1) - inner
    iou = inner / (union + _EPS)
    if not generalised:
        return iou
    outer = (jnp.maximum(a1, b1) - jnp.minimum(a0, b0)).prod(-1)
    return iou - (outer - union) / (outer + _EPS)


def zoom(
    key: jax.Array,
    images: jax.Array,
    boxes: jax.Array,
    poses: jax.Array,
    scale: float,
    shift: float,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Augments: scales and shifts each picture, its box and its pose; the border is repeated.

    Images (B, H, W, C) float; boxes (B, 4) cx, cy, w, h in 0..1, or NaN, cut at the border; poses
    (B, 6), see `data.folder.LabelledFrames`. Scaled about their middle by exp(u), u drawn from
    ± `scale`, then shifted by a share of their size drawn from ± `shift`, per axis.
    """
    keys = jax.random.split(key)
    factor = jnp.exp(jax.random.uniform(keys[0], (len(images), 1), minval=-scale, maxval=scale))
    move = jax.random.uniform(keys[1], (len(images), 2), minval=-shift, maxval=shift)

    def weights(move: jax.Array, length: int) -> jax.Array:
        # (B, 1) → (B, length out, length in), bilinear.
        at = (jnp.arange(length) + 0.5) / length - 0.5 - move
        at = jnp.clip((at / factor + 0.5) * length - 0.5, 0, length - 1)
        return jax.nn.relu(1 - jnp.abs(at[..., None] - jnp.arange(length)))

    images = jnp.einsum("byh,bhwc->bywc", weights(move[:, 1:], images.shape[1]), images)
    images = jnp.einsum("bxw,bywc->byxc", weights(move[:, :1], images.shape[2]), images)
    centre, half = (boxes[:, :2] - 0.5) * factor + 0.5 + move, boxes[:, 2:] * factor / 2
    low, high = jnp.clip(centre - half, 0, 1), jnp.clip(centre + half, 0, 1)
    boxes = jnp.concatenate([(low + high) / 2, high - low], -1)
    centres = (poses[:, :2] - 0.5) * factor + 0.5 + move
    return images, boxes, jnp.concatenate([centres, poses[:, 2:] * factor], -1)


def point_targets(boxes: jax.Array, image_size: tuple[int, int], levels: int = 1) -> jax.Array:
    """Which feature points answer for the object: those in the central half of its box.

    The centre region is at least one stride wide, so no box goes without a point. With several
    levels a box belongs to one: the finest on which it is less than eight strides large. Boxes
    (B, 4) cx, cy, w, h in 0..1 → (B, N) bool; NaN rows have no object.
    """
    height, width = image_size
    points, strides = anchor_points(height, width, levels)
    size = np.asarray([width, height], np.float32)
    centre, extent = boxes[:, :2] * size, boxes[:, 2:] * size  # pixels
    half = jnp.maximum(extent[:, None] / 4, strides[:, None] / 2)  # (B, N, 2)
    inside = (jnp.abs(points - centre[:, None]) <= half).all(-1)
    level = jnp.floor(jnp.log2(jnp.sqrt(extent.prod(-1)) / (4 * STRIDE)))
    level = jnp.clip(level, 0, levels - 1)  # NaN stays NaN and equals no level
    return inside & (level[:, None] == np.log2(strides / STRIDE))


def detection_loss(
    outputs: dict[str, jax.Array],
    boxes: jax.Array,
    classes: jax.Array,
    *,
    image_size: tuple[int, int],
    levels: int = 1,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Loss of the detector: state cross-entropy + objectness + 2 · GIoU.

    State and box terms are means over the object's points, then over the images with an object.
    Objectness is the sum over all points, divided by the number of the object's in the batch. Of
    `classes` (B,), 1..S+1 have an object; 0 (uncatalogued state) and -2 (not annotated) are ignored
    altogether; -1 is background, annotated as empty (only objectness). `boxes` (B, 4) are cx, cy,
    w, h in 0..1, NaN where there is none. Metrics are the terms "state", "objectness" and "box",
    and of images with an object, by their best point, "accuracy" of the state and mean "iou".
    """
    has_box = (classes > 0) & jnp.isfinite(boxes).all(-1)
    count = jnp.maximum(has_box.sum(), 1)
    objectness, box, share, iou = _location(outputs, boxes, classes, has_box, image_size, levels)

    target = jnp.maximum(classes - 1, 0)
    probabilities = jax.nn.one_hot(target, outputs["logits"].shape[-1])
    state = optax.softmax_cross_entropy(outputs["logits"], probabilities[:, None])
    state = (state * share).sum() / count

    best = outputs["objectness"].argmax(-1)[:, None]
    guess = jnp.take_along_axis(outputs["logits"].argmax(-1), best, 1)[:, 0]
    metrics = {
        "state": state,
        "objectness": objectness,
        "box": box,
        "accuracy": ((guess == target) & has_box).sum() / count,
        "iou": iou,
    }
    return state + objectness + 2 * box, metrics


def location_loss(
    outputs: dict[str, jax.Array], boxes: jax.Array, image_size: tuple[int, int]
) -> jax.Array:
    """Loss of a detector that tells no states; each picture has a box, (B, 4)."""
    there = jnp.ones(len(boxes), int)
    objectness, box, *_ = _location(outputs, boxes, there, there == 1, image_size, 1)
    return objectness + 2 * box


def _location(
    outputs: dict[str, jax.Array],
    boxes: jax.Array,
    classes: jax.Array,
    has_box: jax.Array,
    image_size: tuple[int, int],
    levels: int,
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Objectness and box of `detection_loss`, the points' shares (B, N), and the mean IoU."""
    boxes = jnp.where(has_box[:, None], boxes, 0.5)  # keep NaN out of the gradients
    positive = point_targets(boxes, image_size, levels) & has_box[:, None]  # (B, N)
    share = positive / jnp.maximum(positive.sum(-1, keepdims=True), 1)
    count = jnp.maximum(has_box.sum(), 1)

    box = 1 - box_iou(outputs["boxes"], boxes[:, None], generalised=True)
    box = (box * share).sum() / count

    weight = jnp.where(has_box | (classes == -1), 1.0, 0.0)
    objectness = optax.sigmoid_binary_cross_entropy(outputs["objectness"], positive)
    # Every point weighs the same; with other weights the sigmoid would be no probability.
    number = jnp.maximum(positive.sum(), jnp.maximum(weight.sum(), 1))
    objectness = (objectness.sum(-1) * weight).sum() / number

    found, _ = located(outputs)
    return objectness, box, share, (box_iou(found, boxes) * has_box).sum() / count


def located(outputs: dict[str, jax.Array]) -> tuple[jax.Array, jax.Array]:
    """The likeliest box of each image, (B, 4), and how likely something is there, (B,) in 0…1."""
    best = outputs["objectness"].argmax(-1)[:, None]
    found = jnp.take_along_axis(outputs["boxes"], best[..., None], 1)[:, 0]
    return found, jax.nn.sigmoid(outputs["objectness"].astype(jnp.float32)).max(-1)


def pose_loss(predicted: jax.Array, poses: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Mean absolute error of where the product lies, in units of its size in the picture.

    Of `predicted` (R, B, 6) by `Detector`, a mean over R; NaN rows of `poses` (B, 6) do not count,
    see `data.folder.LabelledFrames`. The metrics are "pose" (the same) and "turn" (by how many
    degrees the x axis of the last is wrong, mean); 0 where no row counts.
    """
    finite = jnp.isfinite(poses).all(-1)
    poses = jnp.where(finite[:, None], poses, 1.0)  # keep NaN out of the gradients
    count = jnp.maximum(finite.sum(), 1)
    size = jnp.linalg.norm(poses[:, 2:], axis=-1)
    error = jnp.abs(predicted - poses).mean((0, -1)) / (size + _EPS)
    loss = jnp.where(finite, error, 0.0).sum() / count
    turns = [jnp.arctan2(row[:, 3], row[:, 2]) for row in (predicted[-1], poses)]
    turn = jnp.abs(jnp.degrees(jnp.angle(jnp.exp(1j * (turns[0] - turns[1])))))
    return loss, {"pose": loss, "turn": jnp.where(finite, turn, 0.0).sum() / count}


def decode(
    outputs: dict[str, jax.Array], max_detections: int = 1, iou_threshold: float = 0.5
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The best detections of each image, after non-maximum suppression (jittable).

    A detection's confidence is P(object at the point) · P(state | object). Boxes that overlap a
    better one by more than `iou_threshold` are dropped, whatever their class: two states of one
    object are one detection.

    Returns:
        boxes (B, M, 4) cx, cy, w, h; classes (B, M) int32 in 1..S+1; confidences (B, M), falling
            along M = `max_detections`. Rows left over have class 0, confidence 0 and a zero box.
    """
    states = jax.nn.softmax(outputs["logits"].astype(jnp.float32))
    scores = jax.nn.sigmoid(outputs["objectness"].astype(jnp.float32)) * states.max(-1)  # (B, N)
    classes = states.argmax(-1).astype(jnp.int32) + 1
    alive, rows = jnp.ones_like(scores, bool), []
    for _ in range(max_detections):
        candidates = jnp.where(alive, scores, -1.0)
        best = candidates.argmax(-1)[:, None]  # (B, 1)
        left = jnp.take_along_axis(candidates, best, 1) >= 0
        box = jnp.take_along_axis(outputs["boxes"], best[..., None], 1)  # (B, 1, 4)
        rows.append(
            (
                jnp.where(left[..., None], box, 0.0),
                jnp.where(left, jnp.take_along_axis(classes, best, 1), 0),
                jnp.where(left, jnp.take_along_axis(scores, best, 1), 0.0),
            )
        )
        alive &= (box_iou(outputs["boxes"], box) <= iou_threshold) & (
            jnp.arange(scores.shape[1]) != best
        )
    boxes, labels, confidences = (jnp.concatenate(column, 1) for column in zip(*rows, strict=True))
    return boxes, labels, confidences


def best_scores(outputs: dict[str, jax.Array]) -> tuple[jax.Array, jax.Array, jax.Array | None]:
    """What the detector says of the likeliest point of each image, undecided (jittable).

    Objectness (B,), a logit; states (B, S + 1), log-probabilities, the last the error state;
    logits of single parts, (B, 2K), None of a detector without them.
    """
    best = outputs["objectness"].argmax(-1)[:, None]  # (B, 1)
    objectness = jnp.take_along_axis(outputs["objectness"], best, 1)[:, 0].astype(jnp.float32)
    logits = jnp.take_along_axis(outputs["logits"], best[..., None], 1)[:, 0]
    states = jax.nn.log_softmax(logits.astype(jnp.float32))
    parts = outputs.get("parts")
    return objectness, states, None if parts is None else parts.astype(jnp.float32)
