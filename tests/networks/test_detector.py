import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from stormpsr_jax.networks.detection import box_iou, decode, detection_loss, pose_loss
from stormpsr_jax.networks.detector import Detector, anchor_points, crop, straighten
from stormpsr_jax.training.losses import condition_bce


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
    np.testing.assert_allclose(
        result[inside, inside, 0],
        np.tile(40 * (x + extent * at), (size, 1))[inside, inside],
        rtol=0.02,
    )
    np.testing.assert_allclose(
        result[inside, inside, 1].T,
        np.tile(40 * (y + extent * at), (size, 1))[inside, inside],
        rtol=0.02,
    )


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
    apply, _, images = build((3, height, width, 3), levels)
    out = apply(10 * images)
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
    apply, params, images = build((3, 48, 48, 3))
    model = Detector(num_classes=4, width=8, dtype=jnp.bfloat16)
    own = jax.eval_shape(model.init, jax.random.key(0), images)["params"]
    assert {x.dtype for x in jax.tree.leaves(own)} == {jnp.dtype("float32")}
    full, half = apply(images), jax.jit(model.apply)({"params": params}, images)
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
    params = model.init(jax.random.key(0), images)["params"]
    by = np.array([0.2, -0.1, 0.3, 0.1, -0.2, 0.4], np.float32)
    params["correction"]["Dense_1"] = {"kernel": jnp.zeros((128, 6)), "bias": jnp.asarray(by)}
    first, second, third = model.apply({"params": params}, images)["pose"]
    for before, after in ((first, second), (second, third)):
        for (cx, cy, xx, xy, yx, yy), moved in zip(before, after, strict=True):
            for i, start in enumerate(((cx, cy), (xx, xy), (yx, yy))):
                a, b = by[2 * i : 2 * i + 2]
                want = (start[0] + a * xx + b * yx, start[1] + a * xy + b * yy)
                np.testing.assert_allclose(moved[2 * i : 2 * i + 2], want, atol=1e-6)
