"""MECCANO in several goes: killed, interrupted, recording by recording."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.support.meccano_data import COMMAND, FRAMES, REPOSITORY, SPLITS, digests, make, make_data


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return make_data(tmp_path_factory.mktemp("meccano"))


@pytest.fixture(scope="module")
def made(data, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("made") / "shards"
    assert make(data, out)
    return out


def test_meccano_globs_fill_one_folder(data, made, tmp_path, capsys):
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
        for frame in range(FRAMES[name] + 1, 900):
            os.link(images / "00001.jpg", images / f"{frame:05d}.jpg")
    return folder


def test_meccano_killed_and_run_again(longer, tmp_path):
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

    run = start(longer, killed, "--workers=1")
    output, errors = run.communicate(timeout=120)
    assert run.returncode == 0, output + errors
    assert digests(killed) == expected


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


def test_command_ctrl_c_keeps_what_is_finished(longer, tmp_path):
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
