"""data_prep.check shows boxes of each state, and holds all of them against the step labels."""

import dataclasses
import re

import numpy as np
import pytest
import simplejpeg

from data_prep import check
from data_prep.checking import boxes
from data_prep.checking.folder import open_folder
from data_prep.writing import shards
from tests.support.check_data import PROCEDURE, make

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


@pytest.fixture(scope="module")
def grey_boxes(tmp_path_factory):
    out = tmp_path_factory.mktemp("grey")
    splits = {"train": ["a"]}
    shards.build(out, procedure=PROCEDURE.at(5), image_size=SIZE, splits=splits, make=grey)
    return out


def test_boxes_of_each_state_stand_beside_its_parts(grey_boxes):
    first, second, third = boxes.by_state(open_folder(grey_boxes))
    assert (first["name"], first["vector"], first["total"]) == ("state 1", "100", 20)
    assert first["parts"] == [("base", True), ("wheel", False), ("lid", False)]
    assert [picture["frame"] for picture in first["pictures"]] == [3, 10, 16]  # evenly spread
    assert third["parts"] == [("base", True), ("wheel", True), ("lid", True)]
    assert (second["total"], len(second["pictures"])) == (1, 1)
    # A box that the labels do not fit says what they say.
    assert [picture["other"] for picture in second["pictures"]] == ["state 3"]
    assert {p["other"] for p in (*first["pictures"], *third["pictures"])} == {""}


def test_the_page_shows_the_boxes_and_says_how_many_agree(grey_boxes, capsys):
    assert check.main([str(grey_boxes)]) == 0
    line = "39 of 40 boxes agree with the step labels of their frames"
    assert f"\n{line}\n" in capsys.readouterr().out
    page = (grey_boxes / "check.html").read_text()
    assert line in page
    section = page[page.index("Boxes by state") : page.index("<h2>Pictures")]
    assert section.count("data:image/jpeg") == 3 + 1 + 3
    assert re.findall(r"<h4>(.*?)<code>(\d+)", section) == [
        ("state 1", "100"),
        ("state 2", "110"),
        ("state 3", "111"),
    ]
    assert re.findall(r"<li( class=\"on\")?>(\w+)</li>", section)[:3] == [
        (' class="on"', "base"),
        ("", "wheel"),
        ("", "lid"),
    ]
    assert section.count("labels: state 3") == 1


@pytest.mark.parametrize(("by", "word", "other"), [(-1, "low", "higher"), (1, "high", "lower")])
def test_classes_that_are_one_off_are_a_problem(tmp_path, capsys, by, word, other):
    def shifted(data):
        there = data.classes > 0
        return dataclasses.replace(data, classes=np.where(there, data.classes + by, data.classes))

    def one(split, name):
        data = make(split, name)
        of_error = data.classes == 4
        data.boxes[of_error] = np.nan  # no class is above it
        return shifted(dataclasses.replace(data, classes=np.where(of_error, -1, data.classes)))

    shards.build(
        tmp_path, procedure=PROCEDURE.at(5), image_size=(16, 24), splits={"val": ["a"]}, make=one
    )
    assert check.main([str(tmp_path)]) == 1
    assert (
        "problem: 0 of 2 boxes agree with the step labels, and 2 would if each class were one "
        f"{other}: the classes are one too {word}: " in capsys.readouterr().out
    )
