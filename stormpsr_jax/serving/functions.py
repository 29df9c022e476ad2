"""The networks of a model as functions of arrays."""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
from flax import traverse_util

from stormpsr_jax.base import devices, memory
from stormpsr_jax.data import augment
from stormpsr_jax.networks import architectures, detection
from stormpsr_jax.serving.batched import Batched, one_by_one
from stormpsr_jax.serving.content import Content, Pictures
from stormpsr_jax.training import locator

# Operations a row of the largest network whose rows a CPU computes one by one: there a batch gains
# little or nothing. Of ViT-S/16's windows it gains a third.
SMALL = 10**8

_CLASSES = "num_classes"
_WIDTH = {"encoder": "hidden", "temporal": "num_components"}

Variables = Mapping[str, Any]  # of a network, as flax has them
Statistics = tuple[tuple[float, ...], tuple[float, ...]]  # mean and deviation of three colours


@dataclasses.dataclass(frozen=True, eq=False)
class Network:
    """A flax module and its variables: {"params": …} and, if it has them, {"batch_stats": …}."""

    module: nn.Module
    variables: Variables


class FlaxNetworks:
    """Flax modules and their variables, as `content.Networks`."""

    def __init__(self, of: Mapping[str, Network], dtype: str):
        """Takes the networks by role, and the type that their parameters are stored in."""
        self.of, self.dtype = dict(of), dtype
        self._made: dict[int, dict[str, Batched]] = {}

    @property
    def widths(self) -> Mapping[str, int]:
        """See `content.Networks`."""
        return {role: getattr(n.module, _WIDTH.get(role, _CLASSES)) for role, n in self.of.items()}

    def functions(self, content: Content, batch: int) -> Mapping[str, Batched]:
        """See `content.Networks`."""
        if jax.default_backend() == "cpu":
            for role, network in self.of.items():
                shape = content.input_shape(role, 1)
                rows = 1 if singly(network.module, shape[1:]) else batch
                largest = architectures.cost(network.module, shape).largest
                needed = batch * math.prod(shape) + rows * largest
                memory.check_fits(needed, f"a batch of {batch:,} (give a smaller one)")
        if batch not in self._made:
            self._made[batch] = functions(self.of, content.pictures, content.max_detections, batch)
        return self._made[batch]


def functions(
    networks: Mapping[str, Network], pictures: Pictures, max_detections: int, batch: int
) -> dict[str, Batched]:
    """The networks, by role of `content.ROLES`, as functions of arrays.

    Stage `predict` and a loaded model call this, so that both compute the same. They are compiled
    for `batch` rows at a time. On a CPU they compute in float32, whatever the networks' dtype, and
    networks of at most SMALL operations a row compute each by itself, so that it rounds alike
    whether many rows come or one. `pictures` normalise. What there is, and its shapes, says
    `content.Networks.functions`.
    """
    made = {}
    for role, network in networks.items():
        module = architectures.inference(network.module)
        if jax.default_backend() == "cpu":
            # XLA computes bfloat16 in float32 there, and loses time and digits by converting.
            module = architectures.in_float32(module)
        name, function = _jitted(role, module, statistics(pictures), max_detections)
        variables = needed(role, module, network.variables, pictures)
        rows = 1 if role == "locator" else batch  # where it looks depends on the picture before
        made[name] = Batched(function, variables, rows, functools.partial(singly, module))
    return made


@functools.lru_cache(maxsize=16)
def _jitted(
    role: str, module: nn.Module, of_pictures: Statistics, max_detections: int
) -> tuple[str, jax.stages.Wrapped]:
    """What `bodies` has for a role, jitted once for a module: whatever its weights, or stage."""
    name, body = bodies(of_pictures, max_detections)[role]

    def function(variables: Variables, x: jax.Array, count: jax.Array) -> Any:
        of_rows = functools.partial(body, module, variables)
        return one_by_one(of_rows, x, count) if singly(module, x.shape[1:]) else of_rows(x)

    function.__name__ = name  # in profiles
    options = devices.compiler_options(jax.default_backend())
    return name, jax.jit(function, compiler_options=options)


def statistics(pictures: Pictures) -> Statistics:
    """What `bodies` takes of pictures."""
    return tuple(pictures.mean), tuple(pictures.std)


def bodies(
    of_pictures: Statistics, max_detections: int
) -> dict[str, tuple[str, Callable[[nn.Module, Variables, jax.Array], Any]]]:
    """By role, the name of what `functions` makes of it, and of a module, variables and rows it."""

    def normalise(images: jax.Array) -> jax.Array:
        return augment.normalise(images, *of_pictures)

    def encode(module: nn.Module, variables: Variables, images: jax.Array) -> jax.Array:
        return architectures.apply(module, variables, normalise(images))

    def temporal(
        module: nn.Module, variables: Variables, embeddings: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        logits = architectures.apply(module, variables, embeddings)
        return jax.nn.sigmoid(logits[:, : module.num_components]), logits

    def detect(module: nn.Module, variables: Variables, images: jax.Array) -> tuple:
        outputs = architectures.apply(module, variables, normalise(images))
        return *detection.decode(outputs, max_detections), detection.best_scores(outputs)

    def locate(module: nn.Module, variables: Variables, images: jax.Array) -> tuple:
        seen = augment.normalise(images, locator.MEAN, locator.STD)
        return detection.located(architectures.apply(module, variables, seen))

    return {
        "locator": ("locate", locate),
        "encoder": ("encode", encode),
        "temporal": ("temporal", temporal),
        "detector": ("detect", detect),
    }


def singly(module: nn.Module, shape: tuple[int, ...]) -> bool:
    """Whether rows of this shape are computed one by one here."""
    if jax.default_backend() != "cpu":
        return False
    return architectures.cost(module, (1, *shape)).operations <= SMALL


def needed(role: str, module: nn.Module, variables: Variables, pictures: Pictures) -> Variables:
    """The variables that recognition needs: without the heads that only training has."""
    if role != "encoder":
        return variables
    wanted = architectures.variable_shapes(module, (1, *pictures.size, 3))
    flat = traverse_util.flatten_dict(dict(variables), sep="/")
    return traverse_util.unflatten_dict({name: flat[name] for name in wanted}, sep="/")
