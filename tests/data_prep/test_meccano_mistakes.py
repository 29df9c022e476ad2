"""Mistakes in MECCANO's frames and labels: each is one message that names the place."""

from pathlib import Path

import pytest

from stormpsr_jax.media.framing import Framing
from tests.support.meccano_data import make, make_data, state


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return make_data(tmp_path_factory.mktemp("meccano"))


@pytest.fixture(scope="module")
def made(data, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("made") / "shards"
    assert make(data, out)
    return out


def edit(data: Path, file: str, change) -> None:
    (path,) = data.glob(file)
    path.write_text(change(path.read_text()))


def remove(data: Path, file: str) -> None:
    (path,) = data.glob(file)
    path.unlink()


MISTAKES = {
    "missing frame": (
        lambda d: remove(d, "frames/*/Train/0001/00005.jpg"),
        r"Train/0001: frame 5 is missing",
    ),
    "frames from 0": (
        lambda d: edit_first_frame(d),
        r"Train/0001: the first frame is 0, MECCANO starts at 1",
    ),
    "labels past the last frame": (
        lambda d: remove(d, "frames/*/Train/0002/00009.jpg"),
        r"0002/PSR_labels_raw.csv: line 5: image: frame 9 is not among .* 1…8",
    ),
    "steps past the last frame": (
        lambda d: edit(d, "psr/*/0001/PSR_labels.csv", lambda t: t + "00015.jpg,3,Install\n"),
        r"0001/PSR_labels.csv: line 3: image: frame 15 is not among .* 1…14",
    ),
    "box past the last frame": (
        lambda d: edit(d, "asd/*/0001_GT.csv", lambda t: t + "15,0,1,0.5,0.5,0.1,0.1\n"),
        r"0001_GT.csv: line 6: frame 15 is not among .* 1…14",
    ),
    "states out of order": (
        lambda d: edit(d, "psr/*/0001/PSR_labels_raw.csv", lambda t: t.replace("00006", "00003")),
        r"PSR_labels_raw.csv: line 3: image: frame 3 does not come after frame 4",
    ),
    "steps out of order": (
        lambda d: edit(d, "psr/*/0001/PSR_labels.csv", lambda t: t.replace("00006", "00002")),
        r"PSR_labels.csv: line 2: image: frame 2 comes after frame 4",
    ),
    "boxes out of order": (
        lambda d: edit(d, "asd/*/0001_GT.csv", lambda t: t.replace("7,0", "3,0")),
        r"0001_GT.csv: line 4: frame: frame 3 comes after frame 6",
    ),
    "unknown step": (
        lambda d: edit(d, "psr/*/0001/PSR_labels.csv", lambda t: t.replace(",12,", ",51,")),
        r"PSR_labels.csv: line 2: step id: '51' is not in 0…50",
    ),
    "state of wrong length": (
        lambda d: edit(
            d, "psr/*/0001/PSR_labels_raw.csv", lambda t: t.replace(state(0), state(0)[:-2])
        ),
        r"PSR_labels_raw.csv: line 2: s_16: is missing",
    ),
    "box outside the picture": (
        lambda d: edit(d, "asd/*/0001_GT.csv", lambda t: t.replace("0.95,", "1.01,")),
        r"0001_GT.csv: line 4: x: the box is outside the picture",
    ),
    "row of boxes cut off": (
        lambda d: edit(d, "asd/*/0001_GT.csv", lambda t: t.replace("0.95,0.5,0.2,", "0.95,")),
        r"0001_GT.csv: line 4: w: is missing",
    ),
    "flag of boxes": (
        lambda d: edit(d, "asd/*/0001_GT.csv", lambda t: t.replace("7,0,", "7,2,")),
        r"0001_GT.csv: line 4: flag: '2' is not in -1…1",
    ),
    "labels in no split": (
        lambda d: (d / "psr/train").rename(d / "psr/training"),
        r"psr/training/0001: is in no folder train, val or test\n.*0002: is in no",
    ),
    "frames of another split": (
        lambda d: (d / "frames/RGB_frames/Train/0001").rename(d / "frames/RGB_frames/Val/0001"),
        r"recording 0001: frames in split val, labels in train",
    ),
    "frames twice": (
        lambda d: (
            (d / "frames/again/0001").mkdir(parents=True)
            or (d / "frames/again/0001/00001.jpg").write_bytes(b"")
        ),
        r"recording 0001: frames in .*Train/0001 and .*again/0001; give one of them only",
    ),
    "no labels at all": (
        lambda d: (d / "psr").rename(d / "elsewhere") and (d / "psr").mkdir(),
        r"--labels=.*psr: no folder <train\|val\|test>/<recording> with a PSR_labels_raw.csv",
    ),
}


def edit_first_frame(data: Path) -> None:
    (image,) = data.glob("frames/*/Train/0001/00001.jpg")
    image.with_name("00000.jpg").write_bytes(image.read_bytes())


@pytest.mark.parametrize("mistake", MISTAKES)
def test_meccano_mistakes_are_named(tmp_path, mistake):
    change, message = MISTAKES[mistake]
    data = make_data(tmp_path / "data")
    change(data)
    with pytest.raises(ValueError, match=message):
        make(data, tmp_path / "out")
    assert not (tmp_path / "out").exists()  # all of them before the work begins


def test_meccano_all_mistakes_are_listed_at_once(tmp_path):
    data = make_data(tmp_path / "data")
    (data / "frames/RGB_frames/Val/0007").rename(data / "frames/RGB_frames/Val/0107")
    (data / "frames/RGB_frames/Test/0008").rename(data / "frames/RGB_frames/Test/0108")
    remove(data, "frames/*/Train/0001/00005.jpg")
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


def test_meccano_other_labels_or_framing_need_another_folder(data, made, tmp_path):
    changed = make_data(tmp_path / "data")
    edit(changed, "asd/*/0007_GT.csv", lambda text: text.replace("0.25", "0.26"))
    with pytest.raises(
        ValueError, match=r"--remake .*\nrecording 0007: its boxes are not those that "
    ):
        make(changed, made)
    for change, name in (
        ({"framing": Framing((16, 16), "crop")}, "aspect"),
        ({"framing": Framing((16, 16), region=(0, 0, 0.5, 1))}, "crop"),
        ({"framing": Framing((16, 16), quality=80)}, "quality"),
    ):
        with pytest.raises(ValueError, match=rf"settings.{name}.* was"):
            make(data, made, **change)
