"""The boxes of IndustReal, OD_labels.json, and the class that each of them is of.

In the download the number of a category is the class: 0 background, 1…22 the states in the order of
the procedure, 23 an error state. So the authors' code takes it, and so it fits the PSR labels. The
file's own table of names is one off: it calls 1 `background`, 2 the first state, and 24
`error_state`. By this table the download is told from a file in which numbers and names agree;
data_prep.reading.remarks holds both, numbers and names, against the PSR labels.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from data_prep.reading import asd_labels
from data_prep.reading.asd_labels import Boxes
from stormpsr_jax.base import files
from stormpsr_jax.base.errors import raise_all
from stormpsr_jax.psr.files import coco
from stormpsr_jax.psr.procedure import Procedure

Table = Mapping[coco.Id, coco.Category]


def read_boxes(path: str | Path, procedure: Procedure) -> Boxes:
    """Reads the boxes of a recording with their classes, and the classes by the table's names.

    Args:
        path: COCO file of one recording.
        procedure: of it; numbers its states.

    Raises:
        ValueError: all mistakes, with file and entry; also a table of categories in which numbers
            and names neither agree nor are one off as in the download, and a number that is no
            class.
    """
    data = files.read_json(path)
    boxes, categories = asd_labels.parse_coco(data, path)
    table = coco.categories(data, path)
    classes = [
        "background",
        *("".join(map(str, state)) for state in procedure.states.tolist()),
        "error_state",
    ]
    if not _is_one_off(table, classes):
        _check_agreement(table, classes)
    raise_all(
        [
            f"{place}: category_id: {category} is no class of procedure {procedure.name!r} "
            f"(0…{procedure.error_class})"
            for place, category in zip(boxes.places, categories, strict=True)
            if category not in range(len(classes))
        ]
    )
    number = {name: i for i, name in enumerate(classes)}
    named = [number.get(table[category].name, -1) for category in categories]
    return dataclasses.replace(
        boxes,
        classes=np.array(categories, np.int64),
        named=np.array(named, np.int64),
        every_frame=True,
    )


def _is_one_off(table: Table, classes: Sequence[str]) -> bool:
    """Says whether the table is the download's, which names class n as number n + 1."""
    ends = {1: classes[0], len(classes): classes[-1]}
    return all(i in table and table[i].name == name for i, name in ends.items())


def _check_agreement(table: Table, classes: Sequence[str]) -> None:
    """Raises ValueError for the first entry that does not have the name of the class it numbers."""
    names: dict[coco.Id, str] = dict(enumerate(classes))
    for identifier, (place, name) in table.items():
        if name == names.get(identifier):
            continue
        expected = "it is no class"
        if identifier in names:
            expected = f"class {identifier} is {names[identifier]}"
        raise ValueError(
            f"{place}: id {files.shorten(identifier)} has the name "
            f"{files.shorten(name)}, but {expected}; whether the number or the name "
            "counts is not certain. Number the categories as classes (0 background, 1… the states "
            "of the procedure, then error_state), or as in the download (1 background … "
            f"{len(classes)} error_state, where the number is the class)"
        )
