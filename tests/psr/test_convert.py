"""COCO results and YOLO text files to the ASD format."""

import json

import numpy as np
import pytest

from stormpsr_jax.psr import convert
from stormpsr_jax.psr.predictions import read_detections
from stormpsr_jax.psr.procedure import Procedure

PROCEDURE = Procedure.from_json(
    {
        "name": "toy",
        "fps": 5,
        "components": ["a", "b"],
        "states": ["10", "11"],
        "variants": {"up": {"initial_state": "00", "expected": [0], "recordings": ["*"]}},
    }
)
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


def test_coco_golden_boxes_classes_and_recordings(folder):
    found = coco(folder, f"--images={folder / 'images.json'}", f"--classes={folder / 'map.json'}")
    assert sorted(found) == ["rec_a", "rec_b", "rec_c"]
    a = found["rec_a"]
    assert a.frames.tolist() == [11, 12, 12]
    assert a.classes.tolist() == [2, 1, 0]
    assert a.confidences.tolist() == [0.25, 0.5, 0.75]
    np.testing.assert_allclose(a.boxes[:2], [[0.5, 0.5, 1, 1], [0.2, 0.2, 0.2, 0.2]])
    assert found["rec_b"].classes.tolist() == [3]
    assert len(found["rec_c"].frames) == 0


def test_coco_property_image_ids_as_frames_in_pixels(folder):
    found = coco(folder, "--recording=mine", "--offset=-5")["mine"]
    assert found.frames.tolist() == [1, 1, 2, 3]
    assert found.classes.tolist() == [0, 3, 1, 2]
    assert found.boxes[0].tolist() == [40, 20, 40, 20]


def test_yolo_golden_is_the_same_as_coco(folder):
    flags = (f"--images={folder / 'images.json'}", f"--classes={folder / 'map.json'}")
    expected = coco(folder, *flags)["rec_a"]
    yolo = run(folder, "yolo", f"--folder={folder / 'rec_y'}", f"--classes={folder / 'map.json'}")[
        "rec_y"
    ]
    for field in ("frames", "classes", "confidences"):
        assert getattr(yolo, field).tolist() == getattr(expected, field).tolist()
    np.testing.assert_allclose(yolo.boxes[:2], expected.boxes[:2])


def test_class_map_property_missing_states_are_told(folder, capsys):
    (folder / "map.json").write_text('{"5": 1, "8": 0}')
    (folder / "results.json").write_text(json.dumps(RESULTS[:1]))
    coco(folder, f"--images={folder / 'images.json'}", f"--classes={folder / 'map.json'}")
    assert "no class maps to the catalogued states 2" in capsys.readouterr().out
    assert convert.ClassMap(MAP, PROCEDURE).missing() == []


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
    with pytest.raises(SystemExit) as error:
        coco(folder, f"--images={folder / 'images.json'}", f"--classes={folder / 'map.json'}")
    assert error.value.code == 2
    said = capsys.readouterr().err
    assert message in said
    assert ".json: " in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_id": 9}, "entry 1: image_id: 9 is not in the annotation file"),
        ({"score": 1.5}, "entry 1: score: '1.5' is not in 0…1"),
        ({"score": "1"}, "entry 1: score: '1'"),
        ({"bbox": [1, 2, 3]}, "entry 1: bbox: [1, 2, 3]"),
        ({"bbox": [1, 2, 3, None]}, "entry 1: bbox: 'None'"),
        ({"category_id": 50}, "entry 1: category_id: class 50"),
    ],
)
def test_coco_errors_name_entry_and_field(change, message):
    with pytest.raises(ValueError) as error:
        convert.from_coco([{**RESULTS[0], **change}], convert.ClassMap(MAP, PROCEDURE), IMAGES)
    assert message in str(error.value)


def test_coco_errors_without_names_of_recordings():
    classes = convert.ClassMap(MAP, PROCEDURE)
    with pytest.raises(ValueError, match="--recording is needed"):
        convert.from_coco(RESULTS, classes)
    with pytest.raises(ValueError, match=r"images\[0\]: file_name: '1.jpg' is in no folder"):
        convert.from_coco(RESULTS, classes, {"images": [{"id": 1, "file_name": "1.jpg"}]})
    with pytest.raises(ValueError, match="does not end in a frame number"):
        convert.from_coco(RESULTS, classes, {"images": [{"id": 1, "file_name": "x/a.jpg"}]})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("5 0.1 0.1 0.1 0.1", "line 1: confidence: is missing"),
        ("5 0.1 0.1 0.1 0.1 0.5 7", "line 1: field 7"),
        ("5 0.1 0.1 0.1 0.1 0.5\n-1 0.1 0.1 0.1 0.1 0.5", "line 2: class: '-1'"),
        ("5 0.1 nan 0.1 0.1 0.5", "line 1: y: 'nan' is not finite"),
        ("5 0.1 0.1 0.1 0.1 2", "line 1: confidence: '2.0' is not in 0…1"),
        ("4 0.1 0.1 0.1 0.1 1", "line 1: class: class 4 is not in the class map"),
    ],
)
def test_yolo_errors_name_file_line_and_field(folder, text, message):
    (folder / "rec_y" / "vid_1_13.txt").write_text(text)
    with pytest.raises(ValueError, match=r"vid_1_13\.txt: ") as error:
        convert.from_yolo(folder / "rec_y", convert.ClassMap(MAP, PROCEDURE))
    assert message in str(error.value)


def test_yolo_errors_name_the_folder(folder):
    classes = convert.ClassMap(MAP, PROCEDURE)
    with pytest.raises(ValueError, match="is not a folder"):
        convert.from_yolo(folder / "nowhere", classes)
    (folder / "rec_y" / "other_12.txt").write_text("")
    with pytest.raises(ValueError, match=r"vid_1_12\.txt: name: frame 12 is also in other_12.txt"):
        convert.from_yolo(folder / "rec_y", classes)
