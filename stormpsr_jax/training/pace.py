"""How fast a stage trains: steps, rows and arithmetic a second, and how long it waits for data.

These figures differ from run to run, so they are no part of metrics.jsonl.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from jax.sharding import Mesh

from stormpsr_jax.base.devices import peak_flops


class Pace:
    """The clock of a stage, which is set back at each log row.

    Attributes:
        operations: multiplications and additions of matrix products and convolutions in a step, on
            all devices; what is computed twice to save memory counts twice. 0: not known yet.
        rows: of a global batch.
    """

    def __init__(self, step: int, mesh: Mesh, dtype: str, unit: str):
        """Begins at a step; `unit`: what a row of a batch is, "pictures" or "clips"."""
        device = mesh.devices.flat[0]
        peak = peak_flops(device.device_kind, dtype)
        self._peak = peak and peak * mesh.size
        self._unit, self.operations, self.rows = unit, 0, 0
        self._begin(step)

    def _begin(self, step: int) -> None:
        self._step, self._since, self._waited = step, time.monotonic(), 0.0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """While the loop waits for a batch."""
        begun = time.monotonic()
        yield
        self._waited += time.monotonic() - begun

    @contextmanager
    def apart(self) -> Iterator[None]:
        """While something is done that is no part of a step: compilation, evaluation."""
        begun = time.monotonic()
        yield
        self._since += time.monotonic() - begun

    def lap(self, step: int) -> dict[str, float]:
        """Returns the figures since the last lap, for the log row of `step`.

        steps_per_second; pictures_per_second or clips_per_second; data_wait_share, of the time;
        flops_per_second, of all devices; and peak_share, what part that is of what they can compute
        at most, where this is known.
        """
        seconds, steps = time.monotonic() - self._since, step - self._step
        rate = steps / seconds
        found = {
            "steps_per_second": rate,
            f"{self._unit}_per_second": rate * self.rows,
            "data_wait_share": self._waited / seconds,
            "flops_per_second": rate * self.operations,
        }
        if self._peak:
            found["peak_share"] = found["flops_per_second"] / self._peak
        self._begin(step)
        return found
