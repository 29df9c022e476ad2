"""What is told of labels and of finished folders: problems, warnings, the contact sheet."""

import dataclasses
import functools
import json
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from PIL import Image

from data_prep import check, labels, notes
from data_prep.writing import shards
from stormpsr_jax import procedure as procedure_command
from stormpsr_jax.media.framing import Framing
from stormpsr_jax.media.pictures import ImageFiles
from stormpsr_jax.recordings.labels import Labels, states_per_frame
from stormpsr_jax.recordings.recording import Recording
from tests.support import refusals, toy
from tests.support.own_data import PROCEDURE
from tests.support.processes import refused
from tests.support.shards_data import build, make

SHARD = "clips-train.array_record-00001-of-00003"  # of recording b


@pytest.mark.parametrize("arguments", [[], ["--all"]])
def test_check_whole_folder_has_no_problem(folder, arguments, capsys):
    sheet = folder.parent / "sheet.jpg"
    assert check.main([str(folder), f"--out={sheet}", *arguments]) == 0
    out = capsys.readouterr().out
    assert not (folder / "check.jpg").exists()
    assert f"0 problems, 0 warnings ({44 if arguments else 12} frames" in out
    assert "problem:" not in out
    assert "train: 3 recordings, 33 frames; states never seen: 2" in out
    # 4 recordings, 3 completions each; and boxes of two states and of error states.
    width, height = Image.open(sheet).size
    assert (width, height) == (2 * 488, (4 * 3 + 3 + 1) // 2 * 200)


# By file, what is done to its bytes (None: it is removed), and what is said.
DAMAGE = {
    SHARD: [
        (None, "this shard is missing; delete it"),
        (lambda data: data[:-40_000], "has 0 records instead of 3: it is truncated"),
        (lambda data: data[:1000] + bytes([data[1000] ^ 1]) + data[1001:], "damaged, cannot be"),
    ],
    "labels/train.npz": [(None, "missing")],
    "labels/train/b/PSR_labels_raw.csv": [(lambda _: b"1.jpg,0,0\n", "has states of 2 compo")],
    "procedure.json": [
        (lambda data: data.replace(b'"*"', b'"[acd]"'), "no variant matches recording 'b'")
    ],
}


@pytest.mark.parametrize(("file", "change", "said"), [(f, *d) for f in DAMAGE for d in DAMAGE[f]])
def test_check_names_what_is_wrong(folder, file, change, said, capsys):
    path = folder / file
    if change is None:
        path.unlink()
    else:
        path.write_bytes(change(path.read_bytes()))
    assert check.main([str(folder)]) == 1
    out = capsys.readouterr().out
    (line,) = [line for line in out.splitlines() if line.startswith("problem: ")]
    assert said in line
    assert file == "procedure.json" or file in line
    assert "1 problems" in out
    assert (folder / "check.jpg").is_file()


def test_check_unfinished_folder_or_one_of_another_version_is_refused(folder, capsys):
    settings = folder / "settings.json"
    settings.write_text(settings.read_text().replace('"version": 1', '"version": 2'))
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


@pytest.mark.parametrize(
    ("then", "said"),
    [
        ([1, 0, 1], "state 101 (base, lid on) is not in the procedure's states: b at 0:01.2"),
        ([0, 0, 0], "labels/train/b: no step is labelled, as if nothing"),
    ],
)
def test_check_labels_that_are_doubtful_are_a_warning(tmp_path, capsys, then, said):
    def other(data):
        return dataclasses.replace(data, states=np.repeat([[0, 0, 0], then], (5, 6), axis=0))

    build(tmp_path, make=functools.partial(make, change=other))
    assert check.main([str(tmp_path)]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "warning: " in line]
    assert said in line


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


def test_the_sheet_shows_boxes_of_each_state_with_its_parts(tmp_path):
    build(tmp_path, image_size=SIZE, splits={"train": ["a"]}, make=grey)
    assert check.main([str(tmp_path)]) == 0
    strips = [*check._states(check.open_folder(tmp_path))]
    assert [title for title, _ in strips] == [
        "20 boxes of state 1: base",
        "1 boxes of state 2: all but lid",
        "19 boxes of state 3: all parts",
    ]
    tiles = [tile for _, of_state in strips for tile in of_state]
    greys = [tile.picture[len(tile.picture) // 2, tile.picture.shape[1] // 2] for tile in tiles]
    frames = [round(grey.mean() / 5) for grey in greys]
    assert frames == [3, 10, 16, 39, 23, 29, 35]  # evenly spread over those of each state
    # A box that the labels do not fit says what they say.
    (doubtful,) = [tile for tile in tiles if tile.doubtful]
    assert doubtful.caption == "labels: state 3: all parts; a 39"
    with Image.open(tmp_path / "check.jpg") as sheet:
        assert sheet.format == "JPEG"
        shown = np.asarray(sheet)
    first = shown[check.LINE + check.TILE // 2, check.TILE // 2]
    assert first.mean() == pytest.approx(15, abs=3)
    assert (np.ptp(shown.astype(int), axis=2) > 40).any()  # the words in red


CONTENT = toy.content("seal, cover, screw", name="pump", variant="assembly")
CONTENT["variants"]["assembly"] |= {
    "recordings": ["bench*"],
    "allowed": [5],
    "precedence": [[0, 3], [3, 6]],
}
CONTENT["variants"]["repair"] = {
    "initial_state": "111",
    "expected": [8],
    "recordings": ["repair*"],
}
WARNING = "warning: "


@pytest.fixture
def labelled(tmp_path, monkeypatch):
    """Where commands are given, with labels of a repair."""
    monkeypatch.chdir(tmp_path)
    repair = "time,step\n30,Remove screw\n"
    refusals.write({"pump.json": json.dumps(CONTENT), "labels/repair_01.csv": repair}, tmp_path)
    return tmp_path


CHECK = ["check", "labels", "--procedure=pump.json"]


@pytest.mark.parametrize(("_", "files", "messages"), refusals.cases("label_checks.txt"))
def test_labels_warnings_are_named_with_recording_and_time(labelled, capsys, _, files, messages):
    refusals.write(files, labelled)
    assert labels.main(CHECK) == 0
    said = capsys.readouterr().out.splitlines()
    assert [line for line in said if line.startswith(WARNING)] == [WARNING + m for m in messages]


def test_procedure_check_has_the_same_warnings_of_order_and_removals(labelled, capsys):
    rows = "20,Install seal\n40,Install screw\n60,Install cover\n80,Remove screw\n"
    (labelled / "labels/bench_01.csv").write_text(f"time,step\n{rows}")
    labels.main(CHECK)
    lines = capsys.readouterr().out.splitlines()
    odd = [line for line in lines if line.startswith(WARNING) and "bench_01 at" in line]
    assert len(odd) == 3
    procedure_command.main(["check", "pump.json", "--labels=labels"])
    assert capsys.readouterr().out.splitlines() == [
        *odd,
        "pump.json: no errors",
        "labels: the labels of 2 recordings can be read, with warnings",
    ]


def test_describe_steps_that_are_not_the_changes_of_the_states_are_named():
    frames, states = np.array([0, 5, 8, 10]), np.tri(4, 3, -1, dtype=np.int8)
    found = []
    for name, steps in (
        ("bench1", [(5, 0), (8, 3), (10, 6)]),
        ("bench2", [(5, 0), (9, 3), (9, 4), (10, 6)]),
    ):
        labels = Labels(steps, steps, frames, states)
        per_frame = states_per_frame(frames, states, 0, 20)
        video = ImageFiles(Path(name), 0, 20)
        found.append(Recording(name, video, PROCEDURE, labels, per_frame))
    assert notes.describe(found, PROCEDURE)[1:-1] == [
        "recording bench2: PSR_labels.csv and the states differ, changes of state that are no "
        "steps: Install cover at frame 8; steps without a change of state: Install cover at frame "
        "9. Training follows the states and scores follow the steps: correct whichever is wrong"
    ]


# Boxes of two films of 200 x 400 pixels (HxW), in which the product is 10 x 5 % of the picture.
BOXES = [np.array([[0.4, 0.5, 0.1, 0.1], [0.6, 0.5, 0.1, 0.1]]), np.zeros((0, 4))]


@pytest.mark.parametrize(
    ("framing", "across", "advice"),
    [
        (Framing((64, 64)), 6, "--size=280, or give a --crop"),
        (Framing((64, 64), region=(0.2, 0.4, 0.8, 0.6)), 32, None),
        (Framing((320, 320)), 32, None),
    ],
)
def test_a_product_that_is_too_small_is_named_with_the_size_or_crop_that_helps(
    framing, across, advice
):
    line, warning = notes.product_size(BOXES, [(200, 400)] * 2, framing)
    size = framing.size[0]
    assert line == f"the product is {across} pixels across at --size={size} (in the videos 40)"
    assert (advice is None) == (warning == "")
    assert (advice or "") in warning
    assert notes.product_size(BOXES[1:], [(200, 400)], framing) == ("", "")
