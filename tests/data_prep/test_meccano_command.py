"""The command data_prep.meccano: its flags, and errors of one line."""

import json
import re
import subprocess
from pathlib import Path

import pytest

from data_prep import command, meccano
from stormpsr_jax.base import memory
from tests.support.commands import refused
from tests.support.meccano_data import COMMAND, FRAMES, REPOSITORY, make


def test_command_errors_are_one_line(meccano_files, tmp_path, capsys):
    good = [f"--frames={meccano_files}/frames", f"--labels={meccano_files}/psr"]
    for arguments, message in (
        ([*good], "--out"),
        ([*good, f"--out={tmp_path}/out", "--crop=0,0,2,1"], "--crop=0,0,2,1 is not"),
        ([*good, f"--out={tmp_path}/out", "more"], "unrecognized arguments: more"),
        ([good[1], "--frames=nowhere", f"--out={tmp_path}/out"], "--frames: nowhere: no such"),
        ([*good, "--out=/proc/shards"], "/proc/shards"),  # where nobody can write
    ):
        assert message in refused(capsys, meccano.main, arguments)


def test_command_help_shows_all_flags():
    shown = subprocess.run([*COMMAND, "--help"], cwd=REPOSITORY, capture_output=True, text=True)
    for flag in ("frames", "labels", "asd_labels", "out", "size", "aspect", "crop", "recordings"):
        assert re.search(rf"^ +--{flag} ", shown.stdout, re.MULTILINE), flag


def test_main_flags_reach_the_folder(meccano_files, tmp_path):
    parts = [
        f"--frames={meccano_files}/frames",
        f"--labels={meccano_files}/psr",
        f"--asd_labels={meccano_files}/asd",
    ]
    out = tmp_path / "out"
    asked = ["--size=24", "--aspect=crop", "--crop=0,0,1,0.9", "--quality=80", "--workers=1"]
    assert meccano.main([*parts, f"--out={out}", *asked, "--recordings=train/*"]) == 0
    stored = json.loads((out / "settings.json").read_text())
    assert stored["image_size"] == [24, 24]
    settings = stored["settings"]
    assert (settings["aspect"], settings["quality"]) == ("crop", 80)
    assert settings["crop"] == [0, 0, 1, 0.9]
    assert {name: its["frames"] for name, its in stored["sources"].items()} == FRAMES
    assert len(list(out.glob("clips-*"))) == 2


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--crop=1,2", "--crop=1,2 is not four numbers x0,y0,x1,y1"),
        ("--crop=0,0,1,x", "--crop=0,0,1,x is not four numbers"),
        ("--size=4", "argument --size: 4 is not in 8…4096"),
        (
            "--size=50",
            "argument --size: 50 is a multiple neither of 8 nor of 14, the patches of an "
            "encoder would not fill the picture; take 48 or 56",
        ),
        (
            "--size=9",
            "argument --size: 9 is a multiple neither of 8 nor of 14, the patches of an "
            "encoder would not fill the picture; take 8 or 14",
        ),
        ("--quality=0", "--quality=0 is not in 1…100"),
        ("--workers=0", "argument --workers: 0 is less than 1"),
        ("--workers=x", "argument --workers: invalid whole number value: 'x'"),
        ("--aspect=none", "argument --aspect: invalid choice: 'none'"),
        ("--recording=a", "unrecognized arguments: --recording=a"),
    ],
)
def test_main_wrong_flags_are_one_line(meccano_files, tmp_path, capsys, flag, message):
    out = tmp_path / "out"
    words = [f"--frames={meccano_files}/frames", f"--labels={meccano_files}/psr", flag]
    said = refused(capsys, meccano.main, [*words, f"--out={out}"])
    assert said.startswith(f"error: {message}")
    assert not out.exists()


def test_command_read_only_folder_is_an_error(meccano_files, tmp_path, monkeypatch):
    def refuse(*_args, **_kwargs):
        raise OSError(30, "Read-only file system", str(tmp_path / "out"))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(OSError, match="Read-only file system"):
        make(meccano_files, tmp_path / "out")


def test_command_errors_too_little_memory_is_a_line(monkeypatch, capsys):
    def act():
        raise MemoryError

    main = command.command("x", "", lambda parser: None, act)
    with pytest.raises(SystemExit, match="2"):
        main([])
    assert capsys.readouterr().err == "error: there is not enough memory\n"
    monkeypatch.setattr(memory, "MIN_MEMORY", 2**60)  # before anything is begun
    with pytest.raises(SystemExit, match="2"):
        main([])
    assert capsys.readouterr().err.startswith("error: a run needs 1,073,741,824.0 GiB")
