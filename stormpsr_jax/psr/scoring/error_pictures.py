"""How detections call pictures of incorrect installations whose kind is known.

The download "IndustReal Assembly State Recognition with Error States extension" (4TU
611adbc7-7935-43a6-8c3f-b2260a508e73) has them in `assembly_state_errors`: labels.json beside
`images/`, with lists of one length: `images`, frames of IndustReal by their names such as
`03_assy_0_1_000709.jpg`; `intended`, the class of the state that was meant; `error_cat`, the kind
of error; `clean`, 1 where all of the object is seen.
"""

import collections
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from stormpsr_jax.base import files
from stormpsr_jax.base.errors import for_each
from stormpsr_jax.psr.files.predictions import Detections
from stormpsr_jax.psr.procedure import Procedure

LABELS = "labels.json"
FOLDER = "assembly_state_errors"
# By `error_cat`; the authors' figure lists the kinds in this order, and no file says it.
KINDS = {1: "missing part", 2: "placement", 3: "orientation", 4: "wrong part"}
_NAME = re.compile(r"(.+)_([0-9]{1,9})\.(?:jpe?g|png)")


class Picture(NamedTuple):
    """A picture, with the class of the state that was meant (0 is none) and the kind of error."""

    recording: str
    frame: int
    intended: int
    kind: str
    clean: bool


def found(path: str) -> pathlib.Path | None:
    """Returns the file of labels in such a folder, or the one above it, or None."""
    places = (pathlib.Path(path, name) for name in (f"{FOLDER}/{LABELS}", LABELS))
    return next((place for place in places if place.is_file()), None)


def read(path: pathlib.Path) -> list[Picture]:
    """Reads labels.json; ValueError for every entry that is not as the module's docstring says.

    The file was not seen: kinds that are none of KINDS are shown by their numbers.
    """
    data = files.read_json(path)
    keys = ("images", "intended", "error_cat", "clean")
    lists = [files.field(data, key, list, str(path)) for key in keys]
    if len({len(values) for values in lists}) != 1:
        lengths = ", ".join(f"{key} {len(v)}" for key, v in zip(keys, lists, strict=True))
        raise ValueError(f"{path}: lists of different lengths: {lengths}")

    def picture(i: int, name: Any, *numbers: Any) -> Picture:
        match = _NAME.fullmatch(str(name))
        if not match or any(type(number) is not int for number in numbers):
            shown = files.shorten([name, *numbers])
            raise ValueError(f"{path}: [{i}]: {shown} is not <recording>_<frame> and whole numbers")
        intended, kind, clean = numbers
        return Picture(
            match[1], int(match[2]), intended, KINDS.get(kind, f"error_cat {kind}"), clean == 1
        )

    return for_each(zip(range(len(lists[0])), *lists, strict=True), picture)


def score(
    procedure: Procedure,
    pictures: Sequence[Picture],
    detections: Mapping[str, Detections],
    confidence: float = 0.5,
) -> dict[str, Any]:
    """Counts what the most confident detection above `confidence` says of each picture.

    Pictures of recordings that are not among the detections are left out. Returns `confidence`,
    `pictures` (scored), `left_out`, and `kinds`: for each, for all, and for those of which all is
    seen, the numbers that were called the `intended` state, an `error`, `another` state or `none`,
    and the `share` of the first (None without pictures).

    Raises:
        ValueError: no picture is of a recording with detections; the floor is not in 0…1.
    """
    if not 0 <= confidence <= 1:
        raise ValueError(f"--confidence={confidence} is not in 0…1")
    rows: list[tuple[Picture, str]] = []
    for picture in pictures:
        if (known := detections.get(picture.recording)) is None:
            continue
        here = (known.frames == picture.frame) & (known.confidences > confidence)
        here &= known.classes > 0
        said = "none"
        if here.any():
            label = int(known.classes[here][known.confidences[here].argmax()])
            names = {picture.intended: "intended", procedure.error_class: "error"}
            said = names.get(label, "another")
        rows.append((picture, said))
    if not rows:
        example = pictures[0].recording if pictures else "none"
        raise ValueError(f"no picture is of a recording with detections (one is of {example})")
    kinds = dict.fromkeys([*KINDS.values(), *sorted({picture.kind for picture, _ in rows})])
    groups = {kind: [row for row in rows if row[0].kind == kind] for kind in kinds}
    groups |= {"all": rows, "all, whole object seen": [row for row in rows if row[0].clean]}
    return {
        "confidence": confidence,
        "pictures": len(rows),
        "left_out": len(pictures) - len(rows),
        "kinds": [_counts(kind, [said for _, said in of]) for kind, of in groups.items()],
    }


def _counts(kind: str, said: Sequence[str]) -> dict[str, Any]:
    counts = collections.Counter(said)
    found = {key: counts[key] for key in ("intended", "error", "another", "none")}
    share = counts["intended"] / len(said) if said else None
    return {"kind": kind, "pictures": len(said), **found, "share": share}
