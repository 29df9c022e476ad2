"""What is wrong with videos, labels and boxes is a line each, before anything is written."""

import json
import shutil

import numpy as np
import pytest

from data_prep import industreal, meccano, own
from stormpsr_jax.media import finding
from tests.support import refusals
from tests.support.commands import refused
from tests.support.own_data import FPS, PROCEDURE, make, words, write_pictures, write_video

# By command: the data, made by a fixture, and what it is given as.
SOURCES = {
    "own": (own.main, "own_pictures", "--videos=videos --labels=labels --procedure=pump.json"),
    "meccano": (meccano.main, "meccano_files", "--frames=frames --labels=psr --asd_labels=asd"),
    "industreal": (industreal.main, "industreal_files", "--data=."),
}


@pytest.mark.parametrize(("given", "files", "messages"), refusals.cases("data.txt"))
def test_an_error_is_a_line_with_its_place(
    request, tmp_path, monkeypatch, capsys, given, files, messages
):
    command, *more = given.split()
    main, fixture, flags = SOURCES[command]
    data = shutil.copytree(request.getfixturevalue(fixture), tmp_path / "data")
    shutil.rmtree(data / "out", ignore_errors=True)
    (data / "pump.json").write_text(json.dumps(PROCEDURE.to_json()))
    refusals.write(files, data)
    monkeypatch.chdir(data)
    refusals.check(capsys, messages, main, [*flags.split(), *more, "--out=out"])
    assert not (data / "out").exists()


def test_a_name_that_no_line_holds_is_shown(own_pictures, tmp_path, capsys):
    data = shutil.copytree(own_pictures, tmp_path / "data", ignore=shutil.ignore_patterns("out"))
    (data / "videos/bench\n3.mp4").touch()
    said = refused(capsys, own.main, words(data, tmp_path / "out"))
    assert r"bench\n3.mp4" in said
    assert said.endswith("; rename it")


def test_the_stretch_of_a_recording_of_another_shape_is_refused(own_pictures, tmp_path, caplog):
    data = tmp_path / "data"
    shutil.copytree(own_pictures, data, ignore=shutil.ignore_patterns("out"))
    shutil.rmtree(data / "videos/bench3")
    write_pictures(data / "videos/bench3", shape=(64, 48))
    said = "--aspect=stretch would distort recording bench3: its pictures, of 48x64, have another "
    with pytest.raises(ValueError, match=said + "shape than those of bench"):
        make(data, tmp_path / "out")
    assert not [record for record in caplog.records if "detector" in record.getMessage()]


def test_damage_inside_is_an_error_not_a_shorter_recording(tmp_path):
    path = write_video(tmp_path / "a.mkv", np.arange(0, 12, 0.2))
    opened_video = finding.open_recording(path, FPS)
    write_video(path, np.arange(0, 6, 0.2))
    with pytest.raises(ValueError, match=r"a.mkv: \d+ frames can be decoded, its index has"):
        list(opened_video.read())
