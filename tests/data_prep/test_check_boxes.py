import base64
import dataclasses
import re

import numpy as np
import pytest
import simplejpeg

from data_prep import check
from data_prep.writing import shards
from tests.support.shards_data import build, make

SIZE = (40, 60)


def grey(split, name):
    """20 frames of state 1, then 20 of state 3 (the last one's box is of state 2), all with a box.

    In each box is the grey 5 · frame, around it is black.
    """
    states = np.array([[1, 0, 0]] * 20 + [[1, 1, 1]] * 20)
    classes = np.array([1] * 20 + [3] * 19 + [2])
    jpegs = []
    for frame in range(40):
        image = np.zeros((*SIZE, 3), np.uint8)
        image[10:30, 20:40] = 5 * frame
        jpegs.append(simplejpeg.encode_jpeg(image, 95))
    box = np.tile([0.5, 0.5, 1 / 3, 0.5], (40, 1))
    return shards.RecordingData(name, 0, jpegs, states, box, classes, np.full(40, np.nan))


def test_the_page_shows_boxes_of_each_state_beside_its_parts_and_how_many_agree(tmp_path, capsys):
    build(tmp_path, image_size=SIZE, splits={"train": ["a"]}, make=grey)
    assert check.main([str(tmp_path)]) == 0
    line = "39 of 40 boxes agree with the step labels of their frames"
    assert f"\n{line}\n" in capsys.readouterr().out
    page = (tmp_path / "check.html").read_text()
    assert line in page
    section = page[page.index("Boxes by state") : page.index("<h2>Pictures")]
    shown = [
        simplejpeg.decode_jpeg(base64.b64decode(data))
        for data in re.findall(r"image/jpeg;base64,([^\"]+)", section)
    ]
    frames = [round(image[len(image) // 2, image.shape[1] // 2].mean() / 5) for image in shown]
    assert frames == [3, 10, 16, 39, 23, 29, 35]  # evenly spread over those of each state
    assert re.findall(r"<h4>(.*?)<code>(\d+)", section) == [
        ("state 1", "100"),
        ("state 2", "110"),
        ("state 3", "111"),
    ]
    parts = re.findall(r"<li( class=\"on\")?>(\w+)</li>", section)
    assert [name for _, name in parts] == ["base", "wheel", "lid"] * 3
    assert [bool(there) for there, _ in parts] == [True, False, False, True, True, False] + [
        True
    ] * 3
    # A box that the labels do not fit says what they say.
    assert section.count("labels: ") == section.count("labels: state 3") == 1


@pytest.mark.parametrize(("by", "word", "other"), [(-1, "low", "higher"), (1, "high", "lower")])
def test_classes_that_are_one_off_are_a_problem(tmp_path, capsys, by, word, other):
    def one(split, name):
        data = make(split, name)
        data.boxes[6] = np.nan  # an error state's: no class is above it
        classes = np.where(data.classes > 0, data.classes + by, data.classes)
        classes[6] = -1
        return dataclasses.replace(data, classes=classes)

    build(tmp_path, splits={"val": ["a"]}, make=one)
    assert check.main([str(tmp_path)]) == 1
    assert (
        "problem: 0 of 2 boxes agree with the step labels, and 2 would if each class were one "
        f"{other}: the classes are one too {word}: " in capsys.readouterr().out
    )
