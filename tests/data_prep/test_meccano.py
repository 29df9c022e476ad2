"""MECCANO as it is downloaded: layouts, splits, labels, mistakes, interruptions and job arrays."""

import contextlib
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from absl import flags

from data_prep import asd_labels, command, layout, meccano, recorded
from data_prep.pictures import Framing
from data_prep.trees import Tree, open_trees
from stormpsr_jax.data.clips import ClipSource
from stormpsr_jax.psr import labels
from stormpsr_jax.psr.procedure import load_procedure

REPOSITORY = Path(__file__).parents[2]
REAL = REPOSITORY / "../shared/data"
needs_real = pytest.mark.skipif(
    not (REAL / "meccano_psr_labels").is_dir(), reason="the shipped labels are not here"
)
PROCEDURE = load_procedure("meccano")
SIZE = Framing((16, 16))
FRAMES = {"0001": 14, "0002": 9, "0007": 11, "0008": 12}
SPLITS = {"0001": "train", "0002": "train", "0007": "val", "0008": "test"}


def state(*installed: int, wrong: tuple[int, ...] = ()) -> str:
    return ",".join("1" if k in installed else "-1" if k in wrong else "0" for k in range(17))


# Its label files as shipped; the steps leave out what the states also have, as in train/0016.
RAW = f"""00001.jpg,{state()}
00004.jpg,{state(0)}
00006.jpg,{state(0, 4, 8)}
00008.jpg,{state(0, 4, 8, wrong=(1,))}
00009.jpg,{state(0, 4, 8)}
"""
STEPS = "00004.jpg,0,Install left dampling fork\n00006.jpg,12,Install left frame\n"
WITH_ERRORS = STEPS + "00008.jpg,4,Incorrectly installed right dampling fork\n"
BOXES = """5,0,0,0.5,0.5,0.2,0.4
6,0,0,0.5,0.5,0.01,0.01
6,0,1,0.25,0.5,0.2,0.4
7,0,1,0.95,0.5,0.2,0.4
8,1,1,0.5,0.5,0.2,0.4
"""


def picture(name: str, frame: int) -> np.ndarray:
    rng = np.random.default_rng([int(name), frame])
    coarse = rng.integers(0, 256, (6, 12, 3), dtype=np.uint8)
    return np.ascontiguousarray(coarse.repeat(9, 0).repeat(8, 1))  # 54 x 96


def make_data(folder: Path, frames=FRAMES) -> Path:
    """A small MECCANO: frames/RGB_frames/Train/0001/00001.jpg …, psr/train/0001, asd/train."""
    for name, count in frames.items():
        split = SPLITS[name]
        images = folder / "frames/RGB_frames" / split.title() / name
        images.mkdir(parents=True)
        for frame in range(1, count + 1):
            jpeg = simplejpeg.encode_jpeg(picture(name, frame), 95)
            (images / f"{frame:05d}.jpg").write_bytes(jpeg)
        psr = folder / "psr" / split / name
        psr.mkdir(parents=True)
        (psr / "PSR_labels_raw.csv").write_text(RAW)
        (psr / "PSR_labels.csv").write_text(STEPS)
        (psr / "PSR_labels_with_errors.csv").write_text(WITH_ERRORS)
        if name != "0002":
            (folder / "asd" / split).mkdir(parents=True, exist_ok=True)
            (folder / "asd" / split / f"{name}_GT.csv").write_text(BOXES)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return make_data(tmp_path_factory.mktemp("meccano"))


def make(data: Path, out: Path, **changes) -> bool:
    arguments = {
        "frames": data / "frames",
        "labels": data / "psr",
        "asd_labels": data / "asd",
        "framing": SIZE,
    }
    return meccano.make_dataset(out, **(arguments | changes))


@pytest.fixture(scope="module")
def made(data, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("made") / "shards"
    assert make(data, out)
    return out


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_meccano_property_frames_states_and_splits(made):
    for split in ("train", "val", "test"):
        source = ClipSource(made, split, PROCEDURE)
        assert list(source.recordings) == [name for name in FRAMES if SPLITS[name] == split]
        assert source.fps == 12
        for name, recording in source.recordings.items():
            assert (recording.first_frame, recording.num_frames) == (1, FRAMES[name])
            assert recording.states[2].sum() == 0
            assert np.flatnonzero(recording.states[3]).tolist() == [0]  # frame 4
            assert recording.states[7, 1] == -1
            assert np.isnan(recording.visible).all()
            frames = range(1, FRAMES[name] + 1)
            for frame, image in zip(frames, source.frames(name, frames), strict=True):
                # 16 x 16 pixels of a 6 x 12 chequerboard: means of quarters tell frames apart
                real = picture(name, frame)
                for rows, large in ((slice(0, 8), slice(0, 27)), (slice(8, 16), slice(27, 54))):
                    expected = real[large].mean(axis=(0, 1))
                    assert np.abs(image[rows].mean(axis=(0, 1)) - expected).max() < 12


def test_meccano_property_boxes_and_their_classes(made):
    recording = ClipSource(made, "train", PROCEDURE).recordings["0001"]
    expected = np.full((14, 4), np.nan)
    expected[4] = [0.5, 0.5, 0.2, 0.4]
    expected[5] = [0.25, 0.5, 0.2, 0.4]  # the larger of two
    expected[6] = [0.925, 0.5, 0.15, 0.4]  # cut off at the picture's edge
    expected[7] = [0.5, 0.5, 0.2, 0.4]
    np.testing.assert_allclose(recording.boxes, expected, atol=1e-6)
    assert PROCEDURE.state_class(recording.states[5]) == 1
    ignored, error = 0, 12
    assert recording.classes[4:8].tolist() == [ignored, 1, 1, error]
    assert (np.delete(recording.classes, range(4, 8)) == -1).all()
    without = ClipSource(made, "train", PROCEDURE).recordings["0002"]
    assert (without.classes == -1).all()


def test_meccano_property_shipped_label_files_are_kept(made):
    for name, split in SPLITS.items():
        folder = made / "labels" / split / name
        assert (folder / "PSR_labels.csv").read_text() == STEPS
        assert (folder / "PSR_labels_with_errors.csv").read_text() == WITH_ERRORS
        assert (folder / "PSR_labels_raw.csv").read_text() == RAW


def test_meccano_property_log_says_what_is_particular(data, made, caplog):
    caplog.set_level("INFO", logger="absl")
    make(data, made)
    assert caplog.messages == [
        "4 recordings, 46 frames (22 in a catalogued state, 4 in an error state, 20 in an "
        "uncatalogued one), 15 boxes (9 in a catalogued state, 3 in an error state, 3 in an "
        "uncatalogued one; 3 cut off at the picture's edge, 3 left out for a larger one of the "
        "same frame)",
        "recordings with more changes of state than steps: 4 (0001, 0002, 0007, 0008)",
        "no boxes (ASD labels) for recordings 0002",
    ]


def zipped(folder: Path, path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for member in sorted(folder.rglob("*")):
            file.write(member, member.relative_to(folder))
    return path


def test_meccano_property_zip_files_and_workers_give_the_same_bytes(data, made, tmp_path):
    parts = {
        "frames": zipped(data / "frames", tmp_path / "MECCANO_RGB_frames.zip"),
        "labels": zipped(data / "psr", tmp_path / "psr.zip"),
        "asd_labels": zipped(data / "asd", tmp_path / "asd.zip"),
    }
    assert make(data, tmp_path / "out", workers=2, **parts)
    assert digests(tmp_path / "out") == digests(made)


def test_meccano_property_globs_fill_one_folder(data, made, tmp_path, capsys):
    out = tmp_path / "out"
    assert not make(data, out, recordings="000[17]")
    said = capsys.readouterr().out
    assert "2 of 4 recordings are still missing (0008, 0002)" in said
    assert "--recordings" in said
    assert not (out / "dataset_info.json").exists()
    assert len(list(out.glob("clips-*"))) == 2
    assert not make(data, out, recordings="test/*")
    assert make(data, out, recordings="0002")
    assert digests(out) == digests(made)
    with pytest.raises(ValueError, match=r"--recordings=9\* matches none of the 4 recordings"):
        make(data, tmp_path / "none", recordings="9*")


COMMAND = [sys.executable, "-m", "data_prep.meccano"]


def start(data: Path, out: Path, *arguments: str, **popen) -> subprocess.Popen:
    flags_ = [f"--frames={data}/frames", f"--labels={data}/psr", f"--asd_labels={data}/asd"]
    return subprocess.Popen(
        [*COMMAND, *flags_, f"--out={out}", "--size=16", *arguments],
        cwd=REPOSITORY,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **popen,
    )


@pytest.fixture(scope="module")
def longer(tmp_path_factory) -> Path:
    """A data set that takes a second or two: the frames of a recording are hard links."""
    folder = make_data(tmp_path_factory.mktemp("longer"))
    for name, split in SPLITS.items():
        images = folder / "frames/RGB_frames" / split.title() / name
        for frame in range(FRAMES[name] + 1, 1500):
            os.link(images / "00001.jpg", images / f"{frame:05d}.jpg")
    return folder


def test_meccano_property_killed_and_run_again_or_twice_at_once(longer, tmp_path):
    assert make(longer, tmp_path / "whole")
    expected = digests(tmp_path / "whole")

    killed = tmp_path / "killed"
    process = start(longer, killed, "--workers=1")
    deadline = time.monotonic() + 60
    while not (list(killed.glob("clips-*")) and list(killed.glob("unfinished/clips-*[0-9]"))):
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (killed / "dataset_info.json").exists()

    # Two runs at the same time, into a folder where a third one was killed.
    runs = [start(longer, killed, f"--workers={n}") for n in (1, 2)]
    for run in runs:
        output, errors = run.communicate(timeout=120)
        assert run.returncode == 0, output + errors
    assert digests(killed) == expected


def edit(data: Path, file: str, change) -> None:
    (path,) = data.glob(file)
    path.write_text(change(path.read_text()))


def remove(data: Path, file: str) -> None:
    (path,) = data.glob(file)
    path.unlink()


LINE = "[^\n]*"
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
        r"psr/training/0001: is in no folder train, val or test; .*0002: is in no",
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
def test_meccano_property_mistakes_are_named(tmp_path, mistake):
    change, message = MISTAKES[mistake]
    data = make_data(tmp_path / "data")
    change(data)
    with pytest.raises(ValueError, match=message):
        make(data, tmp_path / "out")
    assert not (tmp_path / "out").exists()  # all of them before the work begins


def test_meccano_property_all_mistakes_are_listed_at_once(tmp_path):
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
    with pytest.raises(ValueError, match=r"0001/PSR.*'99'.*; .*0007/PSR.*'99'"):
        make(data, tmp_path / "out")


def test_meccano_property_damaged_picture_stops_only_its_recording(tmp_path):
    data = make_data(tmp_path / "data")
    (path,) = data.glob("frames/*/Train/0001/00005.jpg")
    whole = path.read_bytes()
    path.write_bytes(whole[:-400])
    with pytest.raises(ValueError, match=r"recording train/0001: .*00005.jpg: the JPEG is damaged"):
        make(data, tmp_path / "out")
    assert not (tmp_path / "out/dataset_info.json").exists()
    path.write_bytes(whole)
    assert make(data, tmp_path / "out")


def test_meccano_property_other_labels_or_framing_need_another_folder(data, made, tmp_path):
    changed = make_data(tmp_path / "data")
    edit(changed, "asd/*/0007_GT.csv", lambda text: text.replace("0.25", "0.26"))
    with pytest.raises(ValueError, match=r"made with other arguments \(settings.labels.0007 was"):
        make(changed, made)
    for change, name in (
        ({"framing": Framing((16, 16), "crop")}, "aspect"),
        ({"framing": Framing((16, 16), region=(0, 0, 0.5, 1))}, "crop"),
        ({"framing": Framing((16, 16), quality=80)}, "quality"),
    ):
        with pytest.raises(ValueError, match=rf"settings.{name}.* was"):
            make(data, made, **change)


def run(*arguments: str) -> tuple[int, str]:
    """Runs the command in this process: (exit code, what it said on stderr)."""
    process = subprocess.run(
        [*COMMAND, *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    return process.returncode, process.stderr


def test_command_property_errors_are_one_line(data, tmp_path):
    good = [f"--frames={data}/frames", f"--labels={data}/psr"]
    for arguments, message in (
        ([*good], "--out"),
        ([*good, f"--out={tmp_path}/out", "--crop=0,0,2,1"], "--crop=0,0,2,1 is not"),
        ([*good, f"--out={tmp_path}/out", "more"], "unknown argument 'more'"),
        ([good[1], "--frames=nowhere", f"--out={tmp_path}/out"], "--frames: nowhere: no such"),
        ([*good, "--out=/proc/shards"], "/proc/shards"),  # where nobody can write
    ):
        code, said = run(*arguments)
        lines = said.strip().splitlines()
        assert code == 2, said
        assert lines[-1].startswith("error: "), said
        assert re.search(re.escape(message), lines[-1]), said
        assert "Traceback" not in said


def test_command_property_help_shows_all_flags():
    shown = subprocess.run([*COMMAND, "--help"], cwd=REPOSITORY, capture_output=True, text=True)
    for flag in ("frames", "labels", "asd_labels", "out", "size", "aspect", "crop", "recordings"):
        assert re.search(rf"^ +--{flag}:", shown.stdout, re.MULTILINE), flag


def test_command_property_ctrl_c_keeps_what_is_finished(longer, tmp_path):
    process = start(longer, tmp_path / "out", "--workers=1")
    deadline = time.monotonic() + 60
    while not list((tmp_path / "out").glob("clips-*")):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said.strip().endswith("run the same command again, finished recordings are kept")
    assert "Traceback" not in said
    assert list((tmp_path / "out").glob("clips-*"))
    assert not list((tmp_path / "out").glob("unfinished/clips-*[0-9]"))


def flag_values(*arguments: str) -> flags.FlagValues:
    values = flags.FlagValues()
    meccano.define_flags(values)
    values(["", *arguments])
    return values


def test_main_property_flags_reach_the_folder(data, tmp_path):
    parts = [f"--frames={data}/frames", f"--labels={data}/psr", f"--asd_labels={data}/asd"]
    out = tmp_path / "out"
    asked = ["--size=24", "--aspect=crop", "--crop=0,0,1,0.9", "--quality=80", "--workers=1"]
    meccano.main(flag_values(*parts, f"--out={out}", *asked, "--recordings=train/*"))
    stored = json.loads((out / "settings.json").read_text())
    assert stored["image_size"] == [24, 24]
    settings = stored["settings"]
    assert (settings["aspect"], settings["quality"]) == ("crop", 80)
    assert settings["crop"] == [0, 0, 1, 0.9]
    assert settings["frames"] == FRAMES
    assert len(list(out.glob("clips-*"))) == 2
    with pytest.raises(ValueError, match="--crop=1,2 is not four numbers"):
        command.framing_of(flag_values(*parts, f"--out={out}", "--crop=1,2"))


def test_command_property_read_only_folder_is_an_error(data, tmp_path, monkeypatch):
    def refuse(*_args, **_kwargs):
        raise OSError(30, "Read-only file system", str(tmp_path / "out"))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(OSError, match="Read-only file system"):
        make(data, tmp_path / "out")


def test_video_property_frames_of_a_video(tmp_path):
    av = pytest.importorskip("av")
    data = make_data(tmp_path / "data")
    for name, count in FRAMES.items():
        with av.open(str(tmp_path / "data" / f"{name}.mp4"), "w") as container:
            stream = container.add_stream("mpeg4", rate=12)
            stream.width, stream.height, stream.pix_fmt = 96, 54, "yuv420p"
            stream.bit_rate = 8_000_000
            for frame in range(1, count + 1):
                image = av.VideoFrame.from_ndarray(picture(name, frame), format="rgb24")
                container.mux(stream.encode(image))
            container.mux(stream.encode())
    videos = zipfile.ZipFile(tmp_path / "videos.zip", "w")
    with contextlib.closing(videos):
        for name in FRAMES:
            videos.write(tmp_path / "data" / f"{name}.mp4", f"RGB_Videos/{name}.mp4")
    assert make(data, tmp_path / "out", frames=tmp_path / "videos.zip")
    assert make(data, tmp_path / "of_files")
    one, other = (
        ClipSource(folder, "train", PROCEDURE).frames("0001", range(1, 15)).astype(float)
        for folder in (tmp_path / "out", tmp_path / "of_files")
    )
    assert np.abs(one - other).mean(axis=(1, 2, 3)).max() < 15
    shuffled = np.abs(one - np.roll(other, 1, axis=0)).mean(axis=(1, 2, 3))
    assert shuffled.min() > 25  # so 15 means: the same frame


@needs_real
def test_labels_golden_boxes_of_the_published_splits():
    procedure_states = 0
    counts = dict.fromkeys(("train", "val", "test"), 0)
    found = layout.find_labels(open_trees(REAL / "meccano_psr_labels"), "--labels")
    assert len(found) == 20
    boxed = meccano.find_boxes(REAL / "meccano_asd_labels")
    assert set(found) - set(boxed) == {"0005"}
    repeated = cut = 0
    for name, (tree, file) in boxed.items():
        split, (_, folder) = found[name]
        boxes = asd_labels.read_meccano_boxes(Path(tree.path, file))
        counts[split] += len(boxes.frames)
        repeated += boxes.num_repeated
        cut += boxes.num_cut
        states = labels.read_states(
            REAL / "meccano_psr_labels" / folder / "PSR_labels_raw.csv", PROCEDURE
        )
        last = int(boxes.frames.max())
        classes = PROCEDURE.state_classes(labels.states_per_frame(*states, 1, last))
        of_boxes = classes[boxes.frames - 1]
        procedure_states += int(((of_boxes > 0) & (of_boxes <= 11)).sum())
    assert counts == {"train": 6948, "val": 3053, "test": 3656}
    assert sum(counts.values()) == 13657
    assert procedure_states == 11224
    assert (repeated, cut) == (22, 912)


@needs_real
def test_meccano_property_all_real_labels_go_through():
    """Every recording with its own labels, and pictures that are only counted."""
    found = layout.find_labels(open_trees(REAL / "meccano_psr_labels"), "--labels")
    boxed = meccano.find_boxes(REAL / "meccano_asd_labels")
    recordings, known = [], {}
    for name, (split, folder) in found.items():
        pictures = layout.ImageFiles(Tree("nowhere"), name, 1, 26000)
        recording = layout.Recording(name, split, pictures, folder, boxed.get(name))
        recordings.append(recording)
        known[name] = recorded.read_labels(meccano.FORMAT, recording, PROCEDURE)
    lines = recorded.describe(recordings, known, PROCEDURE)
    assert "13657 boxes (11224 in a catalogued state" in lines[0]
    # More changes than steps: counted by hand from the files, states against PSR_labels.csv.
    assert lines[1] == "recordings with more changes of state than steps: 1 (0018)"
    assert lines[2] == "no boxes (ASD labels) for recordings 0005"


@needs_real
def test_meccano_property_a_real_recording_keeps_its_labels(tmp_path):
    """train/0016, whose steps are not those that its states give."""
    folder = tmp_path / "frames/Train/0016"
    folder.mkdir(parents=True)
    small = np.ascontiguousarray(picture("16", 1)[:16, :16])  # of the size asked for: quick
    (folder / "00001.jpg").write_bytes(simplejpeg.encode_jpeg(small, 95))
    for frame in range(2, 16653):
        os.link(folder / "00001.jpg", folder / f"{frame:05d}.jpg")
    labels_ = tmp_path / "psr/train"
    labels_.mkdir(parents=True)
    (labels_ / "0016").symlink_to(REAL / "meccano_psr_labels/train/0016")
    (tmp_path / "asd").mkdir()
    (tmp_path / "asd/0016_GT.csv").symlink_to(REAL / "meccano_asd_labels/train/0016_GT.csv")
    assert make(tmp_path, tmp_path / "out")
    for path in (REAL / "meccano_psr_labels/train/0016").iterdir():
        kept = tmp_path / "out/labels/train/0016" / path.name
        assert kept.read_bytes() == path.read_bytes()
    recording = ClipSource(tmp_path / "out", "train", PROCEDURE).recordings["0016"]
    assert recording.num_frames == 16652
    assert int((recording.classes >= 0).sum()) == 564 - 18
