import contextlib
import json
import re
from pathlib import Path

import numpy as np
import pytest

from data_prep import labels as labels_command
from data_prep import own
from stormpsr_jax import evaluate, procedure
from stormpsr_jax.psr import convert
from tests.support import label_formats, refusals
from tests.support.commands import refused
from tests.support.own_data import PROCEDURE, opened, words, write_video

# Of a variable frame rate: pictures at uneven times, two of which no frame at 5 a second shows.
TIMES = np.array([0, 0.07, 0.2, 0.35, 0.5, 0.61, 0.9, 1.0, 1.4, 1.45, 1.55, 1.6, 2.1, 2.9, 3.3])
LABELLED = {2: "Install seal", 8: "INSTALL COVER", 13: "screw on"}  # by picture
FRAMES = {2: 1, 8: 7, 13: 15}  # the first of which each is shown, at n / 5 s or before


@pytest.mark.usefixtures("system")
def test_labels_of_every_kind_are_exact_at_a_variable_frame_rate(tmp_path, capsys):
    events = [(float(TIMES[m]), m, name) for m, name in LABELLED.items()]
    made = {"bench1.xml": label_formats.cvat_tracks, "bench2.eaf": label_formats.eaf}
    made["bench3.json"] = label_formats.labelstudio_seconds
    (tmp_path / "labels").mkdir()
    for name, write in made.items():
        write_video(tmp_path / "videos" / f"{name[:6]}.mp4", TIMES, "mpeg4")
        write(tmp_path / "labels" / name, events, 5)
    (tmp_path / "words.csv").write_text("word,step\nscrew on,Install screw\n")
    flags = words(tmp_path, tmp_path / "data", "--size=32")
    with pytest.raises(SystemExit):
        own.main(flags)
    err = capsys.readouterr().err
    assert re.search(
        r"bench2\.eaf: line [0-9]+: <ALIGNABLE_ANNOTATION> of tier .Steps of Ann.: step", err
    )
    assert "'screw on' is no step" in err
    flags.append(f"--words={tmp_path / 'words.csv'}")
    assert own.main(flags) == 0
    for recording, _ in opened(tmp_path / "data").values():
        changes = (np.flatnonzero(np.diff(recording.states.sum(1))) + 1).tolist()
        assert changes == list(FRAMES.values()), recording.name
    # Other words are other labels: what was made of them has to be made again.
    (tmp_path / "words.csv").write_text("word,step\nscrew on,Install screw\ntalk,\n")
    with pytest.raises(SystemExit):
        own.main(flags)
    assert "--remake" in capsys.readouterr().err
    assert own.main([*flags, "--remake"]) == 0


@pytest.fixture(scope="module")
def films(system, tmp_path_factory):
    """Three videos with 25 pictures a second."""
    folder = tmp_path_factory.mktemp("films")
    for i in range(1, 4):
        write_video(folder / f"bench{i}.mp4", np.arange(0, 5, 0.04), "mpeg4")
    return folder


def test_a_rate_of_labels_that_the_videos_do_not_have_is_a_warning(films, tmp_path, caplog):
    events = [(1.0, 25, "Install seal"), (2.0, 50, "Install cover"), (3.0, 75, "Install screw")]
    (tmp_path / "labels").mkdir()
    label_formats.cvat_tracks(tmp_path / "labels/bench1.xml", events, 25)
    label_formats.cvat_tracks(tmp_path / "labels/bench2.xml", events, 25)
    rows = "".join(f"{frame},{name}\n" for _, frame, name in events)
    (tmp_path / "labels/bench3.csv").write_text("frame,step\n" + rows)
    for rate, of_csv in ((30, 13), (25, 15)):
        caplog.clear()
        flags = words(tmp_path, tmp_path / str(rate), f"--videos={films}", f"--labels_fps={rate}")
        assert own.main([*flags, "--size=32"]) == 0
        assert ("have 25 pictures a second" in caplog.text) == (rate == 30)
        for name, (recording, _) in opened(tmp_path / str(rate)).items():
            last = int(np.flatnonzero(np.diff(recording.states.sum(1)))[-1]) + 1
            assert last == (of_csv if name == "bench3" else 15), name


def cvat_project(names):
    tasks = "".join(
        f"<task><id>{i}</id><name>{name}.mp4</name><size>125</size></task>"
        for i, name in enumerate(names)
    )
    tags = "".join(
        f"<image name='frame_{125 * i + 25 * (k + 1):06d}' task_id='{i}'><tag label='{3 * k}'/>"
        "</image>"
        for i in range(len(names))
        for k in range(3)
    )
    meta = f"<meta><project><tasks>{tasks}</tasks></project></meta>"
    return f"<annotations><version>1.1</version>{meta}{tags}</annotations>"


def test_an_export_of_a_whole_project_is_read_as_it_is(films, tmp_path, capsys):
    names = [f"bench{i}" for i in range(1, 4)]
    path = tmp_path / "annotations.xml"  # as CVAT names it
    given = f"--videos={films}", f"--labels={path}"
    flags = words(tmp_path, tmp_path / "data", "--size=32", *given)
    path.write_text(cvat_project(["bench1", "bench2", "other"]))
    said = refused(capsys, own.main, flags, lines=3).splitlines()
    assert said[0].endswith("): other")
    assert said[1].endswith("frames without labels: bench3")
    assert "has labels of bench1, bench2, other, as the labelling tool calls the videos" in said[2]
    path.write_text(cvat_project(names))
    assert own.main(flags) == 0
    for recording, _ in opened(tmp_path / "data").values():
        changes = (np.flatnonzero(np.diff(recording.states.sum(1))) + 1).tolist()
        assert changes == [5, 10, 15], recording.name
    labels_command.main(["check", str(path), flags[2], "--labels_fps=25"])
    assert "3 recordings (assembly 3), 9 steps" in capsys.readouterr().out
    given = [flags[2], f"--labels={path}", "--labels_fps=25"]
    convert.main(["labels", *given, f"--out={tmp_path / 'psr'}"])
    assert sorted(folder.name for folder in (tmp_path / "psr").iterdir()) == names


@pytest.fixture
def labels(tmp_path, monkeypatch):
    """A folder for labels of bench1, beside a procedure and predictions."""
    monkeypatch.chdir(tmp_path)
    predicted = {"asd/bench1_results_pred.csv": "name,frame,class,conf,x,y,w,h\n"}
    refusals.write(predicted | {"pump.json": json.dumps(PROCEDURE.to_json())}, tmp_path)
    (tmp_path / "labels/bench1").mkdir(parents=True)
    return tmp_path / "labels/bench1"


def truth(*said):
    """The steps that `evaluate` has of it."""
    flags = ["--procedure=pump.json", "--labels=labels", "--asd=asd", "--decoder=naive"]
    evaluate.main([*flags, *said, "--out=metrics.json"])
    asd = json.loads(Path("metrics.json").read_text())["streams"]["asd"]
    return asd["recordings"]["bench1"]["truth"]


def test_evaluate_and_procedure_check_take_words_and_the_rate_of_frames(labels, capsys):
    Path("words.csv").write_text("word,step\nscrew on,6\n")
    names = [(0, 30, "Install seal"), (0, 60, "screw on")]
    label_formats.cvat_tracks(labels / "1.xml", names, 30)
    said = ["--words=words.csv", "--labels_fps=30"]
    for flags, message in (
        (said, "the labels of 1 recording can be read, with warnings"),  # the cover is missing
        (said[:1], "counts the pictures of the video"),
        (said[1:], "'screw on' is no step"),
    ):
        with contextlib.suppress(SystemExit):
            procedure.main(["check", "pump.json", "--labels=labels", *flags])
        assert message in "".join(capsys.readouterr())
    assert truth(*said) == [[5, 0], [10, 6]]


EVERY_FORMAT = label_formats.TIMED | label_formats.FRAMED | label_formats.PICTURED


@pytest.mark.parametrize("name", EVERY_FORMAT)
def test_evaluate_and_procedure_check_take_labels_of_every_format(labels, capsys, name):
    events = [(1.0, 5, "Install seal"), (2.0, 10, "Install cover"), (3.0, 15, "Install screw")]
    EVERY_FORMAT[name](labels / name, events, 5)
    procedure.main(["check", "pump.json", "--labels=labels", "--labels_fps=5"])
    assert "the labels of 1 recording fit" in capsys.readouterr().out
    assert truth("--labels_fps=5") == [[5, 0], [10, 3], [15, 6]]
