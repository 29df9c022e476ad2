"""The networks that a model folder may hold, as plain values and back.

Only these classes are ever built, and every field has bounds, so that what a file says can neither
name other code nor ask for a network beyond all measure. Fields that only matter in training
(dropout, what is recomputed, microbatches, the heads behind the frame embedding) are left out: a
network that was described and built again computes the same.

Dimension letters: B batch, T frames of a clip, H W image, D features, K components.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import traverse_util

from stormpsr_jax.base.files import field, number, shorten
from stormpsr_jax.models import temporal_baselines, vit
from stormpsr_jax.models.detector import Detector
from stormpsr_jax.models.spatial import SpatialEncoder
from stormpsr_jax.models.temporal import TemporalTransformer
from stormpsr_jax.models.temporal_baselines import TemporalLSTM, TemporalMLP, TemporalTCN

ROLES = {
    "encoder": (SpatialEncoder,),
    "temporal": (TemporalTransformer, TemporalMLP, TemporalLSTM, TemporalTCN),
    "detector": (Detector,),
}
MAX_COMPONENTS = 10_000
MAX_CLIP = 4_096  # T
_DTYPES = ("float32", "bfloat16")
_WIDTH = (1, 16_384)
_HIDDEN = (1, 65_536)
_HEADS = (1, 256)
# By class, the fields by name: the lowest and highest number, or the values to choose from.
_OUTPUTS = (1, 3)
_BASELINE = {
    "num_components": (1, MAX_COMPONENTS),
    "outputs": _OUTPUTS,
    "seen": (0, MAX_CLIP),
    "depth": (1, 12),
    "width": _WIDTH,
}
_FIELDS: dict[type[nn.Module], dict[str, tuple]] = {
    SpatialEncoder: {
        "patch_size": (1, 256),
        "width": _WIDTH,
        "depth": (1, 64),
        "num_heads": _HEADS,
        "mlp_dim": _HIDDEN,
        "stem": _WIDTH,  # of each of its numbers
        "hidden": _WIDTH,
        "mlp": vit.MLPS,
        "positions": vit.POSITIONS,
        "bias": vit.BIASES,
        "layer_scale": (False, True),
        "registers": (0, 64),
        "pre_norm": (False, True),
        "norm_eps": (0.0, 1e-2),
    },
    TemporalTransformer: {
        "num_components": (1, MAX_COMPONENTS),
        "outputs": _OUTPUTS,
        "seen": (0, MAX_CLIP),
        "num_frames": (1, MAX_CLIP),
        "depth": (1, 64),
        "num_heads": _HEADS,
        "dim_head": (1, 4_096),
        "mlp_dim": _HIDDEN,
        "head": ("linear", "mlp"),
    },
    TemporalMLP: _BASELINE | {"activation": temporal_baselines.ACTIVATIONS},
    TemporalLSTM: _BASELINE,
    TemporalTCN: _BASELINE,
    Detector: {
        "num_classes": (2, 100_001),
        "width": (1, 1_024),
        "depth": (0, 16),
        "levels": (1, 6),
        "grid": (1, 128),
        "num_components": (0, MAX_COMPONENTS),
        "upright": (False, True),
    },
}
# By role, fields that came later: a file without one is of a network with its default.
_LATER = {
    "encoder": (*("mlp", "positions", "bias", "layer_scale", "registers", "pre_norm", "norm_eps"),),
    "temporal": ("outputs", "seen", "activation"),
    "detector": ("num_components", "upright"),
}
_MAX_STEM = 8


def describe(module: nn.Module) -> dict[str, Any]:
    """Returns a network's architecture and fields as plain values, as `build` takes them.

    Raises:
        ValueError: it is none of ROLES.
    """
    if type(module) not in _FIELDS:
        known = ", ".join(kind.__name__ for kind in _FIELDS)
        raise ValueError(f"a model cannot hold a {type(module).__name__}; known are {known}")
    described: dict[str, Any] = {"architecture": type(module).__name__}
    for name in _FIELDS[type(module)]:
        value = getattr(module, name)
        if name == "mlp_dim" and value is None:
            value = 4 * module.width
        described[name] = list(value) if name == "stem" else value
    return described | {"dtype": jnp.dtype(module.dtype).name}


def build(role: str, data: Any, place: str) -> nn.Module:
    """Builds the network that `describe` described.

    Args:
        role: a key of ROLES.
        data: plain values, from anywhere.
        place: the file and where in it they stand, for messages.

    Raises:
        ValueError: no architecture of that role, an unknown or missing field, or one out of bounds.
    """
    architecture = field(data, "architecture", str, place)
    kinds = {kind.__name__: kind for kind in ROLES[role]}
    if architecture not in kinds:
        raise ValueError(
            f"{place}: architecture: {shorten(architecture)} is not one of {', '.join(kinds)}"
        )
    kind = kinds[architecture]
    bounds = _FIELDS[kind] | {"dtype": _DTYPES}
    for name in data:
        if name != "architecture" and name not in bounds:
            raise ValueError(
                f"{place}: {shorten(name)}: unknown key; known are {', '.join(bounds)}"
            )
    values = {
        name: _value(data, name, allowed, place)
        for name, allowed in bounds.items()
        if name in data or name not in _LATER[role]
    }
    return kind(**values | {"dtype": jnp.dtype(values["dtype"])})


def _value(data: Mapping, name: str, allowed: tuple, place: str) -> Any:
    """One field of a network, checked."""
    if isinstance(allowed[0], str):
        value = field(data, name, str, place)
        if value not in allowed:
            raise ValueError(
                f"{place}: {name}: {shorten(value)} is not one of {', '.join(allowed)}"
            )
        return value
    if isinstance(allowed[0], bool):
        return field(data, name, bool, place)
    low, high = allowed
    if isinstance(low, float):
        return number(field(data, name, (int, float), place), f"{place}: {name}", low, high)
    if name == "stem":
        stem = field(data, name, list, place)
        if len(stem) > _MAX_STEM or not all(type(n) is int and low <= n <= high for n in stem):
            raise ValueError(
                f"{place}: stem: {shorten(stem)} is not a list of up to {_MAX_STEM} whole numbers "
                f"in {low}…{high}"
            )
        return tuple(stem)
    value = field(data, name, int, place)
    if not low <= value <= high:
        raise ValueError(f"{place}: {name}: {shorten(value)} is not in {low}…{high}")
    return value


def inference(module: nn.Module) -> nn.Module:
    """The same network without what only matters in training.

    So the same program is compiled in a training run and after `build`, and both round alike.
    """
    described = describe(module)
    role = next(role for role, kinds in ROLES.items() if type(module) in kinds)
    return build(role, described, described["architecture"])


def embedding_width(module: nn.Module, params: Mapping, num_frames: int) -> int:
    """D, the width of the embeddings that a temporal network reads, from its parameters.

    Args:
        module: of ROLES["temporal"].
        params: its parameters.
        num_frames: T.
    """
    if isinstance(module, TemporalTransformer):
        return params["cls_token"].shape[-1]
    if isinstance(module, TemporalMLP):
        return params["dense_0"]["kernel"].shape[0] // num_frames
    first = params["lstm_0"]["ii"] if isinstance(module, TemporalLSTM) else params["stem"]
    return first["kernel"].shape[0]


def apply(module: nn.Module, variables: Mapping, x: jax.Array) -> Any:
    """What recognition wants of a network, in evaluation mode.

    Returns:
        Of an encoder embeddings (B, D) of pictures (B, H, W, 3), of a temporal network logits (B,
        K) of embeddings (B, T, D), of a detector its outputs on pictures.
    """
    if isinstance(module, SpatialEncoder):
        return module.apply(variables, x, method="embed")
    return module.apply(variables, x, train=False)


@functools.lru_cache(maxsize=64)
def variable_shapes(
    module: nn.Module, input_shape: tuple[int, ...]
) -> dict[str, jax.ShapeDtypeStruct]:
    """The arrays that `apply` needs, by names such as `params/head/kernel`; allocates nothing.

    Args:
        module: a network.
        input_shape: of a batch of its input.

    Raises:
        ValueError: the fields of the network, or the input, do not fit together.
    """

    def init(x):
        method = "embed" if isinstance(module, SpatialEncoder) else None
        return module.init(jax.random.key(0), x, method=method)

    try:
        shapes = jax.eval_shape(init, jax.ShapeDtypeStruct(input_shape, jnp.float32))
    except Exception as error:  # of fields that contradict each other, nearly anything
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(f"the fields do not fit together ({reason})") from error
    return traverse_util.flatten_dict(shapes, sep="/")


class Cost(NamedTuple):
    """Of `apply` on a batch.

    Attributes:
        largest: bytes of the largest array.
        operations: multiplications and additions of matrix products and convolutions.
    """

    largest: int
    operations: int


@functools.lru_cache(maxsize=64)
def cost(module: nn.Module, input_shape: tuple[int, ...]) -> Cost:
    """What `apply` on such a batch takes, from its trace; allocates nothing."""

    def function(variables, x):
        return apply(module, traverse_util.unflatten_dict(variables, sep="/"), x)

    x = jax.ShapeDtypeStruct(input_shape, jnp.float32)
    traced = jax.make_jaxpr(function)(dict(variable_shapes(module, input_shape)), x)
    return _cost(traced.jaxpr)


def _cost(jaxpr: Any) -> Cost:
    largest = operations = 0
    for equation in jaxpr.eqns:
        sizes = [out.aval.size * out.aval.dtype.itemsize for out in equation.outvars]
        operations += _operations(equation)
        for value in jax.tree.leaves(list(equation.params.values()), is_leaf=_is_jaxpr):
            if _is_jaxpr(value):
                inside = _cost(getattr(value, "jaxpr", value))
                sizes.append(inside.largest)
                # A loop over the steps of a sequence says how many there are.
                operations += inside.operations * equation.params.get("length", 1)
        largest = max(largest, *sizes, 0)
    return Cost(largest, operations)


def _operations(equation: Any) -> int:
    """Two for each product that is added up."""
    name, params = equation.primitive.name, equation.params
    if name == "dot_general":
        summed = [equation.invars[0].aval.shape[axis] for axis in params["dimension_numbers"][0][0]]
        return 2 * equation.outvars[0].aval.size * math.prod(summed)
    if name == "conv_general_dilated":
        kernel = equation.invars[1].aval
        outputs = kernel.shape[params["dimension_numbers"].rhs_spec[0]]
        return 2 * equation.outvars[0].aval.size * kernel.size // outputs
    return 0


def _is_jaxpr(value: Any) -> bool:
    return hasattr(value, "jaxpr") or hasattr(value, "eqns")
