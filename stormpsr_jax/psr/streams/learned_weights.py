"""The weights of the learned fusion: what they are, their files, and the ones that ship.

A file is JSON: {"format": 2, "kind", "average", "rate", "arrays": {name: nested lists of numbers}},
"rate" being left out where it is not known. It is
checked for names, shapes and bounds, and nothing in it is executed.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from stormpsr_jax.base import files
from stormpsr_jax.psr.files.scores import KINDS

FORMAT = 2
PACKAGED = pathlib.Path(__file__).parents[2] / "pretrained"
NUM_INPUTS = 12  # F
MAX_UNITS = 64  # U
MAX_WEIGHT = 1e3
MAX_AVERAGE = 60.0  # seconds
MIN_RATE, MAX_RATE = 0.01, 1000.0  # pictures a second


@dataclasses.dataclass(frozen=True, eq=False)
class Weights:
    """Weights that all components share. F inputs, U units.

    Attributes:
        kind: of `scores.KINDS`: the scores that they were fitted on.
        average: seconds that inputs are averaged over.
        arrays: by name as in `shapes`, float64.
        rate: pictures a second that they were fitted at; None of older ones, which count pictures.
    """

    kind: str
    average: float
    arrays: Mapping[str, np.ndarray]
    rate: float | None = None

    @property
    def units(self) -> int:
        """U."""
        return self.arrays["start"].shape[1]

    @property
    def checksum(self) -> str:
        """The SHA-256 of all that there is of them."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """Returns the content of the file that `from_json` reads back."""
        arrays = {name: np.asarray(a, float).tolist() for name, a in self.arrays.items()}
        known = {} if self.rate is None else {"rate": self.rate}
        content = {"format": FORMAT, "kind": self.kind, "average": self.average}
        return content | known | {"arrays": arrays}

    @classmethod
    def from_json(cls, data: Any, place: str = "weights") -> Weights:
        """Builds weights from the content of their file.

        Raises:
            ValueError: the first error, with its place.
        """
        if (form := files.field(data, "format", int, place)) != FORMAT:
            raise ValueError(
                f"{place}: format: {form}, this version of stormpsr_jax knows {FORMAT}; fit the "
                "weights again, or update the package"
            )
        kind = files.field(data, "kind", str, place)
        if kind not in KINDS:
            known = ", ".join(KINDS)
            raise ValueError(f"{place}: kind: {files.shorten(kind)} is not one of {known}")
        average = files.number(data.get("average"), f"{place}: average", 0, MAX_AVERAGE)
        rate = data.get("rate")
        if rate is not None:
            rate = files.number(rate, f"{place}: rate", MIN_RATE, MAX_RATE)
        given = files.field(data, "arrays", dict, place)
        start = files.field(given, "start", list, f"{place}: arrays")
        units = len(start[0]) if start and isinstance(start[0], list) else 0
        if not 1 <= units <= MAX_UNITS:
            raise ValueError(f"{place}: arrays: start: is not of 1…{MAX_UNITS} units")
        wanted = shapes(units)
        keys = ("format", "kind", "average", "rate", "arrays")
        for where, entries, its in ((place, data, keys), (f"{place}: arrays", given, (*wanted,))):
            if unknown := [key for key in entries if key not in its]:
                raise ValueError(f"{where}: {files.shorten(unknown[0])}: unknown key")
        arrays = {}
        for name, shape in wanted.items():
            values = files.field(given, name, list, f"{place}: arrays")
            arrays[name] = _array(values, shape, f"{place}: arrays: {name}")
        return cls(kind, average, arrays, rate)


def shapes(units: int) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of the arrays.

    "start": of a component that is absent at the beginning, and of one that is there. "input",
    "recurrent" and "bias": of the update gate, the reset gate and the new value, side by side.
    "readout" of the units and "skip" of the inputs: the logits of being present and of being right.
    """
    return {
        "start": (2, units),
        "input": (NUM_INPUTS, 3 * units),
        "recurrent": (units, 3 * units),
        "bias": (3 * units,),
        "readout": (units, 2),
        "skip": (NUM_INPUTS, 2),
        "offset": (2,),
    }


def _array(values: Any, shape: tuple[int, ...], place: str) -> np.ndarray:
    """Nested lists of numbers as an array; their lengths are checked on the way."""
    if not shape:
        return np.array(files.number(values, place, -MAX_WEIGHT, MAX_WEIGHT), np.float64)
    if not isinstance(values, list) or len(values) != shape[0]:
        raise ValueError(f"{place}: {files.shorten(values)} is not a list of {shape[0]}")
    return np.stack([_array(value, shape[1:], place) for value in values])


def read_weights(path: str | os.PathLike) -> Weights:
    """Reads a file of weights.

    Raises:
        ValueError: it is missing or damaged, or not what this module describes; names the file.
    """
    return Weights.from_json(files.read_json(path), str(path))


def write_weights(path: str | os.PathLike, weights: Weights) -> None:
    """Writes the file that `read_weights` reads, whole; OSError names it."""
    if not all(np.isfinite(a).all() for a in weights.arrays.values()):
        raise ValueError(f"{path}: the weights are not finite")
    files.write_json(path, weights.to_json())


def default_weights(kind: str) -> Weights:
    """Returns the weights that ship with the package; tools/fusion_weights.py fits them."""
    return read_weights(PACKAGED / f"fusion_{kind}.json")
