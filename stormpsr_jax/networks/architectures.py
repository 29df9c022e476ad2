"""The networks that a model folder may hold, as plain values and back.

Only these classes are ever built, and those of modules that the caller names: no file has code
imported. What is held, with bounds, stands in the modules (`stored.py`); what only matters in
training is left out, and changes nothing in recognition.

Dimension letters: B batch, T frames of a clip, H W image, D features, K components.
"""

import dataclasses
import functools
import math
from collections.abc import Collection, Mapping
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import msgspec
from flax import traverse_util

from stormpsr_jax.base import user_code
from stormpsr_jax.base.files import field, fit, shorten
from stormpsr_jax.networks.detector import Detector
from stormpsr_jax.networks.efficientnet import EfficientNet
from stormpsr_jax.networks.spatial import SpatialEncoder
from stormpsr_jax.networks.stored import is_ours, stored_types, training_only
from stormpsr_jax.networks.temporal import (
    Baseline,
    TemporalLSTM,
    TemporalMLP,
    TemporalTCN,
    TemporalTransformer,
)
from stormpsr_jax.networks.vit import ViT

# The temporal encoders by name, as `temporal_model.backbone` has it; others go by import paths.
TEMPORAL: dict[str, type[TemporalTransformer | Baseline]] = {
    "transformer": TemporalTransformer,
    "mlp": TemporalMLP,
    "lstm": TemporalLSTM,
    "tcn": TemporalTCN,
}
# By role and architecture, the class of the network, and of the one inside of it if there is one.
ROLES: dict[str, dict[str, tuple[type[nn.Module], ...]]] = {
    "encoder": {
        "SpatialEncoder": (SpatialEncoder, ViT),
        "EfficientNetEncoder": (SpatialEncoder, EfficientNet),
    },
    "temporal": {kind.__name__: (kind,) for kind in TEMPORAL.values()},
    "detector": {"Detector": (Detector,)},
    "locator": {"Detector": (Detector,)},
}


def describe(module: nn.Module) -> dict[str, Any]:
    """Returns a network's architecture and fields as plain values, as `build` takes them.

    The architecture is a name of ROLES, or the import path of a user's own network.
    """
    parts = (module, *(_inside(module).values() if is_ours(type(module)) else ()))
    kinds = tuple(type(part) for part in parts)
    known = {kinds: name for by_name in ROLES.values() for name, kinds in by_name.items()}
    path = f"{type(module).__module__}:{type(module).__name__}"
    described: dict[str, Any] = {"architecture": known.get(kinds, path)}
    for part in reversed(parts):
        for name in stored_types(type(part)):
            value = getattr(part, name)
            described[name] = list(value) if isinstance(value, tuple) else value
    return described | {"dtype": jnp.dtype(getattr(module, "dtype", jnp.float32)).name}


def check(module: nn.Module, place: str, shape: tuple[int, ...]) -> None:
    """Raises ValueError, which begins with the place, unless a model folder may hold a network.

    A temporal one has to give logits (B, outputs · K) of clips of this shape, (B, T, D).
    """
    described = describe(module)
    of = described["architecture"]
    role = next((role for role, names in ROLES.items() if of in names), "temporal")
    if build(role, described, place, [type(module).__module__]) != inference(module):
        raise ValueError(f"{place}: numbers, texts and tuples of numbers alone can be fields")
    if role == "temporal":
        clips = jax.ShapeDtypeStruct(shape, jnp.float32)
        logits, kept = jax.eval_shape(module.init_with_output, jax.random.key(0), clips)
        wanted = (shape[0], getattr(module, "outputs", 1) * described["num_components"])
        if getattr(logits, "shape", None) != wanted or set(kept) != {"params"}:
            found = f"gives {getattr(logits, 'shape', 'no array')} of clips {shape}"
            kept = f"keeps {', '.join(sorted(kept)) or 'nothing'}"
            raise ValueError(f"{place}: {found}, not {wanted}, or {kept}, not params alone")


def own(path: str, place: str) -> type[nn.Module]:
    """The class of a user's own network by its import path; ValueError if there is none."""
    kind = user_code.named(path, place)
    if not (isinstance(kind, type) and issubclass(kind, nn.Module)):
        raise ValueError(f"{place}={path}: is no subclass of flax.linen.Module")
    return kind


def build(role: str, data: Any, place: str, modules: Collection[str] = ()) -> nn.Module:
    """Builds the network that `describe` described.

    Args:
        place: the file and where in it they stand, for messages.
        modules: those that may be imported, and so executed, for a temporal network of their own.

    Raises:
        ValueError: no architecture of that role, an unknown or missing field, or one out of bounds.
    """
    architecture = field(data, "architecture", str, place)
    module, colon, _ = architecture.partition(":")
    modules = [modules] if isinstance(modules, str) else modules
    theirs = colon and role == "temporal"
    if theirs and module in modules:
        kinds: tuple[type[nn.Module], ...] = (own(architecture, f"{place}: architecture"),)
    elif architecture in ROLES[role]:
        kinds = ROLES[role][architecture]
    else:
        remedy = "train the model again with one of them"
        if theirs:
            remedy = "name its module, which is code: load_model(DIR, [MODULE]), --modules=MODULE"
        known = f"is not one of {', '.join(ROLES[role])}; {remedy}"
        raise ValueError(f"{place}: architecture: {shorten(architecture)} {known}")
    types: dict[str, Any] = {}
    for kind in kinds:
        types |= stored_types(kind)
    types |= {"architecture": str, "dtype": Literal["float32", "bfloat16"]}
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
    fields = {f.name: getattr(module, f.name) for f in dataclasses.fields(module)}
    del fields["parent"]
    return {name: value for name, value in fields.items() if isinstance(value, nn.Module)}


def inference(module: nn.Module) -> nn.Module:
    """The same network without what only matters in training.

    So the same program is compiled in a training run and after `build`, and both round alike. Of a
    user's own that is not known.
    """
    if not is_ours(type(module)):
        return module
    inside: dict[str, Any] = {name: inference(part) for name, part in _inside(module).items()}
    return module.clone(**training_only(type(module)), **inside)


def in_float32(module: nn.Module) -> nn.Module:
    """The same network with activations in float32."""
    inside: dict[str, Any] = {name: in_float32(part) for name, part in _inside(module).items()}
    own = {"dtype"} & {field.name for field in dataclasses.fields(module)}
    return module.clone(**dict.fromkeys(own, jnp.dtype(jnp.float32)), **inside)


def apply(module: nn.Module, variables: Mapping, x: jax.Array) -> Any:
    """What recognition wants of a network, in evaluation mode.

    Of an encoder embeddings (B, D) of pictures (B, H, W, 3), of a temporal network logits (B, K) of
    embeddings (B, T, D), of a detector its outputs on pictures.
    """
    if isinstance(module, SpatialEncoder):
        return module.apply(variables, x, method="embed")
    return module.apply(variables, x, train=False)


@functools.lru_cache(maxsize=64)
def variable_shapes(
    module: nn.Module, input_shape: tuple[int, ...]
) -> dict[str, jax.ShapeDtypeStruct]:
    """The arrays that `apply` needs, by names such as `params/head/kernel`; allocates nothing.

    ValueError if the fields of the network, or the input, do not fit together.
    """
    init = module.init
    if isinstance(module, SpatialEncoder):
        init = functools.partial(init, method="embed")
    try:
        x = jax.ShapeDtypeStruct(input_shape, jnp.float32)
        shapes = jax.eval_shape(init, jax.random.key(0), x)
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
    variables = traverse_util.unflatten_dict(variable_shapes(module, input_shape), sep="/")
    x = jax.ShapeDtypeStruct(input_shape, jnp.float32)
    return cost_of(jax.make_jaxpr(functools.partial(apply, module))(variables, x).jaxpr)


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
        counts, params = [cost.operations for cost in inside], equation.params
        within = max(counts, default=0) if equation.primitive.name == "cond" else sum(counts)
        # Each device for its own part; or a loop over the steps of a sequence.
        shared = equation.primitive.name == "shard_map"
        times = params["mesh"].size if shared else params.get("length", 1)
        operations += _operations(equation) + within * times
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
    if name.startswith("dot_product_attention_"):  # cuDNN's kernel, of `attention`
        query, keys = (equation.invars[i].aval.shape for i in (0, 1))  # (B, T, N, d), (B, S, N, d)
        products = 5 if "_bwd" in name else 2  # backwards, the logits are computed once more
        return products * 2 * math.prod(query) * keys[1]
    return 0


def _is_jaxpr(value: Any) -> bool:
    return hasattr(value, "jaxpr") or hasattr(value, "eqns")
