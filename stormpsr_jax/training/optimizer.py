"""Optimisers and learning-rate schedules, built from a stage's `optimizer` section."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from stormpsr_jax.configs.default import Optimizer

MOMENTUM = 0.9  # of sgd (P and C)


def make_schedule(config: Optimizer, num_steps: int) -> optax.Schedule:
    """Returns step -> learning rate, for the update that follows `step` earlier ones.

    The rate rises linearly over `warmup_steps` updates, the last of which has the peak rate `lr`,
    and then falls along a cosine to 0 at `num_steps`.
    """
    lr, warmup = config.lr, config.warmup_steps

    def schedule(step: jax.typing.ArrayLike) -> jax.Array:
        rise = jnp.minimum((step + 1) / max(warmup, 1), 1.0)
        after = jnp.maximum(step - warmup, 0)
        progress = jnp.minimum(after / max(num_steps - warmup, 1), 1.0)
        return lr * rise * 0.5 * (1 + jnp.cos(jnp.pi * progress))

    return schedule


def decay_mask(params: Any) -> Any:
    """Returns a tree of bools: True for kernels.

    Biases, normalisation scales, positional embeddings and [CLS] are not kernels; pulling them
    towards zero would regularise nothing.
    """
    return jax.tree.map_with_path(lambda path, _: path[-1].key == "kernel", params)


def lr_factors(params: Any, lr_scale: Mapping[str, float]) -> Any:
    """A tree of learning-rate factors of parameters, nested dicts.

    `lr_scale` is {'/'-separated path prefix: factor}; the longest matching prefix decides, and a
    parameter that none matches has factor 1.
    """

    def factor(path: tuple[jax.tree_util.DictKey, ...], _: Any) -> float:
        names = [key.key for key in path]
        prefixes = ["/".join(names[:end]) for end in range(len(names), 0, -1)]
        return float(next((lr_scale[p] for p in prefixes if p in lr_scale), 1))

    return jax.tree.map_with_path(factor, params)


def layer_lr_scale(
    prefix: str, layers: Sequence[str], scale: float, decay: float
) -> dict[str, float]:
    """Returns learning-rate factors of a backbone that fall from its last layer to its pixels.

    Layer-wise decay in (0, 1] (Clark et al. 2020; Bao et al. 2022): the last of its layers, the
    norm, has `scale`, each layer below once more decay, and what is in front of the first layer
    scale · decay^(number of layers). `prefix` is the path of the backbone's parameters; `layers`
    are of its module.
    """
    factors = {prefix: scale * decay ** len(layers)}
    for below, names in enumerate(reversed(layers)):
        factors |= {f"{prefix}/{name}": scale * decay**below for name in names.split()}
    return factors


def optimisation(config: Any, lr_scale: Mapping[str, float] | None = None) -> dict:
    """Returns the fields `optimizer` and `schedule` of a `Definition`, by a stage's section."""
    fields, steps = config.optimizer, config.steps
    return {
        "optimizer": lambda params: make_optimizer(fields, steps, params, lr_scale),
        "schedule": make_schedule(fields, steps),
    }


def make_optimizer(
    config: Optimizer, num_steps: int, params: Any, lr_scale: Mapping[str, float] | None = None
) -> optax.GradientTransformation:
    """Returns clipping, momentum or Adam, weight decay and the schedule as one transformation.

    Weight decay is decoupled for adamw and L2 for sgd, and acts on kernels alone. `params` may be
    their shapes. `lr_scale` is path prefix -> factor on the learning rate; 0 freezes: no optimiser
    state, no part in the gradient norm, no weight decay.
    """
    factors, clip = lr_factors(params, lr_scale or {}), config.clip_norm
    decay = optax.add_decayed_weights(config.weight_decay, decay_mask)
    adam = config.name == "adamw"
    trained = optax.chain(
        # The loop logs this; measured here, a frozen part needs no backward pass.
        optax.snapshot("grad_norm", optax.global_norm),
        optax.clip_by_global_norm(clip) if clip else optax.identity(),
        *([optax.scale_by_adam(), decay] if adam else [decay, optax.trace(MOMENTUM)]),
        optax.scale_by_learning_rate(make_schedule(config, num_steps)),
    )
    return optax.chain(
        optax.partition(
            {"trained": trained, "frozen": optax.set_to_zero()},
            jax.tree.map(lambda factor: "trained" if factor else "frozen", factors),
        ),
        optax.stateless(lambda updates, _: jax.tree.map(jnp.multiply, updates, factors)),
    )
