"""Mistakes in MECCANO's frames and labels: each is one message that names the place."""

from collections.abc import Callable
from pathlib import Path

import pytest

from stormpsr_jax.media.framing import Framing
from tests.support.meccano_data import make, make_data, state


def edit(data: Path, file: str, change) -> None:
    (path,) = data.glob(file)
    path.write_text(change(path.read_text()))


def replaced(file: str, old: str, new: str) -> Callable:
    """Another text in the file of a recording."""
    return lambda data: edit(data, file, lambda text: text.replace(old, new))


def added(file: str, line: str) -> Callable:
    """A line more in the file of a recording."""
    return lambda data: edit(data, file, lambda text: f"{text}{line}\n")


def removed(file: str) -> Callable:
    """A file less."""
    return lambda data: next(data.glob(file)).unlink()


def number_from_0(data: Path) -> None:
    (image,) = data.glob("frames/*/Train/0001/00001.jpg")
    image.with_name("00000.jpg").write_bytes(image.read_bytes())


def write_frames_again(data: Path) -> None:
    (data / "frames/again/0001").mkdir(parents=True)
    (data / "frames/again/0001/00001.jpg").write_bytes(b"")


def moved(old: str, new: str) -> Callable:
    """A folder elsewhere, and an empty one where the labels were."""

    def change(data: Path) -> None:
        (data / old).rename(data / new)
        (data / "psr").mkdir(exist_ok=True)

    return change


RAW, STEPS = "psr/*/0001/PSR_labels_raw.csv", "psr/*/0001/PSR_labels.csv"
BOXES, TRAIN = "asd/*/0001_GT.csv", "frames/RGB_frames/Train"
# By the message, what is done to the data.
MISTAKES = {
    "Train/0001: frame 5 is missing": removed(f"{TRAIN}/0001/00005.jpg"),
    "Train/0001: the first frame is 0, MECCANO starts at 1": number_from_0,
    r"0002/PSR_labels_raw.csv: line 5: image: frame 9 is not among .* 1…8": removed(
        f"{TRAIN}/0002/00009.jpg"
    ),
    r"0001/PSR_labels.csv: line 3: image: frame 15 is not among .* 1…14": added(
        STEPS, "00015.jpg,3,Install"
    ),
    r"0001_GT.csv: line 6: frame 15 is not among .* 1…14": added(BOXES, "15,0,1,0.5,0.5,0.1,0.1"),
    "raw.csv: line 3: image: frame 3 does not come after frame 4": replaced(RAW, "00006", "00003"),
    "labels.csv: line 2: image: frame 2 comes after frame 4": replaced(STEPS, "00006", "00002"),
    "0001_GT.csv: line 4: frame: frame 3 comes after frame 6": replaced(BOXES, "7,0", "3,0"),
    "labels.csv: line 2: step id: '51' is not in 0…50": replaced(STEPS, ",12,", ",51,"),
    "raw.csv: line 2: s_16: is missing": replaced(RAW, state(0), state(0)[:-2]),
    "0001_GT.csv: line 4: x: the box is outside the picture": replaced(BOXES, "0.95,", "1.01,"),
    "0001_GT.csv: line 4: w: is missing": replaced(BOXES, "0.95,0.5,0.2,", "0.95,"),
    "0001_GT.csv: line 4: flag: '2' is not in -1…1": replaced(BOXES, "7,0,", "7,2,"),
    "psr/training/0001: is in no folder train, val or test\n.*0002: is in no": moved(
        "psr/train", "psr/training"
    ),
    "recording 0001: frames in split val, labels in train": moved(
        f"{TRAIN}/0001", "frames/RGB_frames/Val/0001"
    ),
    "recording 0001: frames in .*Train/0001 and .*again/0001; give one of": write_frames_again,
    r"--labels=.*psr: no folder <train\|val\|test>/<recording> with a PSR_labels_raw.csv": moved(
        "psr", "elsewhere"
    ),
}


@pytest.mark.parametrize("message", MISTAKES)
def test_meccano_mistakes_are_named(tmp_path, message):
    data = make_data(tmp_path / "data")
    MISTAKES[message](data)
    with pytest.raises(ValueError, match=message):
        make(data, tmp_path / "out")
    assert not (tmp_path / "out").exists()  # all of them before the work begins


def test_meccano_all_mistakes_are_listed_at_once(tmp_path):
    data = make_data(tmp_path / "data")
    (data / "frames/RGB_frames/Val/0007").rename(data / "frames/RGB_frames/Val/0107")
    (data / "frames/RGB_frames/Test/0008").rename(data / "frames/RGB_frames/Test/0108")
    removed(f"{TRAIN}/0001/00005.jpg")(data)
    with pytest.raises(ValueError, match="0007") as caught:
        make(data, tmp_path / "out")
    for part in (
        "labels without frames (--frames): 0007, 0008",
        "frames without labels: 0107, 0108",
        "Train/0001: frame 5 is missing",
    ):
        assert part in str(caught.value)
    data = make_data(tmp_path / "again")
    for name in ("0001", "0007"):
        edit(data, f"psr/*/{name}/PSR_labels.csv", lambda text: "x" + text.replace(".jpg", ""))
        edit(data, f"psr/*/{name}/PSR_labels.csv", lambda text: text.replace(",12,", ",99,"))
    with pytest.raises(ValueError, match=r"0001/PSR.*'99'.*\n.*0007/PSR.*'99'"):
        make(data, tmp_path / "out")


def test_meccano_damaged_picture_stops_only_its_recording(tmp_path):
    data = make_data(tmp_path / "data")
    (path,) = data.glob("frames/*/Train/0001/00005.jpg")
    whole = path.read_bytes()
    path.write_bytes(whole[:-400])
    with pytest.raises(ValueError, match=r"recording train/0001: .*00005.jpg: the JPEG is damaged"):
        make(data, tmp_path / "out")
    assert not (tmp_path / "out/dataset_info.json").exists()
    path.write_bytes(whole)
    assert make(data, tmp_path / "out")


def test_meccano_other_labels_or_framing_need_another_folder(
    meccano_files, meccano_shards, tmp_path
):
    changed = make_data(tmp_path / "data")
    edit(changed, "asd/*/0007_GT.csv", lambda text: text.replace("0.25", "0.26"))
    with pytest.raises(
        ValueError, match=r"--remake .*\nrecording 0007: its boxes are not those that "
    ):
        make(changed, meccano_shards)
    for change, name in (
        ({"framing": Framing((16, 16), "crop")}, "aspect"),
        ({"framing": Framing((16, 16), region=(0, 0, 0.5, 1))}, "crop"),
        ({"framing": Framing((16, 16), quality=80)}, "quality"),
    ):
        with pytest.raises(ValueError, match=rf"settings.{name}.* was"):
            make(meccano_files, meccano_shards, **change)
