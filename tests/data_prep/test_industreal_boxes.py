"""The class of IndustReal's boxes: by the number of the category, or by number and name alike."""

import copy
import json

import numpy as np
import pytest

from data_prep.reading.asd_labels import read_coco_boxes
from data_prep.reading.industreal_boxes import read_boxes
from data_prep.reading.recording_labels import agree
from tests.support.industreal_data import CLASSES, PROCEDURE, coco


def written(tmp_path, content: dict):
    path = tmp_path / "OD_labels.json"
    path.write_text(json.dumps(content))
    return path


def with_categories(numbers: list[int], table: list[dict] | None = None) -> dict:
    """A box for each of the numbers, in frames 0, 1, …."""
    images = [
        {"id": i, "file_name": f"{i:06d}.jpg", "width": 1280, "height": 720}
        for i in range(len(numbers))
    ]
    boxes = [
        {"id": i, "image_id": i, "category_id": number, "bbox": [400, 200, 300, 200]}
        for i, number in enumerate(numbers)
    ]
    table = coco("03_assy_0_1")["categories"] if table is None else table
    return {"images": images, "categories": table, "annotations": boxes}


def numbered(names: list[str], first: int = 0) -> list[dict]:
    return [{"id": first + i, "name": name} for i, name in enumerate(names)]


def test_a_box_has_the_class_of_its_category_id(tmp_path):
    """And not of its name, which is one off in the download."""
    boxes = read_boxes(written(tmp_path, with_categories([*range(1, 24)])), PROCEDURE)
    assert boxes.classes.tolist() == list(range(1, 24))
    assert boxes.named.tolist() == list(range(23))
    assert [CLASSES[c] for c in boxes.classes[[0, 2, -1]]] == [
        "10000000000",
        "10010100000",
        "error_state",
    ]


@pytest.mark.parametrize("first", [0, 1])
def test_number_and_name_of_a_table_that_is_not_shifted_agree(tmp_path, first):
    """With a background of number 0, and without one."""
    numbers = [*range(first, 24)]
    content = with_categories(numbers, numbered(CLASSES[first:], first))
    boxes = read_boxes(written(tmp_path, content), PROCEDURE)
    assert boxes.classes.tolist() == numbers
    assert boxes.named.tolist() == numbers


TABLES = {
    "the first state missing": (
        numbered(CLASSES[:1] + CLASSES[2:]),
        r"categories\[1\]: id 1 has the name '10010010000', but class 1 is 10000000000; whether",
    ),
    "shifted, and cut off at the end": (
        numbered(CLASSES[:5], 1),
        r"categories\[0\]: id 1 has the name 'background', but class 1 is 10000000000; whether",
    ),
    "two off": (
        numbered(CLASSES, 2),
        r"categories\[0\]: id 2 has the name 'background', but class 2 is 10010010000; whether",
    ),
    "other names": (
        [{"id": 1, "name": "model"}, {"id": 2}, {"id": 3, "name": 7}],
        r"categories\[0\]: id 1 has the name 'model', but class 1 is 10000000000; whether",
    ),
    "numbers as text": (
        [{"id": "1", "name": CLASSES[1]}, {"id": 2, "name": CLASSES[2]}],
        r"categories\[0\]: id '1' has the name '10000000000', but it is no class; whether",
    ),
}


@pytest.mark.parametrize("table", TABLES)
def test_a_table_that_decides_nothing_is_refused(tmp_path, table):
    content, message = TABLES[table]
    path = written(tmp_path, with_categories([content[0]["id"]], content))
    with pytest.raises(ValueError, match=message) as error:
        read_boxes(path, PROCEDURE)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


def test_a_category_id_that_is_no_class_is_refused(tmp_path):
    path = written(tmp_path, with_categories([3, 24, 23]))
    message = r"annotations\[1\]: category_id: 24 is no class of procedure 'industreal' \(0…23\)"
    with pytest.raises(ValueError, match=message):
        read_boxes(path, PROCEDURE)


def test_folders_made_with_other_classes_have_other_checksums(tmp_path):
    first = read_boxes(written(tmp_path, with_categories([3, 4])), PROCEDURE)
    other = read_boxes(written(tmp_path, with_categories([4, 4])), PROCEDURE)
    assert first.digest != other.digest


def test_coco_of_a_users_own_has_no_classes(tmp_path):
    content = with_categories(
        [1, 2], [{"id": 1, "name": "model"}, {"id": 2, "name": "error_state"}]
    )
    boxes = read_coco_boxes(written(tmp_path, content))
    assert boxes.classes is None
    assert boxes.named is None
    assert not boxes.every_frame


def test_an_error_box_agrees_with_every_state_that_is_not_catalogued():
    # Classes of states: catalogued 4, with a part that sits wrong 23, outside the catalogue 0.
    of_states = np.array([4, 23, 0])
    for label, expected in {4: [1, 0, 0], 5: [0, 0, 0], 23: [0, 1, 1], 0: [0, 0, 1]}.items():
        assert agree(np.full(3, label), of_states, PROCEDURE).tolist() == [
            bool(e) for e in expected
        ]


def test_what_is_read_does_not_depend_on_the_order_of_the_table(tmp_path):
    content = with_categories([13, 1, 23])
    turned = copy.deepcopy(content)
    turned["categories"].reverse()
    one = read_boxes(written(tmp_path, content), PROCEDURE)
    other = read_boxes(written(tmp_path, turned), PROCEDURE)
    assert one.classes.tolist() == other.classes.tolist() == [13, 1, 23]
