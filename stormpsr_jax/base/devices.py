"""Options of XLA by platform."""

import os
from collections.abc import Mapping
from typing import Any

# By platform, options of XLA that networks are compiled with wherever they run. It is known to the
# versions of JAX in pyproject.toml. What XLA for CPUs hands over to YNNPACK by default takes longer
# there: benchmarks/results/time.md has figures.
_OPTIONS: dict[str, dict[str, Any]] = {"cpu": {"xla_cpu_experimental_ynn_fusion_type": ""}}


def compiler_options(platform: str) -> dict[str, Any]:
    """XLA's options for networks on "cpu", "gpu" or "tpu", without those that XLA_FLAGS sets."""
    return without_flags(_OPTIONS.get(platform, {}))


def without_flags(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that XLA_FLAGS does not set."""
    chosen = os.environ.get("XLA_FLAGS", "")
    return {name: value for name, value in options.items() if f"--{name}" not in chosen}
