"""YOLO text files: their rows, and each mistake with file, line and field."""

import pytest

from stormpsr_jax.psr.files import yolo


def test_rows_have_a_class_a_box_and_what_else_there_is():
    text = "3 0.5 0.25 .1 .2\n\n0  1 0 1 1 0.75\n"
    first, second = yolo.read(text, "f", lambda row: row)
    assert (first.number(3), first.box, first.place) == (3, (0.5, 0.25, 0.1, 0.2), "f: line 1")
    assert (second.texts[5], second.line) == ("0.75", 3)
    assert yolo.read("", "f", lambda row: row) == []


def test_all_mistakes_of_a_file_come_at_once():
    with pytest.raises(ValueError, match="f: line 1") as error:
        yolo.read("3 0.5 0.5 1\n4 0 0 1 1\n2 x 0 1 1\n", "f", lambda row: row.number(3))
    assert str(error.value).split("\n") == [
        "f: line 1: h: is missing (the row has 4 fields)",
        "f: line 2: class: '4' is not in 0…3",
        "f: line 3: x: 'x' is not a number",
    ]


@pytest.mark.parametrize(
    "row",
    [
        "0 .1 .1 .4 .1 .4 .4",  # a triangle
        "0 .1 .1 .4 .1 .4 .4 .1 .4",  # a rotated box
        "0 .1 .1 .4 .1 .4 .4 .1 .4 .9",  # and a confidence
    ],
)
def test_rows_of_polygons_are_no_boxes(row):
    fields = len(row.split())
    with pytest.raises(ValueError, match=f"f: line 2: field 7: the row has {fields} fields, as p"):
        yolo.read(f"0 .5 .5 .1 .1\n{row}\n", "f", lambda row: row)
