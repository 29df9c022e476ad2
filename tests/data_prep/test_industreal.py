"""IndustReal as it is downloaded: folders, several zip files, COCO boxes and their mistakes."""

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from data_prep import industreal
from data_prep.reading.asd_labels import read_coco_boxes
from stormpsr_jax.data.clips import ClipSource
from stormpsr_jax.media.framing import Framing
from tests.support.digests import digests
from tests.support.industreal_data import (
    FRAMES,
    FULL,
    PROCEDURE,
    SPLITS,
    coco,
    make_data,
    write_video,
)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return make_data(tmp_path_factory.mktemp("industreal"))


def make(data: Path, out: Path, **changes) -> bool:
    return industreal.make_dataset(out, **({"data": data, "framing": Framing((8, 8))} | changes))


@pytest.fixture(scope="module")
def made(data, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("made") / "shards"
    assert make(data, out)
    return out


def test_industreal_frames_and_splits(made):
    for split in ("train", "val", "test"):
        source = ClipSource(made, split, PROCEDURE)
        assert set(source.recordings) == {name for name in FRAMES if SPLITS[name] == split}
        assert source.fps == 10
        for name, recording in source.recordings.items():
            assert (recording.first_frame, recording.num_frames) == (0, FRAMES[name])
            images = source.frames(name, range(FRAMES[name]))
            means = images.mean(axis=(1, 2, 3))
            np.testing.assert_allclose(means, 20 * np.arange(len(means)) + len(name), atol=3)


def test_industreal_boxes_and_their_classes(made):
    recording = ClipSource(made, "test", PROCEDURE).recordings["03_assy_0_1"]
    expected = np.full((9, 4), np.nan)
    expected[1] = [0.05, 0.05, 0.1, 0.1]
    expected[2] = [0.5, 0.5, 0.5, 0.5]
    expected[3] = [0.525, 0.525, 0.05, 0.05]
    expected[4] = [0.95, 0.95, 0.1, 0.1]
    np.testing.assert_allclose(recording.boxes, expected, atol=1e-6)
    # By the number of the category: the base, an error twice, and state 13 of the list, where the
    # PSR labels give state 10.
    assert recording.classes.tolist() == [-1, 1, 23, 23, 13, -1, -1, -1, -1]
    main = ClipSource(made, "train", PROCEDURE).recordings["02_main_0_1"]
    assert main.classes.tolist() == [-2, -1, -2, -1, -2, -2]  # no boxes: images that are listed
    assert main.states.tolist() == [list(map(int, FULL))] * 6


def test_industreal_shipped_labels_are_kept_and_others_derived(data, made):
    shipped = data / "recordings/test/03_assy_0_1"
    kept = made / "labels/test/03_assy_0_1"
    for file in ("PSR_labels.csv", "PSR_labels_raw.csv"):
        assert (kept / file).read_bytes() == (shipped / file).read_bytes()
    derived = (kept / "PSR_labels_with_errors.csv").read_text().splitlines()
    assert [line.split(",")[:2] for line in derived][:2] == [["00002.jpg", "3"], ["00003.jpg", "4"]]


def test_boxes_are_held_against_the_step_labels(data, made, caplog):
    caplog.set_level("INFO", logger="absl")
    make(data, made)
    # Of three recordings each; frame 4 has category FULL, and state 10 by the PSR labels. The error
    # states are one with a part that sits wrong and one outside the catalogue.
    assert (
        "9 of 12 boxes agree with the step labels (by the number of the category, which counts; by "
        "its name: 0)" in caplog.messages
    )
    assert (
        "categories of the boxes: number and name are the same class in 0 recordings; in 3 the "
        "names are others, one off in the download" in caplog.messages
    )


def test_industreal_boxes_that_a_crop_loses_are_counted(data, tmp_path, caplog):
    caplog.set_level("INFO", logger="absl")
    framing = Framing((8, 8), region=(0.3, 0, 1, 1))
    assert make(data, tmp_path / "out", framing=framing)
    recording = ClipSource(tmp_path / "out", "test", PROCEDURE).recordings["03_assy_0_1"]
    assert recording.classes.tolist() == [-1, -2, 23, 23, 13, -1, -1, -1, -1]
    assert np.isnan(recording.boxes[1]).all()
    assert any(
        "recording 03_assy_0_1: 1 of its 4 boxes are left out" in line for line in caplog.messages
    )


@pytest.mark.parametrize("top", ["", "recordings/{split}/", "{split}_p1/"])
@pytest.mark.usefixtures("system")  # workers
def test_industreal_zip_files_as_downloaded(data, made, tmp_path, top):
    """Several files per split, in a folder; their names may be all that tells the split."""
    parts = {"train_p1": "01_assy_0_1", "train_p2": "02_main_0_1"}
    parts |= {"val_p1": "05_assy_1_2", "test_p1": "03_assy_0_1"}
    folder = tmp_path / "downloads"
    folder.mkdir()
    for part, name in parts.items():
        recording = data / "recordings" / SPLITS[name] / name
        with zipfile.ZipFile(folder / f"{part}.zip", "w", zipfile.ZIP_DEFLATED) as file:
            for member in sorted(recording.rglob("*")):
                inside = f"{top.format(split=SPLITS[name])}{name}/{member.relative_to(recording)}"
                file.write(member, inside)
    assert make(folder, tmp_path / "out", workers=1 if top else 2)
    assert digests(tmp_path / "out") == digests(made)


def test_industreal_videos_instead_of_folders(data, tmp_path):
    """rgb.mp4 in the recording's folder, or a video of its name anywhere."""
    pytest.importorskip("av")
    copy = make_data(tmp_path / "data")
    for i, (name, count) in enumerate(FRAMES.items()):
        recording = copy / "recordings" / SPLITS[name] / name
        for image in (recording / "rgb").iterdir():
            image.unlink()
        path = recording / "rgb.mp4" if i % 2 else copy / f"{name}.mp4"
        write_video(path, name, range(count))
    assert make(copy, tmp_path / "out")
    for name, split in SPLITS.items():
        images = ClipSource(tmp_path / "out", split, PROCEDURE).frames(name, range(FRAMES[name]))
        expected = 20 * np.arange(FRAMES[name]) + len(name)
        np.testing.assert_allclose(images.mean(axis=(1, 2, 3)), expected, atol=5)


def test_industreal_data_may_be_the_folder_recordings(data, made, tmp_path):
    assert make(data / "recordings", tmp_path / "out")
    assert digests(tmp_path / "out") == digests(made)


def change_first(key: str, **values):
    def change(content: dict) -> None:
        content[key][1] |= values

    return change


COCO_MISTAKES = [
    (change_first("annotations", id=102), r"annotations\[1\]: id: 102 is given twice"),
    (change_first("images", id=13), r"images\[1\]: id: 13 is given twice"),
    (change_first("categories", id=1), r"categories\[1\]: id: 1 is given twice"),
    (
        change_first("annotations", image_id=99),
        r"annotations\[1\]: image_id: 99 is not in images",
    ),
    (change_first("annotations", category_id=99), r"annotations\[1\]: category_id: 99 is not in"),
    (
        change_first("annotations", bbox=[0, 0, 5]),
        r"annotations\[1\]: bbox: \[0, 0, 5\] is not x, y, w, h",
    ),
    (change_first("annotations", bbox=[0, 0, 0, 5]), r"annotations\[1\]: w: a box of size 0"),
    (
        change_first("annotations", bbox=[-20, 0, 10, 5]),
        r"annotations\[1\]: x: .* outside the pict",
    ),
    (change_first("annotations", bbox=[0, 800, 9, 9]), r"annotations\[1\]: y: .* outside the pict"),
    (
        change_first("annotations", bbox=["0", 0, 9, 9]),
        r"annotations\[1\]: bbox: '0' is not in -1e\+09…",
    ),
    (
        change_first("annotations", bbox=[10**400, 0, 9, 9]),
        r"annotations\[1\]: bbox: 1000*… is not in -1e\+09…",
    ),
    (change_first("images", width=10**400), r"images\[1\]: width: 1000*… is not in 1…"),
    (change_first("images", width=0), r"images\[1\]: width: 0 is not in 1…"),
    (change_first("images", file_name="x"), r"its image: file_name: "),
    (change_first("images", file_name="000800.jpg"), r"frame 800 is not among .* 0…8"),
    (lambda content: content.pop("images"), r"not COCO, which is an object with a list 'images'"),
    (
        lambda content: content["annotations"].append(7),
        r"annotations\[4\]: 7 is not an object",
    ),
]


@pytest.mark.parametrize(("change", "message"), COCO_MISTAKES)
def test_industreal_coco_mistakes_are_named(tmp_path, change, message):
    data = make_data(tmp_path / "data")
    path = data / "recordings/test/03_assy_0_1/OD_labels.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=rf"03_assy_0_1/OD_labels.json: {message}|{message}") as e:
        make(data, tmp_path / "out")
    assert str(path) in str(e.value)
    assert not (tmp_path / "out").exists()


def test_industreal_mistakes_in_a_zip_name_their_place_in_it(data, tmp_path):
    recording = data / "recordings/test/03_assy_0_1"
    path = tmp_path / "test_p1.zip"
    with zipfile.ZipFile(path, "w") as file:
        for member in sorted(recording.rglob("*")):
            file.write(member, f"03_assy_0_1/{member.relative_to(recording)}")
    with zipfile.ZipFile(path) as file:
        files = {info.filename: file.read(info) for info in file.infolist()}
    files["03_assy_0_1/PSR_labels.csv"] = b"000004.jpg,33,Install\n"
    with zipfile.ZipFile(path, "w") as file:
        for name, content in files.items():
            file.writestr(name, content)
    message = r"test_p1.zip/03_assy_0_1/PSR_labels.csv: line 1: step id: '33' is not in 0…32"
    with pytest.raises(ValueError, match=message):
        make(path, tmp_path / "out")


def test_read_coco_boxes_two_boxes_of_a_frame_leave_the_larger(tmp_path):
    content = coco("03_assy_0_1")
    content["annotations"].append(
        {"id": 7, "image_id": 12, "category_id": 1, "bbox": [0, 0, 1280, 720]}
    )
    path = tmp_path / "OD_labels.json"
    path.write_text(json.dumps(content))
    boxes = read_coco_boxes(path)
    assert boxes.frames.tolist() == [1, 2, 2, 3, 4]
    assert boxes.num_repeated == 1
    assert boxes.of_frames(0, 9).tolist() == [-1, 0, 2, 3, 4, -1, -1, -1, -1]
    np.testing.assert_allclose(boxes.boxes[2], [0.5, 0.5, 1, 1])


def test_industreal_parts_that_are_missing(tmp_path):
    data = make_data(tmp_path / "data")
    recordings = data / "recordings"
    (recordings / "train/01_assy_0_1/rgb").rename(recordings / "train/01_assy_0_1/pictures_gone")
    (recordings / "val/05_assy_1_2/PSR_labels_raw.csv").unlink()
    for path in (recordings / "train/01_assy_0_1/pictures_gone").iterdir():
        path.unlink()
    with pytest.raises(ValueError, match=r"labels without frames \(--data\): 01_assy_0_1") as error:
        make(data, tmp_path / "out")
    assert "frames without labels: 05_assy_1_2" in str(error.value)


def test_main_flags_reach_the_folder(data, tmp_path):
    out = tmp_path / "out"
    asked = ["--size=24", "--aspect=pad", "--workers=1"]
    assert industreal.main([f"--data={data}", f"--out={out}", *asked]) == 0
    source = ClipSource(out, "val", PROCEDURE)
    assert source.image_size == (24, 24)
    # 45 x 80 pixels in a square of 12: bars of 2 above and below, 7 rows of picture... or 8
    image = source.frames("05_assy_1_2", [6])[0]
    assert image[0].max() < 40
    assert image[6].min() > 100
    box = source.recordings["05_assy_1_2"].boxes[2]
    np.testing.assert_allclose(box[[0, 2]], [0.5, 0.5], atol=1e-6)
    assert abs(box[3] - 0.5 * 7 / 12) < 0.5 / 12
