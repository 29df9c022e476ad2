"""What the package has to know of a family of backbones: one `Family` in the family's own file.

`backbones.py` lists the families. Reading and writing weights, building the encoder, checks of
pictures, learning rates of layers and model folders work from these values.
"""

import dataclasses
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import numpy as np

LIBRARIES = TIMM, TRANSFORMERS = "timm", "transformers"
# Layers of a network as state dicts of PyTorch and flax have them, for `Layer.layer`; `weights`
# has their arrays.
DENSE, DENSE_WITHOUT_BIAS, CONV, NORM, BATCH_NORM = "dense", "bare dense", "conv", "norm", "batch"
PATCHES = "patches"  # a convolution whose stride is its kernel, ours as a matrix product
VECTOR, TOKENS = "vector", "tokens"  # one array of one axis, and of three


class Layer(NamedTuple):
    """A layer of a network in both layouts.

    Attributes:
        torch: its name in the state dict; None: state dicts have no such layer.
        ours: the path of its module, or of its array.
        layer: one of the layers above.
    """

    torch: str | None
    ours: str
    layer: str


def count(pattern: str, names: Collection[str]) -> int:
    """One more than the largest number that the pattern finds in the names, 0 if there is none."""
    last = max((int(m[1]) for n in names if (m := re.search(pattern, n))), default=-1)
    # Never more than there are names: a made-up number is not to ask for billions of them.
    return min(len(names), last + 1)


@dataclasses.dataclass(frozen=True)
class Family:
    """A family of backbones.

    Attributes:
        kind: its name for `weights --kind`.
        label: its name in messages.
        architecture: of an encoder with such a backbone in a model folder.
        module: turns pictures (B, H, W, 3) into features (B, D) in its `dtype`; its fields of the
            names of the config's section `encoder` are read from there. Its `layers` are the names
            of the parameters of its layers from the first to the last norm, in order; several names
            of one layer are joined by a space, and what has none lies in front of the first.
        named: fields of the published models, by name.
        landmark: a name at the top of its parameters that no other family has there.
        mark: a pattern that a name in each of its published state dicts has.
        rows: the layers of a model with these names of arrays, of either layout.
        fields_of: (parameters, heads or None, library or None) → fields of the module that they
            belong to; ValueError if there is none.
        published: (state dict, its path) → (the same in the names of `rows`, its library or "").
        exported: a state dict in the names of `rows` → in those of timm.
        configured: (fields of a published model, fields that replace some) → fields.
        fitted: (parameters, parameters of the wanted size of pictures, (H, W) in pixels or None if
            square, library or None, where they are, for messages) → the parameters for that size.
    """

    kind: str
    label: str
    architecture: str
    module: type[nn.Module]
    named: Mapping[str, Mapping[str, Any]]
    landmark: str
    mark: str
    rows: Callable[[Collection[str]], Iterable[Layer]]
    fields_of: Callable[[Mapping, int | None, str | None], dict[str, Any]]
    published: Callable[[Mapping[str, np.ndarray], str | Path], tuple[dict[str, np.ndarray], str]]
    exported: Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]] = dict
    configured: Callable[[Mapping[str, Any], Mapping[str, Any]], dict[str, Any]] = (
        lambda fields, changes: {**fields, **changes}
    )
    fitted: Callable[..., Mapping] = lambda params, *_: params
