"""The devices of this machine, shared out over runs that are made side by side."""

import dataclasses
import os
import subprocess
import sys
from collections.abc import Mapping

from stormpsr_jax.training import hosts

# In a process of its own: one that has looked at devices keeps their memory.
_LOOK = "import jax; print(jax.default_backend(), jax.local_device_count())"


@dataclasses.dataclass(frozen=True)
class Place:
    """Where one run is made at a time.

    Attributes:
        environment: variables that show a process nothing but the place's devices.
        share: of the machine's loaders and cores, 1 / places.
        devices: how many; 0: all of the machine.
    """

    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)
    share: float = 1.0
    devices: int = 0

    def loaders(self, asked: int) -> int:
        """The loader processes of a run: its share of a machine's `asked`, at least one of any."""
        if asked < 0 and self.devices:
            asked = min(hosts.cores(), round(hosts.LOADERS * self.devices / self.share))
        return max(1, int(asked * self.share)) if asked > 0 else asked


def find(per_run: int) -> list[Place]:
    """The places of this machine, each with so many devices of those that JAX sees; 0: all of them.

    Raises:
        ValueError: there are fewer, or a TPU's cannot be shared out in this way.
    """
    if not per_run:
        return [Place()]
    words = [sys.executable, "-c", _LOOK]
    found = subprocess.run(words, capture_output=True, text=True, check=False)
    if found.returncode:
        why = (found.stderr.strip().splitlines() or ["killed"])[-1]
        raise ValueError(f"JAX cannot use the devices of this machine: {why}")
    kind, text = found.stdout.split()[-2:]
    count = int(text)
    flag = f"--devices_per_run={per_run}: this machine has {count} of JAX's devices ({kind})"
    if per_run > count:
        raise ValueError(f"{flag}; give at most {count}, or 0 for all of them")
    if kind == "tpu" and per_run not in (1, count):
        raise ValueError(f"{flag}, and a TPU's are shared out one by one; give 1 or 0")
    number = count // per_run
    places = [range(i * per_run, (i + 1) * per_run) for i in range(number)]
    return [Place(_visible(kind, place, count), 1 / number, per_run) for place in places]


def _visible(kind: str, place: range, count: int) -> dict[str, str]:
    """The variables that show a process some devices of so many."""
    if len(place) == count:
        return {}
    if kind == "cpu":
        flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count"
        return {"XLA_FLAGS": f"{flags}={len(place)}".strip()}
    if kind == "tpu":
        bounds = {f"TPU_{name}_BOUNDS": "1,1,1" for name in ("CHIPS_PER_PROCESS", "PROCESS")}
        return {"TPU_VISIBLE_CHIPS": str(place[0]), **bounds}
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = given.split(",") if given else [str(i) for i in range(count)]
    return {"CUDA_VISIBLE_DEVICES": ",".join(names[i] for i in place)}
