"""The networks that a model folder may hold, as plain values and back.

Only these classes are ever built, and every field has bounds, so that what a file says can neither
name other code nor ask for a network beyond all measure. Fields that only matter in training
(dropout, what is recomputed, the heads behind the frame embedding) are left out: a network that was
described and built again computes the same. What is held, with its bounds, stands in the modules
themselves (`stored.py`).

Dimension letters: B batch, T frames of a clip, H W image, D features, K components.
"""

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import msgspec
from flax import traverse_util

from stormpsr_jax.base.files import field, fit, shorten
from stormpsr_jax.networks import backbones
from stormpsr_jax.networks.detector import Detector
from stormpsr_jax.networks.spatial import SpatialEncoder
from stormpsr_jax.networks.stored import later_defaults, stored_types, training_only
from stormpsr_jax.networks.temporal import TemporalTransformer
from stormpsr_jax.networks.temporal_baselines import (
    Baseline,
    TemporalLSTM,
    TemporalMLP,
    TemporalTCN,
)

# The temporal encoders by name, as `temporal_model.backbone` has it.
TEMPORAL: dict[str, type[TemporalTransformer | Baseline]] = {
    "transformer": TemporalTransformer,
    "mlp": TemporalMLP,
    "lstm": TemporalLSTM,
    "tcn": TemporalTCN,
}
# By role and architecture, the class of the network, and of the one inside of it if there is one.
ROLES: dict[str, dict[str, tuple[type[nn.Module], ...]]] = {
    "encoder": {f.architecture: (SpatialEncoder, f.module) for f in backbones.FAMILIES},
    "temporal": {kind.__name__: (kind,) for kind in TEMPORAL.values()},
    "detector": {"Detector": (Detector,)},
}


def describe(module: nn.Module) -> dict[str, Any]:
    """Returns a network's architecture and fields as plain values, as `build` takes them.

    Raises:
        ValueError: it is none of ROLES.
    """
    parts = (module, *_inside(module).values())
    kinds = tuple(type(part) for part in parts)
    known = {name: kinds for by_name in ROLES.values() for name, kinds in by_name.items()}
    names = [name for name, known_kinds in known.items() if known_kinds == kinds]
    if not names:
        raise ValueError(
            f"a model cannot hold a {type(module).__name__}; known are {', '.join(known)}"
        )
    described: dict[str, Any] = {"architecture": names[0]}
    for part in reversed(parts):
        for name in stored_types(type(part)):
            value = getattr(part, name)
            described[name] = list(value) if isinstance(value, tuple) else value
    return described | {"dtype": jnp.dtype(module.dtype).name}


def check(module: nn.Module, place: str) -> None:
    """Raises ValueError if a model folder may not hold a network; begins with the place."""
    described = describe(module)
    role = next(role for role, names in ROLES.items() if described["architecture"] in names)
    build(role, described, place)


def build(role: str, data: Any, place: str) -> nn.Module:
    """Builds the network that `describe` described.

    Args:
        place: the file and where in it they stand, for messages.

    Raises:
        ValueError: no architecture of that role, an unknown or missing field, or one out of bounds.
    """
    architecture = field(data, "architecture", str, place)
    if architecture not in ROLES[role]:
        raise ValueError(
            f"{place}: architecture: {shorten(architecture)} is not one of "
            f"{', '.join(ROLES[role])}; train the model again with one of them"
        )
    kinds = ROLES[role][architecture]
    types = {"architecture": str, "dtype": Literal["float32", "bfloat16"]}
    for kind in kinds:
        types |= stored_types(kind)
        data = later_defaults(kind) | data
    fields = msgspec.defstruct("Fields", types.items(), forbid_unknown_fields=True)
    values = msgspec.structs.asdict(fit(data, fields, place))
    values["dtype"] = jnp.dtype(values["dtype"])
    inner: list[nn.Module] = []  # of the network that is made next
    for kind in reversed(kinds):
        names = {f.name for f in dataclasses.fields(kind)} & values.keys()
        inner = [kind(*inner, **{name: values[name] for name in names})]
    return inner[0]


def _inside(module: nn.Module) -> dict[str, nn.Module]:
    """The networks that are fields of another one, by name."""
    if not isinstance(module, nn.Module):
        return {}
    fields = {f.name: getattr(module, f.name) for f in dataclasses.fields(module)}
    del fields["parent"]
    return {name: value for name, value in fields.items() if isinstance(value, nn.Module)}


def inference(module: nn.Module) -> nn.Module:
    """The same network without what only matters in training.

    So the same program is compiled in a training run and after `build`, and both round alike.
    """
    inside: dict[str, Any] = {name: inference(part) for name, part in _inside(module).items()}
    return module.clone(**training_only(type(module)), **inside)


def in_float32(module: nn.Module) -> nn.Module:
    """The same network with activations in float32."""
    inside: dict[str, Any] = {name: in_float32(part) for name, part in _inside(module).items()}
    own = {"dtype"} & {field.name for field in dataclasses.fields(module)}
    return module.clone(**dict.fromkeys(own, jnp.dtype(jnp.float32)), **inside)


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

    Raises:
        ValueError: the fields of the network, or the input, do not fit together.
    """

    def init(x: jax.Array) -> Any:
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

    def function(variables: dict[str, Any], x: jax.Array) -> Any:
        return apply(module, traverse_util.unflatten_dict(variables, sep="/"), x)

    x = jax.ShapeDtypeStruct(input_shape, jnp.float32)
    traced = jax.make_jaxpr(function)(dict(variable_shapes(module, input_shape)), x)
    return cost_of(traced.jaxpr)


def cost_of(jaxpr: Any) -> Cost:
    """What a traced function takes, on all devices.

    A loop that does not say how often it turns counts as one turn, and of branches the costliest
    one counts. XLA's own count (`cost_analysis`) takes every loop for one turn.
    """
    largest = operations = 0
    for equation in jaxpr.eqns:
        sizes = [out.aval.size * out.aval.dtype.itemsize for out in equation.outvars]
        values = jax.tree.leaves(list(equation.params.values()), is_leaf=_is_jaxpr)
        inside = [cost_of(getattr(value, "jaxpr", value)) for value in values if _is_jaxpr(value)]
        largest = max(largest, *sizes, *(cost.largest for cost in inside), 0)
        counts = [cost.operations for cost in inside]
        within = max(counts, default=0) if equation.primitive.name == "cond" else sum(counts)
        operations += _operations(equation) + within * _times(equation)
    return Cost(largest, operations)


def _times(equation: Any) -> int:
    """How often what is inside an equation is computed."""
    if equation.primitive.name == "shard_map":
        return equation.params["mesh"].size  # on each device, for its own part
    return equation.params.get("length", 1)  # of a loop over the steps of a sequence


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
    if name.startswith("dot_product_attention_"):  # cuDNN's kernel, of `attention`
        query, keys = (equation.invars[i].aval.shape for i in (0, 1))  # (B, T, N, d), (B, S, N, d)
        products = 5 if "_bwd" in name else 2  # backwards, the logits are computed once more
        return products * 2 * math.prod(query) * keys[1]
    return 0


def _is_jaxpr(value: Any) -> bool:
    return hasattr(value, "jaxpr") or hasattr(value, "eqns")
