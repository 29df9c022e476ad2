from pathlib import Path

import numpy as np

from data_prep import industreal, meccano
from stormpsr_jax.media.pictures import ImageFiles
from stormpsr_jax.media.video import Video
from stormpsr_jax.recordings.recording import LabelPlace, Recording
from tests.support.industreal_data import LATE, first_frame


def as_known() -> dict[str, Recording]:
    """All recordings with the frames that are known of them."""
    known = industreal.DOWNLOAD
    recordings = {}
    for split, of_split in known.last_frames.items():
        for name, last in of_split.items():
            count = 38_036 // 16 if last is None else last - first_frame(name) + 1
            count += 38_036 % 16 if name == "26_main_0_1" else 0
            recordings[name] = found(name, split, first_frame(name), count)
    return recordings


def found(name: str, split: str, first: int, count: int, kind=ImageFiles) -> Recording:
    more = {"times": np.zeros(0)} if kind is Video else {}
    pictures = kind(Path(name), num_frames=count, first_frame=first, **more)
    parts = pictures, LabelPlace(Path(name)), None, industreal.PROCEDURE
    return Recording(name, *parts, split=split)


def compared(recordings: dict[str, Recording]) -> list[str]:
    return industreal.DOWNLOAD.compare(list(recordings.values()))


def test_known_numbers_are_those_of_the_published_totals():
    """Of 84 recordings: 36, 16 and 32, with 78,931 frames in train and 90,105 in test."""
    known = industreal.DOWNLOAD
    counts = {split: len(of_split) for split, of_split in known.last_frames.items()}
    assert counts == {"train": 36, "val": 16, "test": 32}
    sums = {
        split: sum(last + 1 - known.first_frames.get(name, 0) for name, last in of_split.items())
        for split, of_split in known.last_frames.items()
        if split != "val"
    }
    assert sums == {"train": 78_931, "test": 90_105}
    assert sum(sums.values()) + known.split_frames["val"] == 207_072
    of_meccano = meccano.DOWNLOAD.last_frames
    assert [len(of_meccano[split]) for split in ("train", "val", "test")] == [11, 2, 7]


def test_a_download_that_is_as_known_is_told_so_and_what_is_other_is_named():
    recordings = as_known()
    lines = [
        "84 of 84 recordings are in the split that IndustReal has them in",
        "68 of 84 recordings have the frame numbers known of the download, of 16 they are not "
        "known",
        "split val has 38,036 frames in sum, as known",
    ]
    assert compared(recordings) == lines
    recordings[LATE] = found(LATE, "train", 29, 2572, Video)  # whose video begins at 29
    assert compared(recordings) == lines
    recordings[LATE] = found(LATE, "train", 0, 2571)
    recordings["03_assy_0_1"] = found("03_assy_0_1", "train", 0, 2753)
    recordings["05_assy_0_1"] = found("05_assy_0_1", "val", 0, 7)
    recordings["my_assy"] = found("my_assy", "test", 0, 7)
    del recordings["27_main_3_1"]
    assert compared(recordings) == [
        "82 of 84 recordings are in the split that IndustReal has them in; others: 03_assy_0_1 in "
        "train instead of test, my_assy in test instead of none that is known; 1 of its 84 "
        "recordings are not there: 27_main_3_1",
        "65 of 84 recordings have the frame numbers known of the download, of 17 they are not "
        "known; others: 11_assy_0_1 has 0…2570 instead of 30…2600, 03_assy_0_1 has 0…2752 instead "
        "of 0…2753",
        "split val has 35,666 frames in sum, known are 38,036",
    ]
