import base64
import dataclasses
import functools
import re

import numpy as np
import pytest
import simplejpeg

from data_prep import check
from data_prep.checking import statistics as check_statistics
from data_prep.writing import shards
from stormpsr_jax.data.annotation import LabelledFrames
from tests.support.commands import refused
from tests.support.damage import edited, removed, written
from tests.support.shards_data import build, jpeg, make, toy_procedure, toy_recording

SHARD = "clips-train.array_record-00001-of-00003"  # of recording b


@pytest.mark.parametrize("arguments", [[], ["--all"]])
def test_check_whole_folder_has_no_problem(folder, arguments, capsys):
    page = folder.parent / "page.html"
    assert check.main([str(folder), f"--out={page}", *arguments]) == 0
    out = capsys.readouterr().out
    assert not (folder / "check.html").exists()
    assert f"0 problems, 0 warnings ({44 if arguments else 12} frames" in out
    assert "problem:" not in out
    page = page.read_text()
    assert "No problems found" in page
    assert not re.search(r'(src|href)="(?!data:|#)', page)  # opens offline
    # 4 recordings, 3 completions each, around; and 3 boxes of two states and of error states.
    assert page.count("data:image/jpeg") == 4 * 3 * 3 + 3 * 3
    assert re.findall(r'row">(.*?)</th><td><code>(.*?)</code></td><td>(.*?)</td>', page) == [
        ("uncatalogued", "", "9 · 0"),
        ("state 1", "100", "6 · 3"),
        ("state 2", "110", "0 · 0"),
        ("state 3", "111", "12 · 3"),
        ("error state", "", "6 · 3"),
    ]


def _flip(folder):
    data = bytearray((folder / SHARD).read_bytes())
    data[1000] ^= 1
    (folder / SHARD).write_bytes(data)


DAMAGE = {
    "missing": (removed(SHARD), f"{SHARD}: this shard is missing; delete it"),
    "truncated": (
        lambda f: (f / SHARD).write_bytes((f / SHARD).read_bytes()[:-40_000]),
        f"{SHARD}: has 0 records instead of 3: it is truncated",
    ),
    "flipped": (_flip, f"{SHARD}: damaged, cannot be read"),
    "no labels": (removed("labels/train.npz"), "train.npz: missing"),
    "other K": (
        written("labels/train/b/PSR_labels_raw.csv", "1.jpg,0,0\n"),
        "b/PSR_labels_raw.csv: has states of 2 components",
    ),
    "no variant": (edited("procedure.json", '"*"', '"[acd]"'), "no variant matches recording 'b'"),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_check_names_what_is_wrong(folder, what, capsys):
    damage, expected = DAMAGE[what]
    damage(folder)
    assert check.main([str(folder)]) == 1
    out = capsys.readouterr().out
    (line,) = [line for line in out.splitlines() if line.startswith("problem: ")]
    assert expected in line
    assert "1 problems" in out
    assert expected.partition(":")[0].partition("'")[0] in (folder / "check.html").read_text()


def test_check_unfinished_folder_or_one_of_another_version_is_refused(folder, capsys):
    edited("settings.json", '"version": 1', '"version": 2')(folder)
    assert "settings.json: version: 2 is not 1" in refused(capsys, check.main, [str(folder)])
    (folder / "dataset_info.json").unlink()
    assert "preparation was not finished" in refused(capsys, check.main, [str(folder)])


def test_check_finds_the_same_recording_in_two_splits(tmp_path, capsys):
    def copy(split, name):
        return dataclasses.replace(make(split, "a"), name=name)

    build(tmp_path, splits={"train": ["a", "b"], "test": ["d"]}, make=copy)
    assert check.main([str(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert "warning: train/a and train/b have the same pictures" in out
    assert "problem: train/a and test/d have the same pictures" in out


def test_check_labels_that_are_doubtful_are_a_warning(tmp_path, capsys):
    def other(data):
        return dataclasses.replace(data, states=np.repeat([[0, 0, 0], [1, 0, 1]], (5, 6), axis=0))

    build(tmp_path, make=functools.partial(make, change=other))
    assert check.main([str(tmp_path)]) == 0
    warning = "warning: state 101 (base, lid on) is not in the procedure's states: b at 0:01.2"
    assert warning in capsys.readouterr().out


def test_check_a_recording_without_a_step_is_a_warning(tmp_path, capsys):
    def other(data):
        return dataclasses.replace(data, states=np.zeros_like(data.states))

    build(tmp_path, make=functools.partial(make, change=other))
    assert check.main([str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert f"warning: {tmp_path}/labels/train/b: no step is labelled, as if nothing" in said


def test_check_page_does_not_grow_with_the_data(tmp_path):
    names = [f"r{i:02d}" for i in range(7)]

    def one(split, name):
        n = 12
        states = np.zeros((n, 3), int)
        states[:, 0] = np.arange(n) % 2  # 11 completions
        nothing = np.full((n, 4), np.nan)
        jpegs = [jpeg([int(name[1:]), i]) for i in range(n)]
        return shards.RecordingData(
            name, 0, jpegs, states, nothing, np.full(n, -1), np.full(n, np.nan)
        )

    build(tmp_path, splits={"train": names}, make=one)
    assert check.main([str(tmp_path)]) == 0
    page = (tmp_path / "check.html").read_text()
    assert page.count("data:image/jpeg") == 6 * 10 * 3
    assert "6 of 7 recordings with completions" in page
    assert "10 of 11 completions shown" in page


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


STEPS = [(4, 0), (6, 4), (8, 3), (8, 6)]


def test_split_statistics_matches_counts_by_hand():
    made = [toy_recording(name) for name in ("a", "b")]
    found = [LabelledFrames(d.name, 1, d.states, d.boxes, d.classes, d.visible) for d in made]
    steps = {"a": STEPS, "b": STEPS}
    s = check_statistics.split_statistics(found, toy_procedure(), 5.0, steps)
    # 000 is uncatalogued (3 frames), 100 state 1 (2), 1-10 error (2), 111 state 3 (4).
    assert s.frames_by_class.tolist() == [6, 4, 0, 8, 4]
    assert s.boxes_by_class.tolist() == [0, 2, 0, 2, 2]
    assert s.rows == {
        "Recordings": "2",
        "Frames": "22",
        "Hours": "0.00",
        "Steps": "6",
        "· installed": "6",
        "· removed": "0",
        "Incorrect installations": "2",
        "Steps per recording": "3.0 (3–3)",
        "Seconds per step (median)": "0.7",  # frames 1 → 4 → 8 at 5 frames/s
        "Frames with a box": "6",
        "· of a catalogued state": "4",
        "· uncatalogued (ignored)": "0",
        "· of an error state": "2",
        "Frames annotated as empty": "63.6%",
        "Frames not annotated": "9.1%",
        "Box size (median, of the side)": "20%",
        "Frames in an uncatalogued state": "27.3%",
        "Frames in an error state": "18.2%",
        "States never seen": "2",
        "Visible fraction (mean)": "40%",
    }
