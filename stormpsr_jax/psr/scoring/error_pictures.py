"""How detections call pictures of incorrect installations whose kind is known.

The download "IndustReal Assembly State Recognition with Error States extension" (4TU
611adbc7-7935-43a6-8c3f-b2260a508e73) has them in `assembly_state_errors`: labels.json beside
`images/`, with lists of one length: `images`, frames of IndustReal by their names such as
`03_assy_0_1_000709.jpg`; `intended`, the class of the state that was meant; `error_cat`, the kind
of error; `clean`, 1 where all of the object is seen.
"""

import collections
import contextlib
import dataclasses
import pathlib
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from stormpsr_jax.base import files, tars
from stormpsr_jax.base.errors import for_each
from stormpsr_jax.psr.files.predictions import Detections
from stormpsr_jax.psr.procedure import Procedure

LABELS = "labels.json"
FOLDER = "assembly_state_errors"
# By `error_cat`; the authors' figure lists the kinds in this order, and no file says it.
KINDS = {1: "missing part", 2: "placement", 3: "orientation", 4: "wrong part"}
_NAME = re.compile(r"(.+)_([0-9]{1,9})\.(?:jpe?g|png)")


@dataclasses.dataclass(frozen=True)
class Picture:
    """A picture of an incorrect installation.

    Attributes:
        recording, frame: where it is from.
        intended: class of the state that was meant; 0 is none of the catalogue.
        kind: of KINDS.
        clean: whether all of the object is seen.
    """

    recording: str
    frame: int
    intended: int
    kind: str
    clean: bool


@contextlib.contextmanager
def found(path: pathlib.Path) -> Iterator[pathlib.Path | None]:
    """Gives the file of labels in such a folder, in the one above it or in a tar file, or None."""
    if path.is_file() and path.name.endswith(tars.ENDING):
        tar = tars.Tar(str(path))
        inside = [name for name in (f"{FOLDER}/{LABELS}", LABELS) if name in tar]
        with tempfile.TemporaryDirectory() as folder:
            for name in inside[:1]:
                (copy := pathlib.Path(folder, LABELS)).write_bytes(tar.open(name)[0].read())
                yield copy
            if not inside:
                yield None
        return
    places = [path / LABELS, path / FOLDER / LABELS]
    yield next((place for place in places if place.is_file()), None)


def read(path: pathlib.Path, procedure: Procedure) -> list[Picture]:
    """Reads labels.json; ValueError for every entry that is not as the module's docstring says."""
    data = files.read_json(path)
    keys = ("images", "intended", "error_cat", "clean")
    lists = [files.field(data, key, list, str(path)) for key in keys]
    if len({len(values) for values in lists}) != 1:
        lengths = ", ".join(f"{key} {len(v)}" for key, v in zip(keys, lists, strict=True))
        raise ValueError(f"{path}: lists of different lengths: {lengths}")

    def picture(i: int, name: Any, intended: Any, kind: Any, clean: Any) -> Picture:
        place = f"{path}: [{i}]"
        if not (isinstance(name, str) and (match := _NAME.fullmatch(name))):
            raise ValueError(f"{place}: images: {files.shorten(name)} is not <recording>_<frame>")
        if type(intended) is not int or not 0 <= intended <= procedure.num_states:
            last = procedure.num_states
            raise ValueError(f"{place}: intended: {files.shorten(intended)} is not in 0…{last}")
        if kind not in KINDS or clean not in (0, 1):
            shown = f"{files.shorten(kind)}, {files.shorten(clean)}"
            raise ValueError(f"{place}: error_cat, clean: {shown} are not in 1…4 and 0…1")
        return Picture(match[1], int(match[2]), intended, KINDS[kind], bool(clean))

    return for_each(zip(range(len(lists[0])), *lists, strict=True), picture)


def score(
    procedure: Procedure,
    pictures: Sequence[Picture],
    detections: Mapping[str, Detections],
    confidence: float = 0.5,
) -> dict[str, Any]:
    """Counts what the most confident detection of each picture says.

    Args:
        procedure: says what the classes are.
        pictures: of which those of recordings without detections are left out.
        detections: by recording.
        confidence: floor.

    Returns:
        `confidence`, `pictures` (scored), `left_out`, and `kinds`: for each and "all" their
        `pictures`, how many of them were called the `intended` state, an `error`, `another` state
        or `none`, and the `share` called the intended one (None without pictures); "all, whole
        object seen" are those with `clean` 1.

    Raises:
        ValueError: no picture is of a recording with detections; the floor is not in 0…1.
    """
    if not 0 <= confidence <= 1:
        raise ValueError(f"--confidence={confidence} is not in 0…1")
    rows: list[tuple[Picture, str]] = []
    for picture in pictures:
        if (known := detections.get(picture.recording)) is None:
            continue
        here = (known.frames == picture.frame) & (known.confidences >= confidence)
        here &= known.classes > 0
        if not here.any():
            said = "none"
        else:
            label = int(known.classes[here][known.confidences[here].argmax()])
            said = "error" if label == procedure.error_class else "another"
            said = "intended" if label == picture.intended else said
        rows.append((picture, said))
    if not rows:
        example = pictures[0].recording if pictures else "none"
        raise ValueError(f"no picture is of a recording with detections (one is of {example})")
    groups = {kind: [row for row in rows if row[0].kind == kind] for kind in KINDS.values()}
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
