"""Networks with weights, computed by JAX."""

from __future__ import annotations

import math
from collections.abc import Mapping

import jax

from stormpsr_jax.base import memory
from stormpsr_jax.networks import architectures
from stormpsr_jax.serving.batched import Batched
from stormpsr_jax.serving.content import Content
from stormpsr_jax.serving.functions import Network, functions, singly

_WIDTH = {"encoder": "hidden", "temporal": "num_components", "detector": "num_classes"}


class FlaxNetworks:
    """Flax modules and their variables, as `content.Networks`.

    Attributes:
        of: the networks, by role.
        dtype: that their parameters are stored in.
    """

    def __init__(self, of: Mapping[str, Network], dtype: str):
        self.of, self.dtype = dict(of), dtype
        self._made: dict[tuple[int, ...], dict[str, Batched]] = {}

    @property
    def widths(self) -> Mapping[str, int]:
        """See `content.Networks`."""
        return {role: getattr(n.module, _WIDTH[role]) for role, n in self.of.items()}

    def functions(self, content: Content, batch: int) -> Mapping[str, Batched]:
        """See `content.Networks`."""
        shapes = {role: content.input_shape(role, 1) for role in self.of}
        # Of each network, rows at once: what different batches come to is compiled once.
        key = tuple(
            1 if singly(network.module, shapes[role][1:]) else batch
            for role, network in self.of.items()
        )
        if jax.default_backend() == "cpu":
            for rows, (role, network) in zip(key, self.of.items(), strict=True):
                largest = architectures.cost(network.module, shapes[role]).largest
                needed = batch * math.prod(shapes[role]) + rows * largest
                memory.check_fits(needed, f"a batch of {batch:,} (give a smaller one)")
        if key not in self._made:
            self._made[key] = functions(self.of, content.pictures, content.max_detections, batch)
        return self._made[key]
