"""COCO results, YOLO text files, other frame rates and labels by the clock, to our files."""

import json
import shutil

import numpy as np
import pytest

from stormpsr_jax.psr import convert
from stormpsr_jax.psr.files import class_maps, label_files, other_detectors, predictions, resample
from stormpsr_jax.psr.files.predictions import Detections, TemporalPredictions, read_detections
from tests.support import toy
from tests.support.commands import refused

PROCEDURE = toy.procedure("a, b", "10 11", variant="up", expected=[0])
MAP = {"5": 1, "6": "11", "7": "error", "8": "background", "9": "error"}
IMAGES = {
    "images": [
        {"id": 1, "file_name": "x/rec_a/rgb/000012.jpg", "width": 200, "height": 100},
        {"id": 2, "file_name": "x/rec_a/rgb/000011.jpg", "width": 200, "height": 100},
        {"id": 3, "file_name": "x/rec_b/000011.jpg", "width": 200, "height": 100},
        {"id": 4, "file_name": "x/rec_c/000011.jpg", "width": 200, "height": 100},
    ]
}
RESULTS = [
    {"image_id": 1, "category_id": 5, "bbox": [20, 10, 40, 20], "score": 0.5},
    {"image_id": 2, "category_id": 6, "bbox": [0, 0, 200, 100], "score": 0.25},
    {"image_id": 1, "category_id": 8, "bbox": [0, 0, 2, 2], "score": 0.75},
    {"image_id": 3, "category_id": 7, "bbox": [0, 0, 2, 2], "score": 1},
]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "toy.json").write_text(json.dumps(PROCEDURE.to_json()))
    (tmp_path / "map.json").write_text(json.dumps(MAP))
    (tmp_path / "results.json").write_text(json.dumps(RESULTS))
    (tmp_path / "images.json").write_text(json.dumps(IMAGES))
    (tmp_path / "rec_y").mkdir()
    (tmp_path / "rec_y" / "vid_1_12.txt").write_text("5 0.2 0.2 0.2 0.2 0.5\n\n8 .1 .1 .1 .1 .75\n")
    (tmp_path / "rec_y" / "vid_1_11.txt").write_text("6 0.5 0.5 1 1 0.25\r\n")
    (tmp_path / "rec_y" / "vid_1_13.txt").write_text("")
    return tmp_path


def run(folder, *flags):
    convert.main([*flags, f"--procedure={folder / 'toy.json'}", f"--out={folder / 'asd'}"])
    return {
        path.name.removesuffix("_results_pred.csv"): read_detections(path, PROCEDURE)
        for path in (folder / "asd").iterdir()
    }


def coco(folder, *flags):
    return run(folder, "coco", f"--results={folder / 'results.json'}", *flags)


def mapped(folder):
    """The flags of the files of images and of classes."""
    return f"--images={folder / 'images.json'}", f"--classes={folder / 'map.json'}"


def yolo(folder, *flags):
    return run(folder, "yolo", f"--folder={folder / 'rec_y'}", *flags)


def test_coco_golden_boxes_classes_and_recordings(folder):
    found = coco(folder, *mapped(folder))
    assert sorted(found) == ["rec_a", "rec_b", "rec_c"]
    a = found["rec_a"]
    assert a.frames.tolist() == [11, 12, 12]
    assert a.classes.tolist() == [2, 1, 0]
    assert a.confidences.tolist() == [0.25, 0.5, 0.75]
    np.testing.assert_allclose(a.boxes[:2], [[0.5, 0.5, 1, 1], [0.2, 0.2, 0.2, 0.2]])
    assert found["rec_b"].classes.tolist() == [3]
    assert len(found["rec_c"].frames) == 0


def test_coco_image_ids_as_frames_in_pixels(folder):
    found = coco(folder, "--recording=mine", "--offset=-5")["mine"]
    assert found.frames.tolist() == [1, 1, 2, 3]
    assert found.classes.tolist() == [0, 3, 1, 2]
    assert found.boxes[0].tolist() == [40, 20, 40, 20]


def test_yolo_golden_is_the_same_as_coco(folder):
    expected = coco(folder, *mapped(folder))["rec_a"]
    found = yolo(folder, mapped(folder)[1])["rec_y"]
    for field in ("frames", "classes", "confidences"):
        assert getattr(found, field).tolist() == getattr(expected, field).tolist()
    np.testing.assert_allclose(found.boxes[:2], expected.boxes[:2])


@pytest.mark.parametrize("form", ["coco", "yolo"])
def test_a_wrong_class_key_is_told_once_with_how_often_it_comes(folder, capsys, form):
    (folder / "map.json").write_text('{"6": 2}')
    if form == "coco":
        many = [RESULTS[0] | {"category_id": c} for c in [5] * 876 + [6] + [7, 7]]
        (folder / "results.json").write_text(json.dumps([*many, RESULTS[0] | {"score": 2}]))
        words = ["coco", *(f"--{name}={folder / name}.json" for name in ("results", "images"))]
        places = ("entry 1: category_id", "entry 878: category_id", "entry 880: score")
    else:
        shutil.rmtree(folder / "rec_y")
        (folder / "rec_y").mkdir()
        rows = [f"{c} 0.1 0.1 0.1 0.1 1\n" for c in [5] * 876 + [6] + [7, 7]]
        (folder / "rec_y" / "f_1.txt").write_text("".join(rows) + "5 0.1 0.1 0.1 0.1 2\n")
        words = ["yolo", f"--folder={folder / 'rec_y'}"]
        places = ("line 1: class", "line 878: class", "line 880: conf")
    words += [f"--procedure={folder / 'toy.json'}", f"--classes={folder / 'map.json'}"]
    with pytest.raises(SystemExit):
        convert.main([*words, f"--out={folder / 'out'}"])
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert places[2] in lines[0]
    times = (875, 1)
    for line, place, c, more in zip(lines[1:], places, (5, 7), times, strict=False):
        assert f"{place}: class {c} is not in the class map ({more} more detection" in line


def test_class_map_missing_states_are_told(folder, capsys):
    (folder / "map.json").write_text('{"5": 1, "8": 0}')
    (folder / "results.json").write_text(json.dumps(RESULTS[:1]))
    coco(folder, *mapped(folder))
    assert "no class maps to the catalogued states 2" in capsys.readouterr().out
    assert other_detectors.ClassMap(MAP, PROCEDURE).missing() == []


@pytest.mark.parametrize(
    ("class_map", "message"),
    [
        ({"5": 4}, "class '5' maps to 4, which is none of 0…3"),
        ({"5": "01"}, "maps to '01'"),
        ({"5": True}, "maps to True"),
        ({"5": 1, "6": "10"}, "classes '5' and '6' both map to class 1"),
        ([], "a class map is an object"),
        ({"6": 2}, "entry 1: category_id: class 5 is not in the class map"),
    ],
)
def test_class_map_errors_name_the_class(folder, capsys, class_map, message):
    (folder / "map.json").write_text(json.dumps(class_map))
    said = refused(capsys, coco, folder, *mapped(folder), lines=None)
    assert message in said
    assert ".json: " in said
    assert all(line.startswith("error: ") for line in said.splitlines())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_id": 9}, "entry 1: image_id: 9 is not in the annotation file"),
        ({"score": 1.5}, "entry 1: score: 1.5 is not in 0…1"),
        ({"score": "1"}, "entry 1: score: '1' has the wrong type"),
        ({"bbox": [1, 2, 3]}, "entry 1: bbox: [1, 2, 3]"),
        ({"bbox": [1, 2, 3, None]}, "entry 1: bbox: None"),
        ({"category_id": 50}, "entry 1: category_id: class 50"),
    ],
)
def test_coco_errors_name_entry_and_field(change, message):
    with pytest.raises(ValueError) as error:
        other_detectors.from_coco(
            [{**RESULTS[0], **change}],
            other_detectors.ClassMap(MAP, PROCEDURE),
            other_detectors.coco_images(IMAGES, "images.json"),
        )
    assert message in str(error.value)


def test_coco_errors_without_names_of_recordings():
    classes = other_detectors.ClassMap(MAP, PROCEDURE)
    with pytest.raises(ValueError, match="--recording is needed"):
        other_detectors.from_coco(RESULTS, classes)
    for name, message in (
        ("1.jpg", r"images\[0\]: file_name: '1.jpg' is in no folder"),
        ("../1.jpg", r"images\[0\]: file_name: name '..': begins with a dot"),
        ("x/a.jpg", "does not end in a frame number"),
    ):
        with pytest.raises(ValueError, match=message):
            other_detectors.coco_images({"images": [{"id": 1, "file_name": name}]}, "images.json")


@pytest.mark.parametrize(
    ("names", "recording"),
    [
        (("cam_a_000012.jpg", "cam_b_000012.jpg"), "rec_a"),  # flat names
        (("rec_a/left_12.jpg", "rec_a/right_12.jpg"), None),
        (("rec_a/12.jpg", "rec_a/12.jpg"), None),
    ],
)
def test_coco_images_of_one_frame_are_refused(folder, capsys, names, recording):
    images = [{"id": i, "file_name": name} for i, name in enumerate(names)]
    (folder / "images.json").write_text(json.dumps({"images": images}))
    flags = [] if recording is None else [f"--recording={recording}"]
    said = refused(capsys, coco, folder, *mapped(folder), *flags)
    assert f"images[1]: file_name: {names[1]!r} is frame 12 of recording 'rec_a', as" in said
    assert repr(names[0]) in said


def test_what_is_wrong_with_images_names_their_file(folder, capsys):
    # Python finds numbers of the form k · (2^61 - 1) in a dictionary by going through all of them.
    images = [{"id": k * (2**61 - 1), "file_name": f"rec/{k}.jpg"} for k in range(1, 4)]
    (folder / "images.json").write_text(json.dumps({"images": images}))
    said = refused(capsys, coco, folder, *mapped(folder), lines=None).splitlines()
    assert len(said) == 3
    assert f"{folder / 'images.json'}: images[0]: id: 2305843009213693951 is beyond" in said[0]


def test_category_ids_that_are_huge_are_no_keys(folder, capsys):
    predictions_json(folder, [2**61 - 1, 2 * (2**61 - 1)])
    (folder / "names.txt").write_text("10\n11\n")
    said = refused(capsys, coco, folder, f"--names={folder / 'names.txt'}", lines=2)
    assert "entry 1: category_id: 2305843009213693951 is beyond" in said


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("5 0.1 0.1 0.1 0.1", "line 1: confidence: is missing (the row has 5 fields); Ultr"),
        ("5 0.1 0.1 0.1 0.1 0.5 7", "line 1: field 7"),
        ("5 0.1 0.1 0.1 0.1 0.5\n-1 0.1 0.1 0.1 0.1 0.5", "line 2: class: '-1'"),
        ("5 0.1 nan 0.1 0.1 0.5", "line 1: y: 'nan' is not finite"),
        ("5 0.1 0.1 0.1 0.1 2", "line 1: confidence: 2.0 is not in 0…1"),
        ("4 0.1 0.1 0.1 0.1 1", "line 1: class: class 4 is not in the class map"),
    ],
)
def test_yolo_errors_name_file_line_and_field(folder, text, message):
    (folder / "rec_y" / "vid_1_13.txt").write_text(text)
    with pytest.raises(ValueError, match=r"vid_1_13\.txt: ") as error:
        other_detectors.from_yolo(folder / "rec_y", other_detectors.ClassMap(MAP, PROCEDURE))
    assert message in str(error.value)


def test_yolo_errors_name_the_folder(folder):
    classes = other_detectors.ClassMap(MAP, PROCEDURE)
    with pytest.raises(ValueError, match="is not a folder"):
        other_detectors.from_yolo(folder / "nowhere", classes)
    (folder / "rec_y" / "other_12.txt").write_text("")
    with pytest.raises(ValueError, match=r"vid_1_12\.txt: name: frame 12 is also in other_12.txt"):
        other_detectors.from_yolo(folder / "rec_y", classes, "rec_y")


def test_yolo_class_names_are_no_frame(folder):
    for note in ("classes.txt", "README.roboflow.txt", "labels.txt"):
        (folder / "rec_y" / note).write_text("person\nscrew\n")
    classes = other_detectors.ClassMap(MAP, PROCEDURE)
    found = other_detectors.from_yolo(folder / "rec_y", classes)
    assert found["rec_y"].frames.tolist() == [11, 12, 12]


@pytest.mark.parametrize("name", ["12_jpg.rf.5a1f8c0d93e4.txt", "12_jpg.rf.93ea.txt", "x.txt"])
def test_yolo_files_whose_names_end_in_no_frame_are_refused(folder, name):
    (folder / "rec_y" / name).write_text("")
    classes = other_detectors.ClassMap(MAP, PROCEDURE)
    with pytest.raises(ValueError, match="its name does not end in a frame's number") as error:
        other_detectors.from_yolo(folder / "rec_y", classes)
    assert str(error.value).startswith(f"{folder / 'rec_y' / name}: ")


def test_a_folder_called_labels_has_the_recordings_that_its_files_name(folder, capsys):
    labels = (folder / "rec_y").rename(folder / "labels")
    flags = ("yolo", f"--folder={labels}", f"--classes={folder / 'map.json'}")
    assert list(run(folder, *flags, "--recording=mine")) == ["mine"]
    (labels / "other_3.txt").write_text("6 0.5 0.5 1 1 0.25\n")
    found = run(folder, *flags)
    assert sorted(found) == ["mine", "other", "vid_1"]
    assert found["other"].frames.tolist() == [3]
    assert found["vid_1"].frames.tolist() == [11, 12, 12]
    (labels / "000012.txt").write_text("")
    assert "000012.txt: name: '000012' names no recording" in refused(capsys, run, folder, *flags)


def test_files_of_several_videos_are_never_one_recording(folder):
    (folder / "rec_y" / "other_3.txt").write_text("6 0.5 0.5 1 1 0.25\n")
    classes = other_detectors.ClassMap(MAP, PROCEDURE)
    assert sorted(other_detectors.from_yolo(folder / "rec_y", classes)) == ["other", "vid_1"]


def test_frames_that_ultralytics_counts_from_1_begin_at_0(folder, capsys):
    classes = mapped(folder)[1]
    yolo(folder, classes)
    assert "give --first_frame=1" in capsys.readouterr().out
    assert yolo(folder, classes, "--first_frame=1")["rec_y"].frames.tolist() == [10, 11, 11]
    # Frame 11 of a video is at 10/10 s, which is frame 5 at 5 a second, and not frame 6.
    slower = yolo(folder, classes, "--first_frame=1", "--fps=10:5")["rec_y"]
    assert slower.frames.tolist() == [5, 6, 6]
    assert "first_frame" not in capsys.readouterr().out
    said = refused(capsys, yolo, folder, classes, "--first_frame=12")
    assert "vid_1_11.txt: name: is before the first frame" in said


def test_pictures_with_padded_numbers_are_not_taken_for_frames_of_a_video(folder, capsys):
    (folder / "rec_y" / "vid_1_000009.txt").write_text("")
    yolo(folder, f"--classes={folder / 'map.json'}")
    assert "first_frame" not in capsys.readouterr().out


NAMES = {
    "data.yaml": "path: x\nnc: 4\nnames: [background, 10, 11, error_state]\n",
    "numbers.yml": "names:\n  0: background\n  3: error_state\n  1: 10\n  2: '11'\n",
    "classes.txt": "background\n10\n11\nerror_state\n",
}


@pytest.mark.parametrize("name", NAMES)
def test_classes_have_the_states_that_their_names_are(folder, capsys, name):
    (folder / name).write_text(NAMES[name])
    text = "".join(f"{c} .5 .5 .1 .1 .9\n" for c in (0, 1, 2, 3))
    (folder / "rec_y" / "vid_1_12.txt").write_text(text)
    (folder / "rec_y" / "vid_1_11.txt").write_text("")
    found = yolo(folder, f"--names={folder / name}")
    assert found["rec_y"].classes.tolist() == [0, 1, 2, 3]
    said = capsys.readouterr().out
    assert "4 classes: 2 of the 2 states of procedure 'toy', error state, background" in said


def test_a_state_that_begins_with_0_is_no_number_in_base_8(folder):
    (folder / "data.yaml").write_text("names: [0110, 10]\n")
    names = class_maps.read_names(folder / "data.yaml")
    assert names == {0: "0110", 1: "10"}


LAUGHS = [
    "a0: &a0 [x]",
    *(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)),
]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("names: [10, screw]\n", "class '1' maps to 'screw', which is none of"),
        ("names: [10, 10]\n", "classes '0' and '1' both map to class 1"),
        ("nc: 3\n", "has no 'names' of classes"),
        ("names: [\n", "not YAML that can be read"),
        ("names: !!python/object/apply:os.system ['true']\n", "names: 0: 'true'"),
        ("names: {a: 10}\n", "names: 'a' is no number of a class"),
        ("names: [[10]]\n", "names: 0: ['10'] is no name"),
        ("[" * 5000, "not YAML that can be read"),
        # Twelve lists, of each of which the next one has ten: 10^12 texts if they were shown.
        ("\n".join(LAUGHS) + "\nnames: {0: *a11}\n", "names: 0: [[["),
        ("\n".join(LAUGHS) + "\nnames: *a11\n", "names: 0: [[["),
        ("names: [" + "x, " * 100_000 + "x]", "is no list of names"),
    ],
)
def test_names_that_are_no_states_are_one_line(folder, capsys, text, message):
    (folder / "data.yaml").write_text(text)
    said = refused(
        capsys,
        run,
        folder,
        "yolo",
        f"--folder={folder / 'rec_y'}",
        f"--names={folder / 'data.yaml'}",
    )
    assert "data.yaml: " in said
    if "os.system" not in text:
        assert message in said
    else:
        assert "class '0' maps to 'true'" in said  # a text, and nothing was called
    assert not (folder / "asd").exists()


def predictions_json(folder, categories):
    """What `yolo val save_json=True` writes of pictures named <recording>_<frame>.jpg."""
    entries = [
        {
            "image_id": f"rec_a_{i:06d}",
            "file_name": f"rec_a_{i:06d}.jpg",
            "category_id": c,
            "bbox": [20.0, 10.0, 40.0, 20.0],
            "score": 0.5,
        }
        for i, c in enumerate(categories)
    ]
    (folder / "results.json").write_text(json.dumps(entries))


def test_category_ids_of_ultralytics_from_0_and_from_1_give_the_same_classes(folder, capsys):
    (folder / "data.yaml").write_text(NAMES["data.yaml"])
    flag = f"--names={folder / 'data.yaml'}"
    for categories, first in (([0, 1, 2, 3], 0), ([1, 2, 3, 4], 1)):
        predictions_json(folder, categories)
        found = coco(folder, flag)["rec_a"]
        assert found.frames.tolist() == [0, 1, 2, 3]
        assert found.classes.tolist() == [0, 1, 2, 3]
        assert found.boxes[0].tolist() == [40, 20, 40, 20]
        assert f"category_id {first} is class 0, 'background'" in capsys.readouterr().out


def test_category_ids_that_do_not_tell_where_they_begin_are_refused(folder, capsys):
    (folder / "data.yaml").write_text(NAMES["data.yaml"])
    flag = f"--names={folder / 'data.yaml'}"
    for categories, message in (([1, 2, 3], "from 0 or from 1"), ([0, 4], "are not those of 4")):
        predictions_json(folder, categories)
        said = refused(capsys, coco, folder, flag)
        assert message in said
        assert "results.json: category_id: " in said
    predictions_json(folder, [])
    assert coco(folder, flag, "--recording=empty")["empty"].frames.tolist() == []
    predictions_json(folder, [1, 2, 3])
    assert coco(folder, flag, "--first_category=0")["rec_a"].classes.tolist() == [1, 2, 3]
    assert coco(folder, flag, "--first_category=1")["rec_a"].classes.tolist() == [0, 1, 2]


def test_coco_errors_all_of_a_file(folder):
    results = [{**RESULTS[0], "score": 3}, RESULTS[1], {"image_id": 1}, 7]
    classes = other_detectors.ClassMap(MAP, PROCEDURE)
    with pytest.raises(ValueError, match=r"entry 1: score.*\nentry 3: score.*\nentry 4: 7 is not"):
        other_detectors.from_coco(
            results, classes, other_detectors.coco_images(IMAGES, "images.json")
        )


def test_resample_golden_the_most_confident_frame_is_kept_whole():
    frames = np.array([0, 1, 5, 6, 6, 9, 10])
    confidences = np.array([0.5, 0.25, 0.5, 0.75, 0.25, 0.5, 1.0])
    rows = Detections(frames, np.arange(7), confidences, np.zeros((7, 4)))
    changed = resample.detections(rows, 25, 5)
    # 0 → 0; 1 and 5 → 1; 6, 9 and 10 → 2, of which 10 is the most confident.
    assert changed.frames.tolist() == [0, 1, 2]
    assert changed.classes.tolist() == [0, 2, 6]
    changed = resample.detections(
        Detections(frames[:6], rows.classes[:6], confidences[:6], rows.boxes[:6]), 25, 5
    )
    assert changed.frames.tolist() == [0, 1, 2, 2]
    assert changed.classes.tolist() == [0, 2, 3, 4]  # both rows of frame 6
    faster = resample.detections(rows, 5, 25)
    assert faster.frames.tolist() == (5 * frames).tolist()
    assert faster.classes.tolist() == rows.classes.tolist()


def test_resample_golden_the_last_clip_is_kept():
    frames = np.array([0, 4, 5, 8, 11])
    table = np.arange(10).reshape(5, 2)
    clips = TemporalPredictions(frames, table, table, table / 10)
    changed = resample.temporal(clips, 25, 5)
    assert changed.frames.tolist() == [0, 1, 2, 3]
    assert changed.labels[:, 0].tolist() == [0, 4, 6, 8]


@pytest.mark.parametrize("rates", [(25, 5), (29.97, 10), (30, 30), (5, 25), (12, 10)])
def test_resample_first_frame_at_or_after_the_time(rates):
    source, target = rates
    numbers = np.arange(1000)
    changed = resample.frames(numbers, source, target)
    late = changed / target - numbers / source
    assert late.min() >= -1e-6
    assert late.max() < 1 / target
    assert (resample.frames(numbers, source, source) == numbers).all()


def test_frames_both_streams_and_coco(folder):
    rows = Detections(np.array([10, 50]), np.array([1, 2]), np.ones(2), np.zeros((2, 4)))
    ones = np.ones((2, 2), int)
    clips = TemporalPredictions(np.array([10, 50]), ones, ones, 0.5 * ones)
    (folder / "mixed").mkdir()
    predictions.write_detections(folder / "mixed" / "a_results_pred.csv", "a", rows)
    predictions.write_temporal(folder / "mixed" / "b_results_pred.csv", "b", clips)
    flags = [f"--procedure={folder / 'toy.json'}", f"--out={folder / 'out'}", "--fps=25"]
    convert.main(["frames", f"--predictions={folder / 'mixed'}", *flags])
    for name in "ab":
        path = folder / "out" / f"{name}_results_pred.csv"
        assert predictions.read_either(path, PROCEDURE).frames.tolist() == [2, 10]
    found = coco(folder, "--recording=mine", "--offset=-5", "--fps=10:5")["mine"]
    assert found.frames.tolist() == [1, 1, 2]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--fps=0"], "--fps=0 is not FROM or FROM:TO"),
        (["--fps=5:"], ""),
        (["--fps=x:5"], "--fps=x:5 is not FROM or FROM:TO"),
        (["--fps=1e-6:1000"], "leads to frames after"),
    ],
)
def test_frames_errors_name_the_flag(folder, capsys, flags, message):
    rows = Detections(np.array([10, 50]), np.array([1, 2]), np.ones(2), np.zeros((2, 4)))
    (folder / "asd_25").mkdir()
    predictions.write_detections(folder / "asd_25" / "a_results_pred.csv", "a", rows)
    common = [f"--predictions={folder / 'asd_25'}", f"--procedure={folder / 'toy.json'}"]
    if not message:
        convert.main(["frames", *common, *flags, f"--out={folder / 'out'}"])
        flags, message = ["--fps=25", f"--out={folder / 'asd_25'}"], "converting twice"
    assert message in refused(
        capsys, convert.main, ["frames", *common, f"--out={folder / 'out'}", *flags]
    )


def test_labels_written_folders_say_what_was_read(folder):
    root = folder / "timed"
    (root / "train" / "b").mkdir(parents=True)
    (root / "a.csv").write_text("time,step\n2,Install a\n3,Install b\n4,Remove b\n")
    (root / "train" / "b" / "PSR_labels.csv").write_text("00007.jpg,0,Install a\n")
    flags = [f"--labels={root}", f"--procedure={folder / 'toy.json'}"]
    convert.main(["labels", *flags, f"--out={folder / 'psr'}"])
    before, after = label_files.find(root), label_files.find(folder / "psr")
    assert list(before) == list(after) == ["a", "b"]
    variant = PROCEDURE.variants["up"]
    for name in before:
        read = [label_files.read(f[name], PROCEDURE, variant) for f in (before, after)]
        assert read[0].steps == read[1].steps
        assert read[0].with_errors == read[1].with_errors
    assert label_files.read(after["a"], PROCEDURE, variant).steps == [(10, 0), (15, 3), (20, 5)]
    assert label_files.read(after["b"], PROCEDURE, variant).states.tolist() == [[0, 0], [1, 0]]
    convert.main(["labels", *flags, f"--out={folder / 'psr'}", "--fps=10"])
    assert label_files.read(after["a"], PROCEDURE, variant).steps[0] == (20, 0)


def test_labels_errors_of_all_files(folder, capsys):
    root = folder / "timed"
    (root / "b").mkdir(parents=True)
    (root / "a.csv").write_text("time,step\n2,Remove a\n3,what\n")
    (root / "b" / "PSR_labels.csv").write_text("00000.jpg,0,Install a\n")
    flags = [f"--labels={root}", f"--procedure={folder / 'toy.json'}"]
    said = refused(capsys, convert.main, ["labels", *flags, f"--out={folder / 'psr'}"], lines=2)
    assert "a.csv: line 3: step: 'what'" in said
    assert "b: step 0 at frame 0 is not after frame 0" in said
    assert not (folder / "psr").exists()


CATEGORIES = [
    {"id": 5, "name": "10"},
    {"id": 6, "name": "background"},
    {"id": 7, "name": "error_state"},
    {"id": 8, "name": "11"},
]


def test_categories_have_the_states_that_their_names_are(folder):
    (folder / "images.json").write_text(json.dumps(IMAGES | {"categories": CATEGORIES}))
    found = coco(folder, mapped(folder)[0], f"--names={folder / 'images.json'}")
    assert found["rec_a"].classes.tolist() == [0, 1, 2]
    assert found["rec_b"].classes.tolist() == [3]


def test_a_class_map_may_have_the_names_of_categories(folder):
    named = [{"id": c["id"], "name": f"class {c['id']}"} for c in CATEGORIES]
    (folder / "images.json").write_text(json.dumps(IMAGES | {"categories": named}))
    classes = {f"class {c['id']}": c["name"] for c in CATEGORIES}
    (folder / "map.json").write_text(json.dumps(classes))
    assert coco(folder, *mapped(folder))["rec_a"].classes.tolist() == [0, 1, 2]


def test_yolo_folders_of_many_recordings_are_converted_in_one_call(folder):
    expected = yolo(folder, mapped(folder)[1])["rec_y"]
    (folder / "all/rec_z").mkdir(parents=True)
    (folder / "rec_y").rename(folder / "all/rec_y")
    (folder / "all/rec_y").rename(folder / "all/rec_z/labels")
    (folder / "all/rec_y").mkdir()
    (folder / "all/rec_y/000011.txt").write_text("5 0.5 0.5 1 1 0.25\n")
    (folder / "all/runs.log").write_text("")
    found = run(folder, "yolo", f"--folder={folder / 'all'}", mapped(folder)[1])
    assert sorted(found) == ["rec_y", "rec_z"]
    assert found["rec_z"].frames.tolist() == expected.frames.tolist()
    assert found["rec_y"].frames.tolist() == [11]


def test_yolo_folders_mistakes_of_all_recordings_come_at_once(folder, capsys):
    for name in ("rec_1", "rec_2"):
        (folder / "all" / name).mkdir(parents=True)
        (folder / "all" / name / "000011.txt").write_text("5 0.5 0.5 1 1\n")
    with pytest.raises(SystemExit):
        run(folder, "yolo", f"--folder={folder / 'all'}", mapped(folder)[1])
    said = capsys.readouterr().err
    assert said.count("confidence: is missing") == 2
