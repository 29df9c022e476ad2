"""COCO results, YOLO text files, other frame rates and labels by the clock, to our files."""

import json

import numpy as np
import pytest

from stormpsr_jax.psr import convert
from stormpsr_jax.recordings import find, predictions
from stormpsr_jax.recordings.predictions import Detections, TemporalPredictions, read_detections
from tests.support import refusals, toy
from tests.support.processes import refused

PROCEDURE = toy.procedure("a, b", "10 11", variant="up", expected=[0])
MAP = {"5": 1, "6": "11", "7": "error", "8": "background", "9": "error"}
IMAGES = {
    "images": [
        {"id": i, "file_name": f"{name}.jpg", "width": 200, "height": 100}
        for i, name in enumerate(
            ("x/rec_a/rgb/000012", "x/rec_a/rgb/000011", "x/rec_b/000011", "x/rec_c/000011"), 1
        )
    ]
}
FIRST = {"image_id": 1, "category_id": 5, "bbox": [20, 10, 40, 20], "score": 0.5}
RESULTS = [
    FIRST,
    {"image_id": 2, "category_id": 6, "bbox": [0, 0, 200, 100], "score": 0.25},
    {"image_id": 1, "category_id": 8, "bbox": [0, 0, 2, 2], "score": 0.75},
    {"image_id": 3, "category_id": 7, "bbox": [0, 0, 2, 2], "score": 1},
]
ROWS = Detections(np.array([10, 50]), np.array([1, 2]), np.ones(2), np.zeros((2, 4)))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(
        {
            "toy.json": PROCEDURE.to_json(),
            "map.json": MAP,
            "results.json": RESULTS,
            "images.json": IMAGES,
            "rec_y/vid_1_12.txt": "5 0.2 0.2 0.2 0.2 0.5\n\n8 .1 .1 .1 .1 .75\n",
            "rec_y/vid_1_11.txt": "6 0.5 0.5 1 1 0.25\r\n",
            "rec_y/vid_1_13.txt": "",
        },
        tmp_path,
    )
    return tmp_path


def write(files, folder):
    texts = {name: c if isinstance(c, str) else json.dumps(c) for name, c in files.items()}
    refusals.write(texts, folder)


def run(*words):
    convert.main([*words, "--procedure=toy.json", "--out=asd"])
    found = predictions.find("asd", "--asd")
    return {name: read_detections(place, PROCEDURE) for name, place in found.items()}


COCO = ("coco", "--results=results.json")
MAPPED = (*COCO, "--images=images.json", "--classes=map.json")
YOLO = ("yolo", "--folder=rec_y", "--classes=map.json")


def test_coco_and_yolo_golden_boxes_classes_and_recordings(folder):
    found = run(*MAPPED)
    assert sorted(found) == ["rec_a", "rec_b", "rec_c"]
    a = found["rec_a"]
    assert a.frames.tolist() == [11, 12, 12]
    assert a.classes.tolist() == [2, 1, 0]
    assert a.confidences.tolist() == [0.25, 0.5, 0.75]
    np.testing.assert_allclose(a.boxes[:2], [[0.5, 0.5, 1, 1], [0.2, 0.2, 0.2, 0.2]])
    assert found["rec_b"].classes.tolist() == [3]
    assert len(found["rec_c"].frames) == 0
    other = run(*YOLO)["rec_y"]
    for field in ("frames", "classes", "confidences"):
        assert getattr(other, field).tolist() == getattr(a, field).tolist()
    np.testing.assert_allclose(other.boxes[:2], a.boxes[:2])


@pytest.mark.parametrize(("words", "files", "messages"), refusals.cases("convert.txt"))
def test_what_is_wrong_is_a_line_each_and_nothing_is_written(
    folder, capsys, words, files, messages
):
    (folder / "asd_25").mkdir()
    predictions.write_detections(folder / "asd_25" / "a_results_pred.csv", "a", ROWS)
    refusals.write(files, folder)
    refusals.check(capsys, messages, run, *words.split())
    assert not (folder / "asd").exists()


def test_notes_of_tools_are_no_frames_and_files_of_several_videos_several_recordings(folder):
    notes = ("classes.txt", "README.roboflow.txt", "labels.txt")
    write({f"rec_y/{name}": "person\nscrew\n" for name in notes}, folder)
    assert run(*YOLO)["rec_y"].frames.tolist() == [11, 12, 12]
    write({"rec_y/other_3.txt": "6 0.5 0.5 1 1 0.25\n"}, folder)
    (folder / "rec_y").rename(folder / "labels")
    words = ("yolo", "--folder=labels", "--classes=map.json")
    found = run(*words)
    assert sorted(found) == ["other", "rec_y", "vid_1"]
    assert found["other"].frames.tolist() == [3]
    assert found["vid_1"].frames.tolist() == [11, 12, 12]
    assert "mine" in run(*words, "--recording=mine")


def test_yolo_folders_of_many_recordings_are_converted_in_one_call(folder):
    expected = run(*YOLO)["rec_y"]
    (folder / "all/rec_z").mkdir(parents=True)
    (folder / "rec_y").rename(folder / "all/rec_z/labels")
    write({"all/rec_y/000011.txt": "5 0.5 0.5 1 1 0.25\n", "all/runs.log": ""}, folder)
    found = run("yolo", "--folder=all", "--classes=map.json")
    assert sorted(found) == ["rec_y", "rec_z"]
    assert found["rec_z"].frames.tolist() == expected.frames.tolist()
    assert found["rec_y"].frames.tolist() == [11]


def test_frames_of_both_streams_are_renumbered_into_another_folder(folder, capsys):
    """The most confident frame and the last clip are kept."""
    frames = np.array([0, 1, 5, 6, 6, 9, 10])
    confidences = np.array([0.5, 0.25, 0.5, 0.75, 0.25, 0.5, 1.0])
    rows = Detections(frames, np.arange(7) % 4, confidences, np.zeros((7, 4)))
    some = Detections(*(column[:6] for column in vars(rows).values()))
    shares = np.arange(10).reshape(5, 2) / 10
    table = np.zeros((5, 2), int)
    clips = TemporalPredictions(np.array([0, 4, 5, 8, 11]), table, table, shares)
    (folder / "mixed").mkdir()
    for name, content in (("a", rows), ("b", some), ("c", clips)):
        predictions.write(folder / "mixed" / f"{name}_results_pred.csv", name, content)
    words = ["frames", "--predictions=mixed", "--procedure=toy.json"]

    def found(name):
        return predictions.read_either(folder / f"out/{name}_results_pred.csv", PROCEDURE)

    convert.main([*words, "--fps=25:5", "--out=out"])
    # 0 → 0; 1 and 5 → 1; 6, 9 and 10 → 2, of which 10 is the most confident.
    assert found("a").frames.tolist() == [0, 1, 2]
    assert found("a").classes.tolist() == [0, 2, 2]
    assert found("b").frames.tolist() == [0, 1, 2, 2]  # both rows of frame 6
    assert found("b").classes.tolist() == [0, 2, 3, 0]
    assert found("c").frames.tolist() == [0, 1, 2, 3]
    assert found("c").confidences[:, 0].tolist() == [0, 0.4, 0.6, 0.8]
    convert.main([*words, "--fps=5:25", "--out=out"])
    assert found("a").frames.tolist() == (5 * frames).tolist()
    assert "converting twice" in refused(capsys, convert.main, [*words, "--fps=25", "--out=mixed"])


def test_labels_written_as_folders_say_what_was_read(folder):
    write(
        {
            "timed/a.csv": "time,step\n2,Install a\n3,Install b\n4,Remove b\n",
            "timed/train/b/PSR_labels.csv": "00007.jpg,0,Install a\n",
        },
        folder,
    )
    words = ["labels", "--labels=timed", "--procedure=toy.json", "--out=psr"]
    convert.main(words)
    before, after = find.find(folder / "timed"), find.find(folder / "psr")
    assert list(before) == list(after) == ["a", "b"]
    variant = PROCEDURE.variants["up"]
    for name in before:
        read = [f[name].read(PROCEDURE, variant) for f in (before, after)]
        assert read[0].steps == read[1].steps
        assert read[0].with_errors == read[1].with_errors
    assert after["a"].read(PROCEDURE, variant).steps == [(10, 0), (15, 3), (20, 5)]
    assert after["b"].read(PROCEDURE, variant).states.tolist() == [[0, 0], [1, 0]]
    convert.main([*words, "--fps=10"])
    assert after["a"].read(PROCEDURE, variant).steps[0] == (20, 0)
