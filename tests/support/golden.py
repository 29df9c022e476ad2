"""Outputs of the released networks, by which ours are checked.

A part of them ships, in tests/networks/golden (its README says which); the whole of them does not,
and is a further check where it is there.
"""

from pathlib import Path

import numpy as np
import pytest

SHIPPED = Path(__file__).parents[1] / "networks/golden"
SHARED = Path(__file__).parents[2] / "../shared/golden/parity"
needs_shared = pytest.mark.skipif(not SHARED.exists(), reason="needs ../shared/golden")


def both(shipped: str, shared: str) -> list:
    """The paths of what ships and of the whole of it, for a test or a fixture that takes either."""
    whole = pytest.param(SHARED / f"{shared}.npz", marks=needs_shared, id="whole")
    return [pytest.param(SHIPPED / f"{shipped}.npz", id="shipped"), whole]


def under(arrays, prefix: str) -> dict[str, np.ndarray]:
    """The arrays whose names begin with a prefix, by the rest of their names."""
    return {n.removeprefix(prefix): arrays[n] for n in arrays.files if n.startswith(prefix)}


def assert_close(actual, golden, **tolerances) -> None:
    """Compares arrays where the golden one has numbers: of what ships, many rows are NaN."""
    known = ~np.isnan(golden)
    assert known.any()
    np.testing.assert_allclose(np.asarray(actual)[known], golden[known], **tolerances)
