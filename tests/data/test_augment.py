import jax
import jax.numpy as jnp
import numpy as np
from scipy import ndimage

from stormpsr_jax.data.augment import augment


def images(shape=(4, 24, 24, 3), seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def test_augment_saturation_keeps_luma_and_contrast_keeps_mean_luma():
    x = images((8, 16, 16, 3)) // 2 + 64  # away from the clipping at 0 and 255
    luma = np.array([0.299, 0.587, 0.114])
    saturated = np.asarray(augment(jax.random.key(0), jnp.asarray(x), saturation=0.2))
    np.testing.assert_allclose(saturated @ luma, x @ luma, atol=0.05)
    contrasted = np.asarray(augment(jax.random.key(0), jnp.asarray(x), contrast=0.2))
    np.testing.assert_allclose((contrasted @ luma).mean((1, 2)), (x @ luma).mean((1, 2)), atol=0.05)
    assert np.abs(contrasted - x).max() > 1


def test_augment_blur_matches_scipy():
    """With one σ possible, the five-tap blur is scipy's Gaussian of the same radius."""
    x = images((1, 24, 24, 3))
    blurred = np.asarray(augment(jax.random.key(0), jnp.asarray(x), blur_sigma=0.0101))
    np.testing.assert_allclose(blurred, x, atol=1e-3)
    from stormpsr_jax.data.augment import _blur

    clip = jnp.asarray(x, jnp.float32)
    expected = ndimage.gaussian_filter(
        x[0].astype(np.float64), (1.3, 1.3, 0), mode="nearest", radius=(2, 2, 0)
    )
    np.testing.assert_allclose(_blur(clip, jnp.float32(1.3))[0], expected, atol=1e-2)


def test_augment_a_clip_gets_one_draw_for_all_its_frames():
    frame = images((1, 24, 24, 3))
    clip = jnp.asarray(np.repeat(frame[:, None], 5, axis=1))  # (1, 5, H, W, 3)
    out = np.asarray(augment(jax.random.key(4), clip, brightness=0.3, shift=0.2, occluders=1.0))
    for t in range(1, 5):
        np.testing.assert_array_equal(out[0, t], out[0, 0])


def test_augment_shift_moves_by_at_most_its_share():
    x = np.zeros((32, 20, 20, 3), np.uint8)
    x[:, 10, 10] = 255
    out = np.asarray(augment(jax.random.key(0), jnp.asarray(x), shift=0.2))[..., 0]
    places = np.array([np.argwhere(picture == 255)[0] for picture in out])
    assert np.abs(places - 10).max() == 4
    assert len(np.unique(places, axis=0)) > 10


def test_augment_limbs_cover_part_of_a_picture_with_the_probability_asked_for():
    x = jnp.full((200, 16, 16, 3), 255, jnp.uint8)
    changed = np.asarray(augment(jax.random.key(0), x, occluders=0.5) != 255).any(-1)
    covered = changed.mean((1, 2))
    assert 0.3 < (covered > 0).mean() < 0.6  # a limb may also stay outside
    assert covered.max() < 0.9
    some = jnp.asarray([0.0, 1.0] * 100)
    changed = np.asarray(augment(jax.random.key(0), x, occluders=some) != 255).any((1, 2, 3))
    assert not changed[::2].any()
    assert changed[1::2].mean() > 0.6
