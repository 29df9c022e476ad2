"""GPUs and TPUs of this machine that JAX does not use, because its package for them is missing."""

import os
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from stormpsr_jax.base import installed


class Accelerator(NamedTuple):
    """A kind of accelerator: its name, JAX's word for it, the extra, and signs that one is there.

    Signs are paths of devices, and the program that its driver puts on PATH.
    """

    name: str
    platform: str
    extra: str
    paths: tuple[Path, ...]
    program: str = ""


_NVIDIA = (Path("/dev/nvidia0"), Path("/proc/driver/nvidia"))
KINDS = (
    Accelerator("an NVIDIA GPU", "gpu", "cuda", _NVIDIA, "nvidia-smi"),
    Accelerator("a TPU", "tpu", "tpu", (Path("/dev/accel0"),)),
)


def unused(platforms: Collection[str]) -> list[str]:
    """Returns a sentence with the remedy for each kind that is here and that JAX does not see.

    None where JAX_PLATFORMS says what JAX is to use.
    """
    if os.environ.get("JAX_PLATFORMS"):
        return []
    return [
        f"this machine has {kind.name} ({sign}), which JAX does not see, so everything runs on the "
        f"CPU, many times slower; {installed.extra(kind.extra)} (JAX_PLATFORMS=cpu if the CPU is "
        "meant)"
        for kind in KINDS
        if kind.platform not in platforms and (sign := _sign(kind))
    ]


def _sign(kind: Accelerator) -> str:
    """By what a device of this kind is noticed; "" if there is none."""
    found = [str(path) for path in kind.paths if path.exists()]
    if kind.program and shutil.which(kind.program):
        found.append(kind.program)
    return found[0] if found else ""
