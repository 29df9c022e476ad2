import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stormpsr_jax.networks.detection import (
    box_iou,
    decode,
    detection_loss,
    point_targets,
    pose_loss,
    zoom,
)
from stormpsr_jax.networks.detector import anchor_points

SIZE = (48, 64)  # H, W


@jax.jit
def loss_and_gradient(out, boxes, classes):
    """((loss, metrics), gradient) of `detection_loss`; op by op, compiling would take long."""

    def loss(out):
        return detection_loss(out, boxes, classes, image_size=SIZE)

    return jax.value_and_grad(loss, has_aux=True)(out)


def random_boxes(rng, *shape):
    return np.concatenate(
        [rng.uniform(0.2, 0.8, (*shape, 2)), rng.uniform(0.1, 0.5, (*shape, 2))], -1
    )


def random_outputs(rng, batch, num_classes=4, levels=1):
    count = len(anchor_points(*SIZE, levels)[0])
    return {
        "boxes": random_boxes(rng, batch, count).astype(np.float32),
        "logits": rng.normal(size=(batch, count, num_classes)).astype(np.float32),
        "objectness": rng.normal(size=(batch, count)).astype(np.float32),
    }


def corners(box):
    return [box[0] - box[2] / 2, box[1] - box[3] / 2, box[0] + box[2] / 2, box[1] + box[3] / 2]


def plain_iou(a, b, generalised=False):
    (ax, ay, aX, aY), (bx, by, bX, bY) = corners(a), corners(b)
    inner = max(0, min(aX, bX) - max(ax, bx)) * max(0, min(aY, bY) - max(ay, by))
    union = (aX - ax) * (aY - ay) + (bX - bx) * (bY - by) - inner
    outer = (max(aX, bX) - min(ax, bx)) * (max(aY, bY) - min(ay, by))
    return inner / union - generalised * (outer - union) / outer


@pytest.mark.parametrize("generalised", [False, True])
@pytest.mark.parametrize("convert", [np.asarray, jnp.asarray])
def test_box_iou_matches_scalar_transcription(generalised, convert):
    rng = np.random.default_rng(0)
    a, b = random_boxes(rng, 50), random_boxes(rng, 50)
    expected = [plain_iou(p, q, generalised) for p, q in zip(a, b, strict=True)]
    result = box_iou(convert(a), convert(b), generalised)
    np.testing.assert_allclose(result, expected, atol=1e-4)


def test_zoom_boxes_follow_the_picture():
    rng = np.random.default_rng(9)
    images, boxes = np.zeros((40, 64, 96, 1), np.float32), np.empty((40, 4), np.float32)
    for image, box in zip(images, boxes, strict=True):
        (y, x), (h, w) = rng.integers(1, (40, 70)), rng.integers(12, 24, 2)
        image[y : y + h, x : x + w] = 1
        box[:] = (x + w / 2) / 96, (y + h / 2) / 64, w / 96, h / 64
    # Of a product as large as its box, which lies on its side.
    nothing = np.zeros(40)
    poses = np.stack([*boxes.T[:2], nothing, boxes[:, 3] / 2, boxes[:, 2] / 2, nothing], 1)
    result, moved, turned = zoom(jax.random.key(0), images, boxes, poses, scale=0.3, shift=0.2)
    assert np.abs(moved - boxes).max() > 0.2
    low, high = moved[:, :2] - moved[:, 2:] / 2, moved[:, :2] + moved[:, 2:] / 2
    uncut = ((low > 0) & (high < 1)).all(axis=1)
    assert 10 < uncut.sum() < 40
    np.testing.assert_allclose(turned[uncut, :2], moved[uncut, :2], atol=1e-5)
    np.testing.assert_allclose(2 * turned[uncut][:, [4, 3]], moved[uncut, 2:], atol=1e-5)
    assert not turned[:, [2, 5]].any()
    for image, box in zip(np.asarray(result[..., 0]), np.asarray(moved), strict=True):
        x0, y0, x1, y1 = corners(box)
        assert min(x0, y0) > -1e-6
        assert max(x1, y1) < 1 + 1e-6
        rows, columns = (np.flatnonzero((image > 0.5).any(axis)) for axis in (1, 0))
        # Half a pixel each way where the edge falls between pixels.
        if len(rows) > 1 and len(columns) > 1:
            np.testing.assert_allclose(rows[[0, -1]] + [0, 1], [y0 * 64, y1 * 64], atol=0.9)
            np.testing.assert_allclose(columns[[0, -1]] + [0, 1], [x0 * 96, x1 * 96], atol=0.9)


def test_pose_loss_turns_in_degrees_and_sizes_of_the_product():
    """By hand: half-axes of .3 and .4, a size of .5."""
    poses = np.array([[0.5, 0.5, 0.3, 0.0, 0.0, -0.4], [np.nan] * 6], np.float32)
    shifted = poses[0] + np.array([0.06, 0, 0, 0, 0, 0], np.float32)
    for found, loss, turn in (
        (poses[0], 0.0, 0.0),
        (shifted, 0.06 / 6 / 0.5, 0.0),
        (np.array([0.5, 0.5, 0.0, 0.3, 0.4, 0.0]), (2 * 0.3 + 2 * 0.4) / 6 / 0.5, 90.0),
        (np.array([0.5, 0.5, -0.3, 0.0, 0.0, 0.4]), (0.6 + 0.8) / 6 / 0.5, 180.0),
    ):
        both = jnp.asarray([found, np.full(6, 7.0)], jnp.float32)
        value, metrics = pose_loss(both[None], poses)
        np.testing.assert_allclose(value, loss, atol=1e-6)
        np.testing.assert_allclose(metrics["turn"], turn, atol=1e-3)
        gradient = jax.grad(lambda both: pose_loss(both[None], poses)[0])(both)
        assert np.isfinite(gradient).all()
        assert not gradient[1].any()
    value, metrics = pose_loss(both[None], np.full((2, 6), np.nan, np.float32))
    assert value == metrics["turn"] == 0
    # Of several estimates the mean counts, and the turn of the last.
    value, metrics = pose_loss(jnp.asarray([both, poses]), poses)
    assert (round(float(value), 3), metrics["turn"]) == (0.233, 0)


def test_point_targets_matches_scalar_transcription():
    rng = np.random.default_rng(1)
    boxes = random_boxes(rng, 30)
    result = np.asarray(point_targets(boxes, SIZE, levels=2))
    points, strides = anchor_points(*SIZE, 2)
    for box, row in zip(boxes, result, strict=True):
        x, y, w, h = box * [SIZE[1], SIZE[0], SIZE[1], SIZE[0]]
        # Eight strides of the finest level are 64 pixels.
        wanted = 8 if (w * h) ** 0.5 < 64 else 16
        for point, stride, positive in zip(points, strides, row, strict=True):
            near = abs(point[0] - x) <= max(w / 4, stride / 2) and abs(point[1] - y) <= max(
                h / 4, stride / 2
            )
            assert positive == (near and stride == wanted)


def test_detection_loss_matches_scalar_transcription():
    rng = np.random.default_rng(3)
    out = random_outputs(rng, 5)
    boxes, classes = random_boxes(rng, 5), np.array([1, 4, -1, 0, 2])
    boxes[2] = np.nan
    (loss, metrics), _ = loss_and_gradient(out, boxes, classes)
    targets = np.asarray(point_targets(boxes, SIZE))
    number = targets[classes > 0].sum()
    state = box = objectness = 0.0
    for i, label in enumerate(classes):
        weight = float(label != 0)
        positive = np.flatnonzero(targets[i]) if label > 0 else []
        for n, logit in enumerate(out["objectness"][i]):
            p = 1 / (1 + np.exp(-logit))
            objectness -= weight / number * np.log(p if n in positive else 1 - p)
        for n in positive:
            p = np.exp(out["logits"][i, n])
            state -= np.log(p[label - 1] / p.sum()) / len(positive) / 3
            box += (1 - plain_iou(out["boxes"][i, n], boxes[i], True)) / len(positive) / 3
    np.testing.assert_allclose(metrics["state"], state, rtol=1e-4)
    np.testing.assert_allclose(metrics["box"], box, rtol=1e-4)
    np.testing.assert_allclose(metrics["objectness"], objectness, rtol=1e-4)
    np.testing.assert_allclose(loss, state + objectness + 2 * box, rtol=1e-4)


def test_detection_loss_gradients_reach_only_what_is_annotated():
    rng = np.random.default_rng(4)
    out = jax.tree.map(jnp.asarray, random_outputs(rng, 5))
    boxes, classes = random_boxes(rng, 5), np.array([1, 0, -1, -1, -2])
    boxes[2:] = np.nan
    grads = loss_and_gradient(out, boxes, classes)[1]
    touched = {k: np.abs(v).reshape(5, -1).max(-1) > 0 for k, v in grads.items()}
    np.testing.assert_array_equal(touched["boxes"], [True, *4 * [False]])
    np.testing.assert_array_equal(touched["logits"], [True, *4 * [False]])
    np.testing.assert_array_equal(touched["objectness"], [True, False, True, True, False])
    assert all(np.isfinite(v).all() for v in grads.values())


@pytest.mark.parametrize("threshold", [0.1, 0.4])
def test_decode_matches_sorted_suppression(threshold):
    rng = np.random.default_rng(7)
    out = random_outputs(rng, 6)
    boxes, classes, confidences = jax.device_get(
        decode(jax.tree.map(jnp.asarray, out), 10, threshold)
    )
    for i in range(6):
        exponent = np.exp(out["logits"][i].astype(np.float64))
        states = exponent / exponent.sum(-1, keepdims=True)
        scores = states.max(-1) / (1 + np.exp(-out["objectness"][i]))
        kept = []
        for n in np.argsort(-scores):
            if all(plain_iou(out["boxes"][i, n], out["boxes"][i, m]) <= threshold for m in kept):
                kept.append(n)
        kept = kept[:10]
        np.testing.assert_array_equal(classes[i, : len(kept)], states[kept].argmax(-1) + 1)
        np.testing.assert_allclose(confidences[i, : len(kept)], scores[kept], rtol=1e-5)
        np.testing.assert_allclose(boxes[i, : len(kept)], out["boxes"][i, kept])
        assert not classes[i, len(kept) :].any()
        assert not confidences[i, len(kept) :].any()
        assert not boxes[i, len(kept) :].any()
    # The strict threshold must leave some row empty, or the padding went untested.
    assert (classes == 0).any() == (threshold == 0.1)
