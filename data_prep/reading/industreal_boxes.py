"""The boxes of IndustReal, OD_labels.json, and the class that each of them is of.

In the download the number of a category is the class: 0 background, 1…22 the states in the order of
the procedure, 23 an error state. So the authors' code takes it, and so it fits the PSR labels. The
file's own table of names is one off: it calls 1 `background`, 2 the first state, and 24
`error_state`. By this table the download is told from a file in which numbers and names agree;
data_prep.reading.remarks holds both, numbers and names, against the PSR labels.
"""

import dataclasses
from pathlib import Path

import numpy as np

from data_prep.reading import asd_labels
from data_prep.reading.asd_labels import Boxes
from stormpsr_jax.base import files
from stormpsr_jax.base.errors import raise_all
from stormpsr_jax.psr.files import coco
from stormpsr_jax.psr.procedure import Procedure


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
    boxes = asd_labels.of_one(asd_labels.coco_images(data, path), path)
    table = coco.categories(data, path)
    states = ("".join(map(str, state)) for state in procedure.states.tolist())
    classes = ["background", *states, "error_state"]
    number = {name: i for i, name in enumerate(classes)}
    by_name = {key: number.get(category.name, -1) for key, category in table.items()}
    one_off = by_name.get(1) == 0 and by_name.get(len(classes)) == procedure.error_class
    for key, (place, name) in table.items():
        if not one_off and key != by_name[key]:
            raise ValueError(
                f"{place}: id {files.shorten(key)} has the name {files.shorten(name)}, which is "
                "not that of the class of this number; number the categories as classes (0 "
                "background, 1… the states of the procedure, then error_state), or as the download "
                f"(1 background … {len(classes)} error_state, where the number is the class)"
            )
    raise_all(
        [
            f"{place}: category_id: {files.shorten(category)} is no class of procedure "
            f"{procedure.name!r} (0…{procedure.error_class})"
            for place, category in zip(boxes.places, boxes.categories, strict=True)
            if category not in range(len(classes))
        ]
    )
    return dataclasses.replace(
        boxes,
        classes=np.array(boxes.categories, np.int64),
        named=np.array([by_name.get(category, -1) for category in boxes.categories], np.int64),
        every_frame=True,
    )
