"""What is wrong with videos, labels and boxes is a line each, before anything is written."""

import json
import shutil

import numpy as np
import pytest

from data_prep import draft, impact, industreal, industreal_cad, meccano, own, parts, synthetic
from stormpsr_jax.media import sources
from tests.data_prep import test_impact, test_industreal_cad
from tests.support import cad_files, refusals
from tests.support.own_data import FPS, PROCEDURE, make, write_pictures, write_video

# By command: the data, made by a fixture or a function, and what it is given as.
SOURCES = {
    "own": (own.main, "own_pictures", "--videos=videos --labels=labels --procedure=pump.json"),
    "meccano": (meccano.main, "meccano_files", "--frames=frames --labels=psr --asd_labels=asd"),
    "industreal": (industreal.main, "industreal_files", "--data=."),
    "impact": (impact.main, test_impact.make_data, "--videos=videos --labels=psr"),
    "renders": (
        industreal_cad.main,
        test_industreal_cad.make_data,
        "--data=. --size=8 --workers=1",
    ),
    "cad": (synthetic.main, cad_files.make_data, "--meshes=meshes --procedure=toy.json"),
    "synthetic": (synthetic.main, cad_files.make_data, ""),
    "parts": (parts.main, cad_files.make_data, ""),
    "draft": (draft.main, cad_files.make_data, "--meshes=meshes"),
}


@pytest.mark.parametrize(("given", "files", "messages"), refusals.cases("data.txt"))
def test_an_error_is_a_line_with_its_place(
    request, tmp_path, monkeypatch, capsys, given, files, messages
):
    command, *more = given.split()
    main, source, flags = SOURCES[command]
    data = tmp_path / "data"
    if callable(source):
        source(data)
    else:
        shutil.copytree(request.getfixturevalue(source), data)
    shutil.rmtree(data / "out", ignore_errors=True)
    (data / "pump.json").write_text(json.dumps(PROCEDURE.to_json()))
    refusals.write(files, data)
    monkeypatch.chdir(data)
    refusals.check(capsys, messages, main, [*flags.split(), "--out=out", *more])
    assert not (data / "out").exists()


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
    opened_video = sources.open_recording(path, FPS)
    write_video(path, np.arange(0, 6, 0.2))
    with pytest.raises(ValueError, match=r"a.mkv: \d+ frames can be decoded, its index has"):
        list(opened_video.read())
