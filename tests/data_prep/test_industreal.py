"""IndustReal, in the layouts of its downloads."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from data_prep import industreal
from stormpsr_jax.data.clips import ClipSource
from tests.support.digests import digests
from tests.support.industreal_data import (
    FRAMES,
    FULL,
    LATE,
    PROCEDURE,
    SPLITS,
    first_frame,
    write_video,
)

OF_FRAMES = [-1, 1, 23, 23, 13]  # classes of the first five frames; then none has a box


def make(data: Path, out: Path, *flags: str) -> int:
    return industreal.main([f"--data={data}", f"--out={out}", "--size=8", "--workers=1", *flags])


@pytest.fixture(scope="module")
def made(industreal_files, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("made") / "shards"
    assert make(industreal_files, out) == 0
    return out


def check(out: Path, late: int = 30) -> None:
    for split in ("train", "val", "test"):
        source = ClipSource(out, split, PROCEDURE)
        assert source.fps == 10
        assert set(source.recordings) == {name for name in FRAMES if SPLITS[name] == split}
        for name, recording in source.recordings.items():
            first, count = (late if name == LATE else 0), FRAMES[name]
            early = first_frame(name) - first  # frames before the first picture
            assert (recording.first_frame, recording.num_frames) == (first, count + early)
            means = source.frames(name, first_frame(name) + np.arange(count)).mean(axis=(1, 2, 3))
            np.testing.assert_allclose(means, 20 * np.arange(count) + len(name), atol=5)
            if "main" not in name:
                assert recording.classes[early:].tolist() == OF_FRAMES + [-1] * (count - 5)


def test_pictures_numbers_splits_and_classes(made):
    check(made)
    recording = ClipSource(made, "test", PROCEDURE).recordings["03_assy_0_1"]
    expected = np.full((9, 4), np.nan)
    expected[1] = [0.05, 0.05, 0.1, 0.1]
    expected[2] = [0.5, 0.5, 0.5, 0.5]
    expected[3] = [0.525, 0.525, 0.05, 0.05]
    expected[4] = [0.95, 0.95, 0.1, 0.1]
    np.testing.assert_allclose(recording.boxes, expected, atol=1e-6)
    main = ClipSource(made, "train", PROCEDURE).recordings["02_main_0_1"]
    assert main.classes.tolist() == [-2, -1, -2, -1, -2, -2]  # no boxes: images that are listed
    assert main.states.tolist() == [list(map(int, FULL))] * 6


def write_videos(folder: Path) -> None:
    """A video of each recording, and of the two that have no labels."""
    for name, count in FRAMES.items():
        # The first frame of this one is number 29, and no picture.
        write_video(folder / f"{name}.mp4", name, [9] * (name == LATE) + [*range(count)])
    for name in ("15_main_0_1", "21_assy_1_1"):
        write_video(folder / f"{name}.mp4", name, range(3))


def unpacked(data: Path, folder: Path) -> Path:
    """The downloads, each unpacked into a folder of its name, which may be all that says a split.

    Beside them lie the archives, and videos of all recordings.
    """
    parts = {"train_p1": ["01_assy_0_1"], "train_p2": ["02_main_0_1", LATE]}
    parts |= {"val_p1": ["05_assy_1_2"], "test_p1": ["03_assy_0_1"]}
    for part, names in parts.items():
        (folder / part).mkdir(parents=True)
        (folder / f"{part}.zip").write_bytes(b"PK")
        for name in names:
            shutil.copytree(data / "recordings" / SPLITS[name] / name, folder / part / name)
    write_videos(folder / "all_rgb_videos")
    (folder / "README.md").write_text("# IndustReal\n")
    return folder


def test_all_downloads_may_lie_in_one_folder_unpacked(
    industreal_files, made, tmp_path, caplog, capsys
):
    """Pictures go before videos; what has no labels is told, and that archives are not read."""
    pytest.importorskip("av")
    caplog.set_level("INFO", logger="absl")
    folder = unpacked(industreal_files, tmp_path / "all")
    assert make(folder, tmp_path / "out") == 0
    assert digests(tmp_path / "out") == digests(made)
    for line in (
        f"pictures without labels are left out: 15_main_0_1, 21_assy_1_1 ({folder}/"
        "all_rgb_videos/15_main_0_1.mp4, …)",
        # Frame 4 has category FULL, and state 10 by the PSR labels. The error states are one with
        # an incorrect part and one outside the catalogue.
        "12 of 16 boxes agree with the step labels",
    ):
        assert line in caplog.messages
    said = f"warning: {folder}: 4 archives are not read, such as test_p1.zip; unpack what you need"
    assert said in capsys.readouterr().err


def test_videos_and_labels_alone_do(industreal_files, tmp_path):
    pytest.importorskip("av")
    shutil.copytree(industreal_files, tmp_path / "data", ignore=shutil.ignore_patterns("rgb"))
    write_videos(tmp_path / "data")
    (tmp_path / "data/05_assy_1_2.mp4").rename(tmp_path / "data/recordings/val/05_assy_1_2/rgb.mp4")
    assert make(tmp_path / "data", tmp_path / "out") == 0
    check(tmp_path / "out", late=29)
