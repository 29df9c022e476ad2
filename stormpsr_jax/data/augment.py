"""Augmentation of training pictures, on the device: arrays in, arrays out, one key a picture.

No flips: the left and the right part of an assembly differ.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


def normalise(images: jax.Array, mean: Sequence[float], std: Sequence[float]) -> jax.Array:
    """Pictures uint8 (…, H, W, 3) → float32, (x / 255 − mean) / std per channel."""
    return (images.astype(jnp.float32) / 255.0 - jnp.asarray(mean)) / jnp.asarray(std)


def augment(
    key: jax.Array,
    images: jax.Array,
    *,
    brightness: float = 0.0,
    contrast: float = 0.0,
    saturation: float = 0.0,
    blur_sigma: float = 0.0,
    shift: float = 0.0,
    light: float = 0.0,
    occluders: float | jax.Array = 0.0,
) -> jax.Array:
    """Augments uint8 (B, H, W, 3) or clips (B, T, H, W, 3), one draw each → float32, 0 … 255.

    Args:
        brightness: factor drawn from 1 ± this; `contrast` and `saturation` likewise.
        blur_sigma: Gaussian blur with 5 taps, its σ drawn from .01 … this, in pixels.
        shift: translation drawn from ± this share of the picture, edges repeated.
        light: another lamp and camera: exposure and gamma by exp(± this), each colour by exp(± half
            of it).
        occluders: probability, one for all or one a picture (B,), of painting limbs over the
            picture: up to three capsules of one colour from the border, as hands and arms are.
    """
    painted = not isinstance(occluders, float) or occluders > 0
    occluders = jnp.broadcast_to(jnp.asarray(occluders, jnp.float32), images.shape[:1])

    def one(key: jax.Array, image: jax.Array, probability: jax.Array) -> jax.Array:
        clip = image.astype(jnp.float32) if image.ndim == 4 else image.astype(jnp.float32)[None]
        keys = jax.random.split(key, 6)
        if painted:
            clip = _limbs(keys[5], clip, probability)
        if shift:
            clip = _shift(keys[0], clip, shift)
        if light:
            clip = _relit(jax.random.fold_in(key, 6), clip, light)
        if brightness:
            clip = clip * _factor(keys[1], brightness)
        if contrast:
            mean = (clip @ jnp.asarray(_LUMA)).mean()
            clip = mean + (clip - mean) * _factor(keys[2], contrast)
        if saturation:
            grey = (clip @ jnp.asarray(_LUMA))[..., None]
            clip = grey + (clip - grey) * _factor(keys[3], saturation)
        if blur_sigma:
            clip = _blur(clip, jax.random.uniform(keys[4], (), minval=0.01, maxval=blur_sigma))
        return jnp.clip(clip, 0, 255).reshape(image.shape)

    return jax.vmap(one)(jax.random.split(key, images.shape[0]), images, occluders)


def _factor(key: jax.Array, strength: float) -> jax.Array:
    return jax.random.uniform(key, (), minval=1 - strength, maxval=1 + strength)


def _relit(key: jax.Array, clip: jax.Array, strength: float) -> jax.Array:
    draws = jnp.exp(strength * jax.random.uniform(key, (5,), minval=-1, maxval=1))
    gamma, gain = draws[0], draws[1] * jnp.sqrt(draws[2:])
    return jnp.clip(255 * gain * (jnp.maximum(clip, 1) / 255) ** gamma, 0, 255)


def _shift(key: jax.Array, clip: jax.Array, share: float) -> jax.Array:
    height, width = clip.shape[1:3]
    dy, dx = jax.random.uniform(key, (2,), minval=-share, maxval=share)
    rows = jnp.clip(jnp.arange(height) + jnp.round(dy * height).astype(int), 0, height - 1)
    columns = jnp.clip(jnp.arange(width) + jnp.round(dx * width).astype(int), 0, width - 1)
    return clip[:, rows][:, :, columns]


def _blur(clip: jax.Array, sigma: jax.Array) -> jax.Array:
    """Separable Gaussian blur as five shifted sums, which XLA fuses into one loop an axis."""
    taps = jnp.exp(-0.5 * (jnp.arange(-2, 3) / sigma) ** 2)
    taps = taps / taps.sum()
    for axis in (1, 2):
        size = clip.shape[axis]
        padding = [(0, 0)] * clip.ndim
        padding[axis] = (2, 2)
        padded = jnp.pad(clip, padding, mode="edge")
        shifted = (jax.lax.slice_in_dim(padded, i, i + size, axis=axis) for i in range(5))
        clip = functools.reduce(jnp.add, (taps[i] * x for i, x in enumerate(shifted)))
    return clip


def _limbs(key: jax.Array, clip: jax.Array, probability: jax.Array) -> jax.Array:
    """Paints up to three capsules from the border inwards, the same ones on every frame."""
    height, width = clip.shape[1:3]
    keys = jax.random.split(key, 6)
    y = ((jnp.arange(height) + 0.5) / height)[:, None, None]
    x = ((jnp.arange(width) + 0.5) / width)[:, None]
    # From a point on a circle around the picture to a point near its middle.
    angle = jax.random.uniform(keys[0], (3,), maxval=2 * jnp.pi)
    start = 0.5 + 0.75 * jnp.stack([jnp.sin(angle), jnp.cos(angle)], -1)
    end = jax.random.uniform(keys[1], (3, 2), minval=0.15, maxval=0.85)
    radius = jax.random.uniform(keys[2], (3,), minval=0.04, maxval=0.14)
    present = jax.random.uniform(keys[3], (3,)) < 0.67
    # One number at a time: arrays of points (H, W, 3, 2) would take a CPU longer than all the rest.
    (y0, x0), (dy, dx) = start.T, (end - start).T
    share = jnp.clip(((y - y0) * dy + (x - x0) * dx) / (dy**2 + dx**2), 0, 1)  # (H, W, 3)
    distance = jnp.sqrt((y - y0 - share * dy) ** 2 + (x - x0 - share * dx) ** 2)
    inside = ((distance < radius) & present).any(-1)
    shade = 1 - 0.5 * jnp.min(jnp.where(present, distance / radius, 1.0), -1, initial=1.0)
    colour = jax.random.uniform(keys[4], (3,), minval=40.0, maxval=230.0)
    painted = jnp.where(inside[..., None], shade[..., None] * colour, clip)
    return jnp.where(jax.random.uniform(keys[5], ()) < probability, painted, clip)
