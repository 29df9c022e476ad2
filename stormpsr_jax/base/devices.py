"""What accelerators can compute at most, for training logs and benchmarks; options for CPUs."""

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

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


class Peak(NamedTuple):
    """Dense matrix products of one device, in FLOP/s; a multiply-add counts as two.

    Attributes:
        bfloat16: of arrays of this type, summed up in float32.
        float32: as JAX multiplies them by default: in TF32 on GPUs that have it, in one pass of
            bfloat16 on TPUs.
    """

    bfloat16: float
    float32: float


# By JAX's `device_kind`, or the beginning of it; of two that fit, the longer one counts. The rates
# are the vendors' without sparsity, of what JAX calls one device: a chip, or a core of TPU v2 and
# v3. V100 and T4 have no bfloat16, and GPUs before Ampere no TF32.
PEAKS: dict[str, Peak] = {
    "NVIDIA B200": Peak(2250e12, 1125e12),
    "NVIDIA H200": Peak(989e12, 494e12),
    "NVIDIA GH200": Peak(989e12, 494e12),
    "NVIDIA H100": Peak(989e12, 494e12),  # SXM
    "NVIDIA H100 NVL": Peak(835e12, 417e12),
    "NVIDIA H100 PCIe": Peak(756e12, 378e12),
    "NVIDIA A100": Peak(312e12, 156e12),
    "NVIDIA A10G": Peak(70e12, 35e12),
    "NVIDIA A10": Peak(125e12, 62.5e12),
    "NVIDIA L40S": Peak(362e12, 183e12),
    "NVIDIA L4": Peak(121e12, 60e12),
    "NVIDIA RTX A6000": Peak(155e12, 77.4e12),
    "NVIDIA GeForce RTX 4090": Peak(165e12, 82.6e12),
    "NVIDIA GeForce RTX 3090": Peak(71e12, 35.6e12),
    "TPU v2": Peak(22.5e12, 22.5e12),
    "TPU v3": Peak(61.5e12, 61.5e12),
    "TPU v4": Peak(275e12, 275e12),
    "TPU v5 lite": Peak(197e12, 197e12),  # v5e
    "TPU v5e": Peak(197e12, 197e12),
    "TPU v5p": Peak(459e12, 459e12),
    "TPU v5": Peak(459e12, 459e12),  # v5p
    "TPU v6 lite": Peak(918e12, 918e12),  # v6e
    "TPU v6e": Peak(918e12, 918e12),
}


def peak_flops(device_kind: str, dtype: str) -> float | None:
    """Returns the highest FLOP/s of a device of this kind of JAX; None: unknown, as of a CPU."""
    # A whole word: "NVIDIA L4" is no beginning of "NVIDIA L40".
    fitting = [k for k in PEAKS if f"{device_kind} ".startswith((f"{k} ", f"{k}-"))]
    return getattr(PEAKS[max(fitting, key=len)], dtype) if fitting else None
