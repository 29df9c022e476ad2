import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from stormpsr_jax.networks.detection import (
    box_iou,
    decode,
    detection_loss,
    point_targets,
    pose_loss,
    zoom,
)
from stormpsr_jax.networks.detector import Detector, anchor_points, crop, straighten
from stormpsr_jax.training.losses import condition_bce
from tests.support.drawn import apply, random_variables


@functools.cache  # compiling is what takes time
def build(shape, levels=1):
    model = Detector(num_classes=4, width=8, levels=levels)
    images = jax.random.normal(jax.random.key(1), shape)
    params = jax.jit(model.init)(jax.random.key(0), images)["params"]
    return jax.jit(lambda x: model.apply({"params": params}, x)), params, images


@pytest.mark.parametrize(("extent", "size"), [(0.3, 12), (0.6, 6), (0.8, 3)])
def test_crop_keeps_linear_ramps(extent, size):
    # A ramp sampled at any scale is the same ramp, away from the border.
    ramp = jnp.arange(40.0) + 0.5
    features = jnp.stack(jnp.meshgrid(ramp, ramp), -1)[None]  # x, y
    x, y = 0.48, 0.53
    result = crop(features, jnp.array([[x, y, extent / 1.2, extent / 1.2]]), size, margin=1.2)[0]
    at = (np.arange(size) + 0.5) / size - 0.5
    inside = slice(1, -1) if extent == 0.8 else slice(None)
    expected = 40 * np.stack(np.meshgrid(x + extent * at, y + extent * at), -1)
    np.testing.assert_allclose(result[inside, inside], expected[inside, inside], rtol=0.02)


def test_straighten_any_pose_of_a_linear_ramp():
    """A ramp is one whichever way it is sampled; beyond the border stands what is on it."""
    rng = np.random.default_rng(0)
    height, width, size = 30, 40, 6
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    images = np.tile(np.stack([x, y], -1).astype(np.float32), (8, 1, 1, 1))
    poses = np.concatenate([rng.uniform(0.3, 0.7, (8, 2)), rng.normal(0, 0.2, (8, 4))], 1)
    result = straighten(images, poses.astype(np.float32), size)
    for found, pose in zip(np.asarray(result), poses, strict=True):
        for row in range(size):
            for column in range(size):
                right = 2 * (column + 0.5) / size - 1
                up = 1 - 2 * (row + 0.5) / size
                at = (pose[:2] + right * pose[2:4] + up * pose[4:]) * (width, height)
                at = np.clip(at, 0.5, (width - 0.5, height - 0.5))
                np.testing.assert_allclose(found[row, column], at, atol=1e-3)


def test_detector_refuses_sides_that_are_no_multiples_of_4():
    with pytest.raises(ValueError, match="multiples of 4, not 48 x 50"):
        Detector(num_classes=4).init(jax.random.key(0), np.zeros((1, 48, 50, 3)))


@pytest.mark.parametrize(("height", "width", "levels"), [(48, 48, 1), (44, 72, 3)])
def test_detector_one_box_around_each_anchor_point(height, width, levels):
    run, _, images = build((3, height, width, 3), levels)
    out = run(10 * images)
    points, _ = anchor_points(height, width, levels)
    assert {k: v.shape for k, v in out.items()} == {
        "boxes": (3, len(points), 4),
        "logits": (3, len(points), 4),
        "objectness": (3, len(points)),
    }
    assert all(np.isfinite(v).all() for v in out.values())
    off = np.abs(points / np.array([width, height]) - out["boxes"][..., :2])
    assert (off < np.asarray(out["boxes"][..., 2:]) / 2).all()


def test_detector_bfloat16_keeps_float32_parameters_and_outputs():
    run, params, images = build((3, 48, 48, 3))
    model = Detector(num_classes=4, width=8, dtype=jnp.bfloat16)
    own = jax.eval_shape(model.init, jax.random.key(0), images)["params"]
    assert {x.dtype for x in jax.tree.leaves(own)} == {jnp.dtype("float32")}
    full, half = run(images), apply(model, {"params": params}, images)
    for name in full:
        assert half[name].dtype == jnp.float32
        np.testing.assert_allclose(half[name], full[name], atol=0.1)
        assert not np.array_equal(half[name], full[name])


def fitted(model, draw, loss, steps):
    """Parameters after so many steps of Adam; `loss` takes the outputs and what `draw` returns."""
    params = jax.jit(model.init)(jax.random.key(0), np.zeros((1, 48, 48, 3)))["params"]
    optimizer = optax.adam(optax.cosine_decay_schedule(4e-3, steps))

    @jax.jit
    def step(params, state, images, *labels):
        def of_outputs(params):
            return loss(model.apply({"params": params}, images, train=True), *labels)

        updates, state = optimizer.update(jax.grad(of_outputs)(params), state)
        return optax.apply_updates(params, updates), state

    state = optimizer.init(params)
    for _ in range(steps):
        params, state = step(params, state, *draw())
    return params


def lying(rng, count):
    """Bright bars with a red head, any way round; a blue mark sits on their left or right side."""
    images = rng.normal(0, 0.1, (count, 48, 48, 3)).astype(np.float32)
    poses = np.empty((count, 6), np.float32)
    states = rng.choice((-1, 1), (count, 1)).astype(np.int8)
    y, x = np.mgrid[:48, :48] + 0.5
    for image, pose, (state,) in zip(images, poses, states, strict=True):
        angle, (cx, cy) = rng.uniform(-np.pi, np.pi), rng.uniform(20, 28, 2)
        c, s = np.cos(angle), np.sin(angle)
        along, across = c * (x - cx) - s * (y - cy), -s * (x - cx) - c * (y - cy)
        body = (np.abs(along) < 14) & (np.abs(across) < 8)
        image[body] = [1.5, 1.5, 0]
        image[body & (along > 8)] = [1.5, -1, -1]
        image[body & (np.abs(along) < 5) & (across * state > 2)] = [-1, -1, 2]
        pose[:] = np.array([cx, cy, 14 * c, -14 * s, -8 * s, -8 * c]) / 48
    ends = np.abs(poses[:, 2:4]) + np.abs(poses[:, 4:])
    return images, np.concatenate([poses[:, :2], 2 * ends], 1), poses, states


@pytest.mark.usefixtures("system")  # costly
def test_detector_upright_learns_place_and_state_and_how_the_product_lies_and_reads_it_so():
    rng = np.random.default_rng(0)
    model = Detector(num_classes=3, width=8, num_components=1, upright=True, corrections=2)

    def draw(empty=6):
        images, boxes, poses, states = lying(rng, 32)
        images[:empty] = rng.normal(0, 0.1, images[:empty].shape)
        boxes[:empty] = poses[:empty] = np.nan
        states[:empty] = 0
        return images, boxes, poses, states

    def loss(out, boxes, poses, states):
        classes = jnp.array([2, -1, 1])[states[:, 0] + 1]
        found, _ = detection_loss(out, boxes, classes, image_size=(48, 48))
        found += 5 * pose_loss(out["pose"], poses)[0]
        return found + condition_bce(out["parts"], states)[0]

    params = fitted(model, draw, loss, steps=150)
    images, boxes, poses, states = lying(rng, 128)
    out = jax.jit(model.apply)({"params": params}, images)
    found, classes, confidences = jax.device_get(jax.jit(decode)(out))
    assert (box_iou(found[:, 0], boxes) > 0.5).mean() > 0.9
    assert ((classes == 1) == (states == 1)).mean() > 0.9
    assert (confidences > 0.5).mean() > 0.9
    empty = rng.normal(0, 0.1, images.shape).astype(np.float32)
    assert (decode(jax.jit(model.apply)({"params": params}, empty))[2] < 0.5).mean() > 0.9
    assert pose_loss(out["pose"], poses)[1]["turn"] < 10
    assert ((out["parts"][:, 1:] > 0) == (states == 1)).mean() > 0.9
    # What tells right from wrong is where the first head says that the product lies.
    turned = dict(params, pose=jax.tree.map(lambda x: -x, params["pose"]))
    out = jax.jit(model.clone(corrections=0).apply)({"params": turned}, images)
    assert ((out["parts"][:, 1:] > 0) == (states == 1)).mean() < 0.7


def test_corrections_are_in_units_of_the_axes_of_the_pose_before():
    model = Detector(num_classes=3, width=8, upright=True, corrections=2)
    images = np.random.default_rng(0).normal(size=(2, 48, 48, 3)).astype(np.float32)
    params = random_variables(model, images)["params"]
    by = np.array([0.2, -0.1, 0.3, 0.1, -0.2, 0.4], np.float32)
    params["correction"]["Dense_1"] = {"kernel": jnp.zeros((128, 6)), "bias": jnp.asarray(by)}
    first, second, third = apply(model, {"params": params}, images)["pose"]
    for before, after in ((first, second), (second, third)):
        for (cx, cy, xx, xy, yx, yy), moved in zip(before, after, strict=True):
            for i, start in enumerate(((cx, cy), (xx, xy), (yx, yy))):
                a, b = by[2 * i : 2 * i + 2]
                want = (start[0] + a * xx + b * yx, start[1] + a * xy + b * yy)
                np.testing.assert_allclose(moved[2 * i : 2 * i + 2], want, atol=1e-6)


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
