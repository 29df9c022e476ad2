"""IndustReal's downloads in the forms in which people have them, and their known particulars."""

import io
import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest

from data_prep import industreal
from data_prep.reading import data_sets, downloads, second_sources
from data_prep.reading.data_sets import RecordingFiles
from stormpsr_jax.data.clips import ClipSource
from stormpsr_jax.media import finding
from stormpsr_jax.media.framing import Framing
from stormpsr_jax.media.pictures import ImageFiles
from stormpsr_jax.media.trees import Tree
from stormpsr_jax.media.video import Video
from tests.support.industreal_data import (
    BASE,
    FRAMES,
    FULL,
    PROCEDURE,
    SPLITS,
    make_recording,
    row,
    write_video,
)

LATE = "11_assy_0_1"  # whose pictures begin at 000030.jpg
ALL = FRAMES | {LATE: 8}
OF_SPLIT = SPLITS | {LATE: "train"}
CLASSES = [-1, 1, 23, 23, 13]  # of the first five frames; then none has a box


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    for name, count in ALL.items():
        make_recording(folder / OF_SPLIT[name] / name, count, 30 if name == LATE else 0)
    return folder


def make(data: Path, out: Path, **changes) -> bool:
    return industreal.make_dataset(out, **({"data": data, "framing": Framing((8, 8))} | changes))


def check(out: Path, first: int = 30) -> None:
    """All recordings are there, with their pictures, numbers and classes."""
    for split in ("train", "val", "test"):
        source = ClipSource(out, split, PROCEDURE)
        assert set(source.recordings) == {name for name in ALL if OF_SPLIT[name] == split}
        for name, recording in source.recordings.items():
            early = 30 - first if name == LATE else 0  # frames before the first picture
            assert recording.first_frame == (first if name == LATE else 0)
            assert recording.num_frames == ALL[name] + early
            frames = recording.first_frame + early + np.arange(ALL[name])
            means = source.frames(name, frames).mean(axis=(1, 2, 3))
            np.testing.assert_allclose(means, 20 * np.arange(ALL[name]) + len(name), atol=5)
            if "main" not in name:
                assert recording.classes[early:].tolist() == CLASSES + [-1] * (ALL[name] - 5)


def test_pictures_that_begin_at_30_are_read_with_their_numbers(data, tmp_path):
    assert make(data, tmp_path / "out")
    check(tmp_path / "out")


@pytest.mark.parametrize("first", [30, 0])
def test_the_first_state_may_be_labelled_before_the_first_picture(data, tmp_path, first, caplog):
    """Which of the two the download has is not known; the log says it."""
    caplog.set_level("INFO", logger="absl")
    copy = shutil.copytree(data, tmp_path / "data")
    path = copy / "train" / LATE / "PSR_labels_raw.csv"
    path.write_text(path.read_text().replace(row(30, BASE), row(first, BASE)))
    assert make(copy, tmp_path / "out")
    check(tmp_path / "out")
    recording = ClipSource(tmp_path / "out", "train", PROCEDURE).recordings[LATE]
    assert "".join(map(str, recording.states[0])) == BASE
    line = (
        f"the first state is labelled before the first picture: {LATE} (frame 0, first picture 30)"
    )
    assert (line in caplog.messages) == (first == 0)


def test_another_label_before_the_first_picture_is_refused(data, tmp_path):
    copy = shutil.copytree(data, tmp_path / "data")
    path = copy / "train" / LATE / "PSR_labels_raw.csv"
    path.write_text(row(0, BASE) + row(5, FULL))
    with pytest.raises(ValueError, match=r"line 2: image: frame 5 is not among .* 30…37"):
        make(copy, tmp_path / "out")


def write_videos(folder: Path) -> None:
    """A video of each recording, and of the two that have no labels."""
    for name, count in ALL.items():
        # The first frame of this one is number 29, and no picture.
        write_video(folder / f"{name}.mp4", name, [9] * (name == LATE) + [*range(count)])
    for name in ("15_main_0_1", "21_assy_1_1"):
        write_video(folder / f"{name}.mp4", name, range(3))


def test_videos_and_labels_alone_do(data, tmp_path, caplog):
    pytest.importorskip("av")
    copy = shutil.copytree(data, tmp_path / "data", ignore=shutil.ignore_patterns("rgb"))
    write_videos(copy)
    assert make(copy, tmp_path / "out")
    check(tmp_path / "out", first=29)
    assert [line for line in caplog.messages if "without labels" in line] == [
        f"pictures without labels are left out: 15_main_0_1, 21_assy_1_1 (in {copy})"
    ]


def all_downloads(data: Path, folder: Path) -> Path:
    """The recordings at the top of their zip files, everything else of the page beside them."""
    folder.mkdir()
    for split in ("train", "val", "test"):
        with zipfile.ZipFile(folder / f"{split}_p1.zip", "w") as file:
            for path in sorted((data / split).rglob("*")):
                file.write(path, path.relative_to(data / split))
    staging = folder / "staging"
    staging.mkdir()
    write_videos(staging)
    contents = {
        "action_recognition_labels": {"train.csv": b"01_assy_0_1,0,take,000001.jpg,000009.jpg\n"},
        "ASD_results_SyntheticOnly_test": {"03_assy_0_1_results_gt.csv": b"clip,framenr\n"},
        "assembly_state_detection_model_weights": {"asd_best.pt": b"PK"},
        "part_geometries": {"state1.fbx": b"Kaydara", "overview/texture.png": b"\x89PNG"},
        "all_rgb_videos": {path.name: path.read_bytes() for path in sorted(staging.iterdir())},
    }
    for name, files in contents.items():
        with zipfile.ZipFile(folder / f"{name}.zip", "w") as file:
            for path, content in files.items():
                file.writestr(path, content)
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w") as file:
        file.writestr("labels_coco.json", b"{}")
    for part, content in (("001", whole.getvalue()[:40]), ("002", whole.getvalue()[40:])):
        path = folder / f"assembly_state_detection_synthetic_data.zip.{part}"
        path.write_bytes(content)
    (folder / "README.md").write_text("# IndustReal\n")
    shutil.rmtree(staging)
    return folder


def test_all_downloads_may_lie_in_one_folder(data, tmp_path, caplog):
    """Pictures go before videos, and what has no labels is told."""
    pytest.importorskip("av")
    caplog.set_level("INFO", logger="absl")
    folder = all_downloads(data, tmp_path / "all")
    assert make(folder, tmp_path / "out")
    check(tmp_path / "out")
    for line in (
        "pictures without labels are left out: 15_main_0_1, 21_assy_1_1 (in "
        f"{folder}/all_rgb_videos.zip)",
        "labels in zip files: of 5 recordings at the top, of 0 in an outer folder",
        "image files of 5 recordings are read, and not their videos, 5 of which end with the same "
        "frame",
        "images without a box are listed in the files of 5 recordings, in the others none is",
    ):
        assert line in caplog.messages


def test_other_downloads_that_are_not_whole_are_left_out_with_a_line_each(data, tmp_path, caplog):
    """An error page in place of weights, one half of the synthetic set, videos cut off."""
    pytest.importorskip("av")
    folder = all_downloads(data, tmp_path / "all")
    (folder / "assembly_state_detection_synthetic_data.zip.001").unlink()
    (folder / "assembly_state_detection_model_weights.zip").write_text("<!DOCTYPE html>")
    videos = (folder / "all_rgb_videos.zip").read_bytes()
    (folder / "all_rgb_videos.zip").write_bytes(videos[:-40])
    assert make(folder, tmp_path / "out")
    check(tmp_path / "out")
    lines = [line for line in caplog.messages if line.startswith("left out: ")]
    for line, (name, what) in zip(
        lines,
        (
            ("all_rgb_videos.zip", ": not a whole zip file"),
            ("assembly_state_detection_model_weights.zip", ": not a whole zip file"),
            ("assembly_state_detection_synthetic_data.zip", ".001 is missing"),
        ),
        strict=True,
    ):
        assert line.startswith(f"left out: --data: {folder}/{name}{what}")


@pytest.mark.parametrize("name", ["train_p2.zip", "recordings of mine.zip"])
def test_a_zip_file_that_may_have_recordings_has_to_be_whole(data, tmp_path, name):
    copy = shutil.copytree(data, tmp_path / "data")
    (copy / name).write_text("<!DOCTYPE html>")
    with pytest.raises(ValueError, match=rf"--data: .*/{name}: not a whole zip file .*elsewhere$"):
        make(copy, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_videos_that_are_not_whole_are_named_where_pictures_are_missing(data, tmp_path):
    copy = shutil.copytree(data, tmp_path / "data", ignore=shutil.ignore_patterns("rgb"))
    (copy / "all_rgb_videos.zip").write_bytes(b"PK")
    with pytest.raises(ValueError, match="labels without frames") as raised:
        make(copy, tmp_path / "out")
    _, line = str(raised.value).splitlines()
    assert line.startswith(f"--data: {copy}/all_rgb_videos.zip: not a whole zip file")


def test_videos_that_end_elsewhere_than_the_pictures_are_named(data, tmp_path):
    pytest.importorskip("av")
    copy = shutil.copytree(data, tmp_path / "data")
    write_videos(copy)
    write_video(copy / "05_assy_1_2.mp4", "05_assy_1_2", range(6))
    (copy / "03_assy_0_1.mp4").write_bytes(b"no video")
    trees = [Tree(str(copy))]
    found = data_sets.match(
        industreal.FORMAT,
        data_sets.find_labels(trees, "--data"),
        finding.find_pictures(trees, "rgb"),
        {},
        10,
    )
    *_, line = second_sources.compare(industreal.FORMAT, found)
    assert line.startswith(
        "image files of 5 recordings are read, and not their videos, 3 of which end with the same "
        "frame; others (frames of the video, last image): 05_assy_1_2 (0…5, 6); 1 could not be "
        f"looked at: {copy}/03_assy_0_1.mp4: is not a video"
    )


def test_two_videos_of_a_recording_without_pictures_are_refused(data, tmp_path):
    copy = shutil.copytree(data, tmp_path / "data", ignore=shutil.ignore_patterns("rgb"))
    for place in ("a", "b"):
        (copy / place).mkdir()
        (copy / place / f"{LATE}.mp4").write_bytes(b"")
    message = rf"recording {LATE}: frames in .*a/{LATE}.mp4 and .*b/{LATE}.mp4; give one of them"
    with pytest.raises(ValueError, match=message):
        make(copy, tmp_path / "out")


@pytest.mark.parametrize("written", ["RGB", "Rgb"])
def test_the_folder_of_pictures_may_be_in_capital_letters(data, tmp_path, written):
    copy = shutil.copytree(data, tmp_path / "data")
    for folder in sorted(copy.rglob("rgb")):
        folder.rename(folder.with_name(written))
    assert make(copy, tmp_path / "out")
    check(tmp_path / "out")


@pytest.mark.parametrize("packed", [False, True])
def test_psr_labels_of_their_own_folder_count(data, tmp_path, packed, caplog):
    """As the paper's corrected labels lie; recordings that it leaves out are told."""
    labels = tmp_path / "corrected"
    for name in ("01_assy_0_1", "05_assy_1_2", "03_assy_0_1"):
        folder = labels / OF_SPLIT[name] / name
        folder.mkdir(parents=True)
        (folder / "PSR_labels_raw.csv").write_text(row(0, BASE) + row(5, FULL))
    if packed:
        labels = Path(shutil.make_archive(str(labels), "zip", labels))
    flags = [f"--data={data}", f"--psr_labels={labels}", f"--out={tmp_path / 'out'}"]
    assert industreal.main([*flags, "--size=8", "--workers=1"]) == 0
    (recording,) = ClipSource(tmp_path / "out", "test", PROCEDURE).recordings.values()
    assert ["".join(map(str, state)) for state in recording.states] == [BASE] * 5 + [FULL] * 4
    assert recording.classes.tolist() == [*CLASSES, -1, -1, -1, -1]  # boxes are those of --data
    (line,) = [line for line in caplog.messages if "without labels" in line]
    assert line == f"pictures without labels are left out: 02_main_0_1, {LATE} (in {data})"


def test_psr_labels_without_labels_name_their_flag(data, tmp_path):
    (tmp_path / "empty").mkdir()
    message = (
        r"--psr_labels=.*empty: no folder <train\|val\|test>/<recording> with a PSR_labels_raw"
    )
    with pytest.raises(ValueError, match=message):
        make(data, tmp_path / "out", psr_labels=tmp_path / "empty")


def test_boxes_of_a_recording_in_two_places_are_refused(data, tmp_path):
    copy = shutil.copytree(data, tmp_path / "data")
    (copy / "again/03_assy_0_1").mkdir(parents=True)
    (copy / "again/03_assy_0_1/OD_labels.json").write_text("{}")
    with pytest.raises(
        ValueError, match=r"--data: recording 03_assy_0_1: boxes in .* and .*; keep"
    ):
        make(copy, tmp_path / "out")


def as_known() -> list[RecordingFiles]:
    """All recordings with the frames that are known of them."""
    known = downloads.known("industreal")
    tree, recordings = Tree("nowhere"), []
    for split, of_split in known.last_frames.items():
        for name, last in of_split.items():
            first = 30 if name == LATE else 0
            count = 38_036 // 16 if last is None else last - first + 1
            if name == "26_main_0_1":
                count += 38_036 % 16
            pictures = ImageFiles(tree, name, first, count)
            recordings.append(RecordingFiles(name, split, pictures, (tree, name), None))
    return recordings


def test_known_numbers_are_those_of_the_published_totals():
    """Of 84 recordings: 36, 16 and 32, with 78,931 frames in train and 90,105 in test."""
    known = downloads.known("industreal")
    counts = {split: len(of_split) for split, of_split in known.last_frames.items()}
    assert counts == {"train": 36, "val": 16, "test": 32}
    sums = {
        split: sum(last + 1 - known.first_frames.get(name, 0) for name, last in of_split.items())
        for split, of_split in known.last_frames.items()
        if split != "val"
    }
    assert sums == {"train": 78_931, "test": 90_105}
    assert sum(sums.values()) + known.split_frames["val"] == 207_072
    of_meccano = downloads.known("meccano").last_frames
    assert {split: len(of_split) for split, of_split in of_meccano.items()} == {
        "train": 11,
        "val": 2,
        "test": 7,
    }


def test_a_download_that_is_as_known_is_told_so():
    assert second_sources.compare(industreal.FORMAT, as_known()) == [
        "84 of 84 recordings are in the split that IndustReal has them in",
        "68 of 84 recordings have the frame numbers known of the download, of 16 they are not "
        "known",
        "split val has 38,036 frames in sum, as known",
    ]


def test_recordings_other_than_known_are_named():
    recordings = {recording.name: recording for recording in as_known()}
    tree = Tree("nowhere")

    def change(name: str, pictures, split: str | None = None) -> None:
        split = split or recordings[name].split
        recordings[name] = RecordingFiles(name, split, pictures, (tree, name), None)

    change(LATE, ImageFiles(tree, LATE, 0, 2571))
    change("03_assy_0_1", ImageFiles(tree, "03_assy_0_1", 0, 2753), "train")
    change("05_assy_0_1", ImageFiles(tree, "05_assy_0_1", 0, 7))
    change("my_assy", ImageFiles(tree, "my_assy", 0, 7), "test")
    del recordings["27_main_3_1"]
    assert second_sources.compare(industreal.FORMAT, list(recordings.values())) == [
        "82 of 84 recordings are in the split that IndustReal has them in; others: 03_assy_0_1 in "
        "train instead of test, my_assy in test, not known; 1 of its 84 recordings are not there: "
        "27_main_3_1",
        "65 of 84 recordings have the frame numbers known of the download, of 17 they are not "
        "known; others: 11_assy_0_1 has 0…2570 instead of 30…2600, 03_assy_0_1 has 0…2752 instead "
        "of 0…2753",
        "split val has 35,666 frames in sum, known are 38,036",
    ]


def test_a_video_of_the_late_recording_is_known_from_29_on():
    recordings = [recording for recording in as_known() if recording.name == LATE]
    tree = Tree("nowhere")
    recordings = [RecordingFiles(LATE, "train", Video(tree, "x", 29, 2572), (tree, LATE), None)]
    lines = second_sources.compare(industreal.FORMAT, recordings)
    assert lines[1] == (
        "1 of 1 recordings have the frame numbers known of the download, of 0 they are not known"
    )


def test_few_boxes_that_agree_are_told_with_what_to_do(data, tmp_path, caplog):
    """Boxes of classes one too low, as a file would have them that names them rightly."""
    caplog.set_level("INFO", logger="absl")
    copy = shutil.copytree(data, tmp_path / "data")
    for path in copy.rglob("OD_labels.json"):
        content = json.loads(path.read_text())
        for box in content["annotations"]:
            box["category_id"] += 1 if box["category_id"] < 23 else -1
        path.write_text(json.dumps(content))
    assert make(copy, tmp_path / "out")
    (line,) = [line for line in caplog.messages if "agree with the step labels" in line]
    assert line.startswith(
        "0 of 16 boxes agree with the step labels (by the number of the category"
    )
    assert "look at the boxes by state on the page of data_prep.check" in line
