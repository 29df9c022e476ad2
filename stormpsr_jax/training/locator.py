"""Trains what finds the product in whole pictures, so that networks may look at it closely."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from stormpsr_jax.base.progress import Bar
from stormpsr_jax.data import augment
from stormpsr_jax.networks import detection
from stormpsr_jax.networks.detector import Detector

SIDE = 160  # pixels of the longer side of what it looks at: of a tenth of that, 16 are the product
STEPS, BATCH, LEARNING_RATE = 800, 32, 3e-3
MEAN, STD = (0.5,) * 3, (0.25,) * 3
# Pictures are scaled by exp(± this), and moved by up to this share of them.
ZOOM, SHIFT = 0.3, 0.25
LIGHT = 0.5  # see `augment.augment`


def network() -> Detector:
    """What is trained; it computes rows one by one on a CPU (`serving.functions`)."""
    return Detector(num_classes=0, width=16, depth=1)


def size_for(height: int, width: int) -> tuple[int, int]:
    """(H, W) of what it looks at, for pictures of a shape: multiples of 8."""
    scale = SIDE / max(height, width)
    rows, columns = (max(8, round(side * scale / 8) * 8) for side in (height, width))
    return rows, columns


def train(pictures: np.ndarray, boxes: np.ndarray, seed: int = 0) -> Any:
    """The parameters of `network`, of uint8 (N, H, W, 3) and boxes (N, 4) cx, cy, w, h in 0…1."""
    model = network()
    shape = pictures.shape[1:3]
    keys = jax.random.split(jax.random.key(seed))
    params = model.init(keys[0], jnp.zeros((1, *shape, 3)))["params"]
    schedule = optax.cosine_onecycle_schedule(STEPS, LEARNING_RATE)
    tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule, weight_decay=0.05))
    state = tx.init(params)

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(params: Any, state: Any, images: jax.Array, boxes: jax.Array, key: jax.Array) -> Any:
        look, place = jax.random.split(key)
        images = augment.augment(look, images, saturation=0.3, blur_sigma=1.0, light=LIGHT)
        nowhere = jnp.full((len(boxes), 6), jnp.nan)
        images, boxes, _ = detection.zoom(place, images, boxes, nowhere, ZOOM, SHIFT)

        def loss_fn(params: Any) -> jax.Array:
            outputs: Any = model.apply({"params": params}, augment.normalise(images, MEAN, STD))
            return detection.location_loss(outputs, boxes, shape)

        loss, gradients = jax.value_and_grad(loss_fn)(params)
        updates, state = tx.update(gradients, state, params)
        return optax.apply_updates(params, updates), state, loss

    rng = np.random.default_rng(seed)
    with Bar(total=STEPS, desc="locator", unit="step") as bar:
        for i in range(STEPS):
            rows = rng.integers(len(pictures), size=BATCH)
            key = jax.random.fold_in(keys[1], i)
            params, state, loss = step(params, state, pictures[rows], boxes[rows], key)
            if i % 50 == 49:
                bar.set_postfix(loss=f"{float(loss):.3g}")
            bar.update()
    return jax.device_get(params)
