"""Boxes on a user's own videos: both formats, and what is wrong with them."""

import dataclasses
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import simplejpeg

from data_prep import own
from data_prep.reading import asd_labels
from stormpsr_jax.data.annotation import EMPTY, NOT_ANNOTATED
from stormpsr_jax.media.framing import Framing
from tests.support.own_data import PROCEDURE, grey, make, opened

BOX = (0.375, 0.5, 0.25, 0.5)  # of a picture 64 x 48: x 16…32, y 12…36


def write_boxes(folder: Path) -> Path:
    folder.mkdir()
    coco = {
        "images": [{"id": 7, "file_name": "bench1/000006.jpg", "width": 64, "height": 48}],
        "categories": [{"id": 1, "name": "pump"}],
        "annotations": [{"id": 1, "image_id": 7, "category_id": 1, "bbox": [16, 12, 16, 24]}],
    }
    (folder / "bench1.json").write_text(json.dumps(coco))
    (folder / "bench2").mkdir()
    (folder / "bench2" / "000006.txt").write_text("0 " + " ".join(map(str, BOX)) + "\n")
    (folder / "bench2" / "000007.txt").write_text("")
    (folder / "bench2" / "classes.txt").write_text("pump\n")
    return folder


def test_own_boxes_of_both_formats_follow_the_picture(own_videos, tmp_path, caplog):
    caplog.set_level("INFO", logger="absl")
    boxes = write_boxes(tmp_path / "boxes")
    framing = Framing((32, 32), aspect="pad", region=(0, 0, 0.5, 1))
    (tmp_path / "splits.csv").write_text("recording,split\nbench1,train\nbench2,val\nbench3,test\n")
    make(
        own_videos,
        tmp_path / "out",
        boxes=boxes,
        framing=framing,
        splits=str(tmp_path / "splits.csv"),
    )
    recordings = opened(tmp_path / "out")
    assert [s.split for _, s in recordings.values()] == ["test", "train", "val"]
    for name in ("bench1", "bench2"):
        recording = recordings[name][0]
        assert np.flatnonzero(recording.classes >= 0).tolist() == [6]
        empty = [7] if name == "bench2" else []  # a file without boxes
        assert np.flatnonzero(recording.classes == EMPTY).tolist() == empty
        assert recording.classes[6] == 1  # the state there, whatever the category says
        # the left half, 32 x 48, becomes 21 x 32 pixels from column 5 on
        expected = [(5 + 0.75 * 21) / 32, 0.5, 0.5 * 21 / 32, 0.5]
        np.testing.assert_allclose(recording.boxes[6], expected, atol=1e-6)
    assert (recordings["bench3"][0].classes == NOT_ANNOTATED).all()
    assert not any("detector" in message for message in caplog.messages)


def test_own_log_says_that_there_are_no_boxes(own_videos, caplog):
    caplog.set_level("INFO", logger="absl")
    assert make(own_videos, own_videos / "out")
    (said,) = (message for message in caplog.messages if "detector" in message)
    assert "no boxes in split train and val" in said
    assert "config.stages" in said
    assert sum(message.startswith("split ") for message in caplog.messages) == 3


def test_own_exported_frames_are_those_of_the_shards(own_videos, tmp_path):
    recordings = own.find_recordings(own_videos / "videos", own_videos / "labels", PROCEDURE)
    assert own.write_frames(recordings, tmp_path, 8) == 9
    paths = sorted((tmp_path / "bench2").iterdir())
    assert [path.name for path in paths] == ["000000.jpg", "000008.jpg", "000016.jpg"]
    for path, i in zip(paths, (0, 8, 16), strict=True):
        image = simplejpeg.decode_jpeg(path.read_bytes())
        assert image.shape == (48, 64, 3)
        assert image.mean() == pytest.approx(grey(i), abs=3)


def test_own_errors_exported_frames_of_another_rate_are_not_left_among_the_others(
    own_videos, tmp_path
):
    folders = own_videos / "videos", own_videos / "labels"
    fast = own.find_recordings(*folders, dataclasses.replace(PROCEDURE, fps=10.0))
    assert own.write_frames(fast, tmp_path, 3) == own.write_frames(fast, tmp_path, 3) == 39
    (tmp_path / "bench1" / "._000003.jpg").touch()  # as macOS leaves it on disks of others
    recordings = own.find_recordings(*folders, PROCEDURE)
    with pytest.raises(ValueError, match="another export") as caught:
        own.write_frames(recordings, tmp_path, 10)
    line, *others = str(caught.value).splitlines()
    assert len(others) == 2
    assert f"{tmp_path}/bench1/000003.jpg: is there from another export (12 of its pic" in line
    shutil.rmtree(tmp_path / "bench1")
    assert own.write_frames(recordings[:1], tmp_path, 10) == 2


def shared_coco(file_names: Sequence[str]) -> dict:
    """One COCO file with images, and a box on each."""
    images = [
        {"id": i, "file_name": name, "width": 64, "height": 48} for i, name in enumerate(file_names)
    ]
    boxes = [
        {"id": i, "image_id": i, "category_id": 1, "bbox": [16, 12, 16, 24]}
        for i in range(len(images))
    ]
    return {
        "images": images,
        "categories": [{"id": 1, "name": "pump"}],
        "annotations": boxes,
    }


@pytest.mark.parametrize("where", ["annotations.json", "boxes", "boxes/annotations"])
def test_own_one_coco_file_of_all_recordings(own_videos, tmp_path, where):
    """As CVAT exports it; a file, or a folder that holds it."""
    content = shared_coco(
        ["bench1/000006.jpg", "frames/bench2/000006.jpg", "my frames\\bench3\\000006.jpg"]
    )
    path = tmp_path / where
    if path.suffix != ".json":
        path.mkdir(parents=True)
        path = path / "instances_default.json"
    path.write_text(json.dumps(content))
    make(own_videos, tmp_path / "out", boxes=tmp_path / where.split("/")[0])
    for name, (recording, _) in opened(tmp_path / "out").items():
        assert np.flatnonzero(recording.classes >= 0).tolist() == [6], name
        np.testing.assert_allclose(recording.boxes[6], BOX, atol=1e-6)


def test_own_copies_of_one_coco_file_of_all_recordings_count_for_their_own(own_videos, tmp_path):
    """As copies of a project's labels do, whose boxes would be those of all recordings."""
    content = shared_coco(["bench1/000006.jpg", "x/bench2/000009.jpg", "bench3\\000012.jpg"])
    content["images"].append(content["images"][1] | {"id": 3, "file_name": "bench2/000010.jpg"})
    for name in ("bench1", "bench2", "bench3"):
        (tmp_path / "boxes").mkdir(exist_ok=True)
        (tmp_path / "boxes" / f"{name}.json").write_text(json.dumps(content))
    make(own_videos, tmp_path / "out", boxes=tmp_path / "boxes")
    found = {name: recording for name, (recording, _) in opened(tmp_path / "out").items()}
    at = {name: np.flatnonzero(r.classes >= 0).tolist() for name, r in found.items()}
    assert at == {"bench1": [6], "bench2": [9], "bench3": [12]}
    empty = {name: np.flatnonzero(r.classes == -1).tolist() for name, r in found.items()}
    assert empty == {"bench1": [], "bench2": [10], "bench3": []}


def test_own_errors_all_mistakes_in_one_coco_file_of_all_recordings(own_videos, tmp_path):
    names = ("bench1/000006.jpg", "bench9/000006.jpg", "000006.jpg", "bench2/x")
    content = shared_coco(names)
    content["annotations"][0]["bbox"] = [16, 12, 16]
    (tmp_path / "all.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="annotations") as caught:
        make(own_videos, tmp_path / "out", boxes=tmp_path / "all.json")
    assert [line.partition("all.json: ")[2] for line in str(caught.value).splitlines()] == [
        "annotations[0]: bbox: [16, 12, 16] is not x, y, w, h",
        "annotations[1]: its image: file_name: 'bench9/000006.jpg' is in no folder named after a "
        "recording, such as RECORDING/000010.jpg",
        "annotations[2]: its image: file_name: '000006.jpg' is in no folder named after a "
        "recording, such as RECORDING/000010.jpg",
        "annotations[3]: its image: file_name: 'bench2/x' does not end in a frame's number, such "
        "as 000010.jpg",
    ]


BOX_MISTAKES = {
    ("bench9.json", "{}"): "boxes without labels: bench9",
    ("bench2.json", "{}"): "--boxes: .*bench2.json and .*bench2 are of the same recording",
    ("bench2/6.txt", ""): "bench2: (6|000006).txt and (6|000006).txt are the same frame",
    ("bench2/000020.txt", "0 .5 .5 .1 .1"): "000020.txt: line 1: frame 20 is not among .* 0…19",
    ("bench2/000008.txt", "0 1.5 .5 .1 .1"): "000008.txt: line 1: x: the box is outside",
    ("bench2/000008.txt", "0 .5 .5 .1"): "000008.txt: line 1: h: is missing",
    (
        "bench2/000008_jpg.rf.5a1f8c0d93e4.txt",
        "",
    ): "93e4.txt: its name does not end in a",
    (
        "bench2/000008_jpg.rf.5a1f8c0d93ea.txt",
        "",
    ): "93ea.txt: its name does not end in a",
    (
        "bench2/pump.txt",
        "",
    ): "pump.txt: its name does not end in a frame's number, such as",
    ("bench1.json", "[]"): "bench1.json: not COCO",
}


@pytest.mark.parametrize(("file", "text"), BOX_MISTAKES)
def test_own_mistakes_in_boxes(own_videos, tmp_path, file, text):
    boxes = write_boxes(tmp_path / "boxes")
    (boxes / file).write_text(text)
    with pytest.raises(ValueError, match=BOX_MISTAKES[file, text]):
        make(own_videos, tmp_path / "out", boxes=boxes)


def test_own_yolo_files_with_a_prefix_and_notes_of_tools(own_videos, tmp_path):
    folder = write_boxes(tmp_path / "boxes") / "bench2"
    (folder / "000006.txt").rename(folder / "ab12cd-000006.txt")
    for note in ("labels.txt", "README.roboflow.txt", "data.txt", "train.txt"):
        (folder / note).write_text("of no picture\n")
    make(own_videos, tmp_path / "out", boxes=tmp_path / "boxes")
    assert np.flatnonzero(opened(tmp_path / "out")["bench2"][0].classes >= 0).tolist() == [6]


def test_own_yolo_folder_of_roboflow_is_named_though_no_file_has_a_frame(own_videos, tmp_path):
    folder = tmp_path / "boxes" / "bench2"
    folder.mkdir(parents=True)
    (folder / "000006_jpg.rf.5a1f8c0d93ea.txt").write_text("0 .5 .5 .1 .1\n")
    with pytest.raises(ValueError, match=r"bench2.000006_jpg.*: its name does not end in a frame"):
        make(own_videos, tmp_path / "out", boxes=tmp_path / "boxes")


def cvat(*images: str) -> str:
    return (
        '<?xml version="1.0"?>\n<annotations>\n<version>1.1</version>\n'
        + "\n".join(images)
        + "\n</annotations>\n"
    )


def cvat_image(name: str, box='xtl="16" ytl="12" xbr="32" ybr="36"') -> str:
    shape = f'<box label="pump" occluded="0" {box}></box>' if box else ""
    return f'<image id="0" name="{name}" width="64" height="48">{shape}</image>'


@pytest.mark.parametrize("where", ["annotations.xml", "boxes"])
def test_own_one_cvat_file_of_all_recordings(own_videos, tmp_path, where):
    path = tmp_path / where
    if path.suffix != ".xml":
        path.mkdir()
        path /= "annotations.xml"
    images = [cvat_image(f"frames/bench{i}/000006.jpg") for i in (1, 2, 3)]
    path.write_text(cvat(*images, cvat_image("bench1/000007.jpg", ""), cvat_image("x.jpg", "")))
    make(own_videos, tmp_path / "out", boxes=tmp_path / where)
    for name, (recording, _) in opened(tmp_path / "out").items():
        assert np.flatnonzero(recording.classes >= 0).tolist() == [6], name
        assert np.flatnonzero(recording.classes == EMPTY).tolist() == [7] * (name == "bench1")
        np.testing.assert_allclose(recording.boxes[6], BOX, atol=1e-6)


def test_cvat_file_of_one_recording(tmp_path):
    path = tmp_path / "bench1.xml"
    path.write_text(cvat(cvat_image("000008.jpg"), cvat_image("000006.jpg")))
    boxes = asd_labels.read_cvat_boxes(path)
    assert boxes.frames.tolist() == [6, 8]
    np.testing.assert_allclose(boxes.boxes, [BOX, BOX])


def test_copy_of_a_cvat_file_of_several_recordings_has_the_images_of_its_own(tmp_path):
    box = '<box label="pump" xtl="16" ytl="12" xbr="32" ybr="36"/>'
    images = "".join(
        f'<image name="{name}" width="64" height="48">{box}</image>'
        for name in ("bench1/000006.jpg", "bench2/000009.jpg")
    )
    for name, frames in (("bench1", [6]), ("bench2", [9]), ("other", [6, 9])):
        path = tmp_path / f"{name}.xml"
        path.write_text(f"<annotations>{images}</annotations>")
        assert asd_labels.read_cvat_boxes(path).frames.tolist() == frames


CVAT_MISTAKES = {
    cvat_image("bench9/000006.jpg"): r"line 4: <image>: name: 'bench9/000006.jpg' is in no folder",
    cvat_image("bench1/000006.jpg", 'xtl="16"'): r"line 4: <box> ytl: .* number",
    cvat_image("bench1/x.jpg"): r"line 4: ",
    '<track label="pump"></track>': "is 'CVAT for video'; export 'CVAT for images 1.1'",
}


@pytest.mark.parametrize("image", CVAT_MISTAKES)
def test_cvat_mistakes_name_file_and_line(tmp_path, image):
    path = tmp_path / "all.xml"
    path.write_text(cvat(image))
    with pytest.raises(ValueError, match=CVAT_MISTAKES[image]) as caught:
        asd_labels.read_shared_cvat_boxes(path, ["bench1"])
    assert str(caught.value).startswith(str(path))


@pytest.mark.parametrize(
    "shape", ["polygon", "polyline", "points", "mask", "ellipse", "cuboid", "skeleton"]
)
def test_cvat_images_with_another_shape_and_no_box_are_not_empty(tmp_path, shape):
    path = tmp_path / "all.xml"
    other = f'<{shape} label="pump" points="1,1;9,1;9,9"></{shape}>'
    image = cvat_image("bench1/000007.jpg", "").replace("><", f">{other}<")
    path.write_text(cvat(cvat_image("bench1/000006.jpg"), image))
    with pytest.raises(ValueError, match=f"line 5: <{shape}>: is no box, .* draw a box") as caught:
        asd_labels.read_shared_cvat_boxes(path, ["bench1"])
    assert str(caught.value).startswith(str(path))


def test_cvat_images_with_tags_are_empty_and_shapes_beside_a_box_are_not_read(tmp_path):
    path = tmp_path / "bench1.xml"
    boxed = cvat_image("000006.jpg").replace("</image>", '<points points="1,1"></points></image>')
    tagged = cvat_image("000007.jpg", "").replace("><", '><tag label="pump on"></tag><')
    path.write_text(cvat(boxed, tagged))
    boxes = asd_labels.read_cvat_boxes(path)
    assert (boxes.frames.tolist(), boxes.empty.tolist()) == ([6], [7])


def corners_around(box: Sequence[float], degrees: float) -> np.ndarray:
    """The upright box around a turned one, x, y, w, h in pixels, by its four corners."""
    x, y, w, h = box
    angle = np.deg2rad(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    corners = np.array([(-w, -h), (w, -h), (w, h), (-w, h)]) / 2 @ turn.T + (x + w / 2, y + h / 2)
    low, high = corners.min(axis=0), corners.max(axis=0)
    return np.concatenate([(low + high) / 2, high - low]) / (64, 48, 64, 48)


@pytest.mark.parametrize("form", ["cvat", "coco"])
@pytest.mark.parametrize("degrees", [0, 30, 90, 135.5, 180, 270, -20])
def test_own_turned_boxes_become_the_upright_ones_around_them(tmp_path, form, degrees):
    box = (24, 20, 16, 8)
    if form == "cvat":
        path = tmp_path / "bench1.xml"
        turned = f'xtl="24" ytl="20" xbr="40" ybr="28" rotation="{degrees}"'
        path.write_text(cvat(cvat_image("000006.jpg", turned)))
        found = asd_labels.read_cvat_boxes(path)
    else:
        path = tmp_path / "bench1.json"
        content = shared_coco(["000006.jpg"])
        content["annotations"][0] |= {"bbox": box, "attributes": {"rotation": degrees}}
        path.write_text(json.dumps(content))
        found = asd_labels.read_coco_boxes(path)
    np.testing.assert_allclose(found.boxes, [corners_around(box, degrees)], atol=1e-9)


def test_own_rotations_that_are_no_angle_are_refused(tmp_path):
    path = tmp_path / "bench1.xml"
    box = 'xtl="24" ytl="20" xbr="40" ybr="28" rotation="x"'
    path.write_text(cvat(cvat_image("000006.jpg", box)))
    with pytest.raises(ValueError, match="line 4: <box> rotation: 'x' is not a number"):
        asd_labels.read_cvat_boxes(path)
    content = shared_coco(["000006.jpg"])
    content["annotations"][0]["attributes"] = {"rotation": "x"}
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"annotations\[0\]: attributes: rotation: 'x' is not in"):
        asd_labels.read_coco_boxes(path)
