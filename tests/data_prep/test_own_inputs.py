"""Labels and boxes of every form, for recordings of one's own."""

import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from data_prep import labels as labels_command
from data_prep import matching, own
from stormpsr_jax import evaluate, procedure
from stormpsr_jax.data.folder import EMPTY, NOT_ANNOTATED
from stormpsr_jax.media.framing import Framing
from stormpsr_jax.media.video import Video
from stormpsr_jax.psr import convert
from stormpsr_jax.recordings.label_file import LabelPlace
from stormpsr_jax.recordings.recording import read_recording
from tests.support import refusals
from tests.support.own_data import PROCEDURE, STEPS, make, opened, words, write_video
from tests.support.processes import refused

EXPORTED = Path(__file__).parents[1] / "recordings/exported"
# Of a variable frame rate: pictures at uneven times, two of which no frame at 5 a second shows.
TIMES = np.array([0, 0.07, 0.2, 0.35, 0.5, 0.61, 0.9, 1.0, 1.4, 1.45, 1.55, 1.6, 2.1, 2.9, 3.3])
PICTURES = [2, 8, 13]  # at which the seal, the cover and the screw are labelled
FRAMES = [1, 7, 15]  # the first of which each is shown, at n / 5 s or before


def changes(recording):
    return (np.flatnonzero(np.diff(recording.states.sum(1))) + 1).tolist()


@pytest.mark.usefixtures("system")
def test_labels_of_every_kind_are_exact_at_a_variable_frame_rate(tmp_path, capsys):
    files = {"bench1.xml": "cvat_tracks.xml", "bench2.eaf": "a.eaf"}
    (tmp_path / "labels").mkdir()
    for name, file in (files | {"bench3.json": "labelstudio_seconds.json"}).items():
        write_video(tmp_path / "videos" / f"{name[:6]}.mp4", TIMES, "mpeg4")
        shutil.copy(EXPORTED / file, tmp_path / "labels" / name)
    (tmp_path / "words.csv").write_text("word,step\nscrew on,Install screw\n")
    flags = words(tmp_path, tmp_path / "data", "--size=32")
    err = refused(capsys, own.main, flags, lines=3)
    assert re.search(r"bench2\.eaf: line 6: <ALIGNABLE_ANNOTATION> of tier .Steps of Ann.: st", err)
    assert "'screw on' is no step" in err
    flags.append(f"--words={tmp_path / 'words.csv'}")
    assert own.main(flags) == 0
    for recording, _ in opened(tmp_path / "data").values():
        assert changes(recording) == FRAMES, recording.name
    # Other words are other labels: what was made of them has to be made again.
    (tmp_path / "words.csv").write_text("word,step\nscrew on,Install screw\ntalk,\n")
    assert "--remake" in refused(capsys, own.main, flags, lines=4)
    assert own.main([*flags, "--remake"]) == 0


@pytest.fixture(scope="module")
def videos(system, tmp_path_factory):
    """Three videos with 25 pictures a second."""
    folder = tmp_path_factory.mktemp("videos")
    for i in range(1, 4):
        write_video(folder / f"bench{i}.mp4", np.arange(0, 5, 0.04), "mpeg4")
    return folder


def test_a_rate_of_labels_that_the_videos_do_not_have_is_a_warning(videos, tmp_path, caplog):
    (tmp_path / "labels").mkdir()
    track = "<track label='0'><box frame='75'/></track>"
    for name in ("bench1.xml", "bench2.xml"):
        text = f"<annotations><version>1.1</version>{track}</annotations>"
        (tmp_path / "labels" / name).write_text(text)
    (tmp_path / "labels/bench3.csv").write_text("frame,step\n75,0\n")
    for rate, of_csv in ((30, 13), (25, 15)):
        caplog.clear()
        flags = words(tmp_path, tmp_path / str(rate), f"--videos={videos}", f"--labels_fps={rate}")
        assert own.main([*flags, "--size=32"]) == 0
        assert ("have 25 pictures a second" in caplog.text) == (rate == 30)
        for name, (recording, _) in opened(tmp_path / str(rate)).items():
            assert changes(recording) == [of_csv if name == "bench3" else 15], name


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


def test_an_export_of_a_whole_project_is_read_as_it_is(videos, tmp_path, capsys):
    names = [f"bench{i}" for i in range(1, 4)]
    path = tmp_path / "annotations.xml"  # as CVAT names it
    given = f"--videos={videos}", f"--labels={path}"
    flags = words(tmp_path, tmp_path / "data", "--size=32", *given)
    path.write_text(cvat_project(["bench1", "bench2", "other"]))
    lines = refused(capsys, own.main, flags, lines=3).splitlines()
    assert lines[0].endswith("): other")
    assert lines[1].endswith("frames without labels: bench3")
    assert "has labels of bench1, bench2, other, as the labelling tool calls the videos" in lines[2]
    path.write_text(cvat_project(names))
    assert own.main(flags) == 0
    for recording, _ in opened(tmp_path / "data").values():
        assert changes(recording) == [5, 10, 15], recording.name
    labels_command.main(["check", str(path), flags[2], "--labels_fps=25"])
    assert "3 recordings (assembly 3), 9 steps" in capsys.readouterr().out
    given = [flags[2], f"--labels={path}", "--labels_fps=25"]
    convert.main(["labels", *given, f"--out={tmp_path / 'psr'}"])
    assert sorted(folder.name for folder in (tmp_path / "psr").iterdir()) == names


@pytest.mark.parametrize("path", sorted(EXPORTED.glob("[!l]*")) + sorted(EXPORTED.glob("labels*")))
def test_evaluate_and_procedure_check_take_labels_of_every_format(
    tmp_path, capsys, monkeypatch, path
):
    """With words, and the rate of frames."""
    monkeypatch.chdir(tmp_path)
    predicted = {"asd/bench1_results_pred.csv": "name,frame,class,conf,x,y,w,h\n"}
    files = {"pump.json": json.dumps(PROCEDURE.to_json()), "words.csv": "word,step\nscrew on,6\n"}
    refusals.write(predicted | files, tmp_path)
    Path("labels/bench1").mkdir(parents=True)
    shutil.copy(path, "labels/bench1")
    terms = ["--words=words.csv", "--labels_fps=5"]
    check = ["check", "pump.json", "--labels=labels"]
    procedure.main([*check, *terms])
    assert "the labels of 1 recording fit" in capsys.readouterr().out
    assert "'screw on' is no step" in refused(capsys, procedure.main, [*check, terms[1]]).lower()
    if path.name == "cvat_tracks.xml":
        assert "counts the pictures of" in refused(
            capsys, procedure.main, [*check, terms[0]], lines=3
        )
    flags = ["--procedure=pump.json", "--labels=labels", "--asd=asd", "--decoder=naive", *terms]
    evaluate.main([*flags, "--out=metrics.json"])
    (asd,) = json.loads(Path("metrics.json").read_text())["streams"].values()
    frames = PICTURES if path.name == "cvat_tracks.xml" else FRAMES
    truth = [[frame, 3 * k] for k, frame in enumerate(frames)]
    assert asd["recordings"]["bench1"]["truth"] == truth


BOX = (0.375, 0.5, 0.25, 0.5)  # of a picture 64 x 48: x 16…32, y 12…36
ROW = f"0 {' '.join(map(str, BOX))}\n"
NAMES = ("bench1", "bench2", "bench3")


def coco(*images: str, empty: Sequence[str] = (), **changes) -> str:
    """A COCO file with these images and a box on each, and with images without one."""
    listed = [
        {"id": i, "file_name": name, "width": 64, "height": 48}
        for i, name in enumerate([*images, *empty])
    ]
    box = {"category_id": 1, "bbox": [16, 12, 16, 24]} | changes
    boxes = [box | {"id": i, "image_id": i} for i in range(len(images))]
    table = [{"id": 1, "name": "pump"}]
    return json.dumps({"images": listed, "categories": table, "annotations": boxes})


# What lies below --boxes (or is it), and by recording the frames with a box and the empty ones.
SHARED = coco(
    *("bench1/000006.jpg", "frames/bench2/000006.jpg", "my frames\\bench3\\000006.jpg"),
    empty=("bench1/000008.jpg", "bench3/000003.jpg", "elsewhere/000001.jpg", "cover"),
)
OF_ALL = {"bench1": ([6], [8]), "bench2": ([6], []), "bench3": ([6], [3])}
COPY = coco("bench1/000006.jpg", "x/bench2/000009.jpg", empty=["bench2/000010.jpg"])
FORMS = {
    "a file each": (
        {
            "bench1.json": coco("000006.jpg", "IMG_9.jpg", empty=["bench1/000008.jpg"][:0]),
            "bench2/ab12cd-000006.txt": ROW,
            "bench2/000008_jpg.rf.5a1f8c0d93e4.txt": "",
            "bench2/000010.txt": "\n \n",
            "bench2/classes.txt": "pump\n",
            "bench2/README.roboflow.txt": "of no picture\n",
            "bench3.json": coco("000008.jpg", "000006.jpg"),
        },
        {"bench1": ([6, 9], []), "bench2": ([6], [8, 10]), "bench3": ([6, 8], [])},
    ),
    "one COCO file": ({"all.json": SHARED}, OF_ALL),
    "one COCO file in a folder": ({"annotations/instances_default.json": SHARED}, OF_ALL),
    # Those of all recordings would be too many.
    "copies of one file": (
        {f"{name}.json": COPY for name in NAMES[:2]},
        {"bench1": ([6], []), "bench2": ([9], [10]), "bench3": ([], [])},
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_boxes_of_every_form_are_those_of_their_frames(tmp_path, form):
    files, expected = FORMS[form]
    refusals.write(files, tmp_path)
    given = next(iter(files)) if form == "one COCO file" else "."
    found = matching.find_boxes(tmp_path / given, NAMES)
    for name, (boxed, empty) in expected.items():
        place = found.get(name)
        if place is None:
            assert not boxed
            continue
        read = place()
        assert (read.frames.tolist(), read.empty.tolist()) == (boxed, empty), name
        np.testing.assert_allclose(read.boxes, [BOX] * len(boxed))
        assert read.classes is None  # the state counts that the labels give


def test_boxes_follow_the_picture_and_other_frames_are_not_annotated(
    own_pictures, tmp_path, caplog
):
    caplog.set_level("INFO", logger="absl")
    files = {
        "boxes/bench1.json": coco("bench1/000006.jpg", category_id=7),
        "boxes/bench2/000006.txt": ROW,
        "boxes/bench2/000007.txt": "",
        "boxes/bench2/000009.txt": "0 0.9 0.5 0.1 0.5\n",  # outside the half: nobody knows
        "splits.csv": "recording,split\nbench1,train\nbench2,val\nbench3,test\n",
    }
    refusals.write(files, tmp_path)
    framing = Framing((32, 32), aspect="pad", region=(0, 0, 0.5, 1))
    splits = str(tmp_path / "splits.csv")
    make(own_pictures, tmp_path / "out", boxes=tmp_path / "boxes", framing=framing, splits=splits)
    recordings = opened(tmp_path / "out")
    assert {n: s.split for n, (_, s) in recordings.items()} == dict(
        zip(NAMES, ("train", "val", "test"), strict=True)
    )
    for name in NAMES:
        recording = recordings[name][0]
        expected = [NOT_ANNOTATED] * 20
        if name != "bench3":
            expected[6] = 1  # the state there, whatever the category says
            # the left half, 32 x 48, becomes 21 x 32 pixels from column 5 on
            box = [(5 + 0.75 * 21) / 32, 0.5, 0.5 * 21 / 32, 0.5]
            np.testing.assert_allclose(recording.boxes[6], box, atol=1e-6)
        if name == "bench2":
            expected[7] = EMPTY  # a file without boxes
        assert recording.classes.tolist() == expected
    assert not any("detector" in message for message in caplog.messages)


def test_boxes_numbered_by_the_pictures_of_the_video_name_both_rates(tmp_path):
    refusals.write({"000003.txt": ROW, "000075.txt": ROW}, tmp_path)
    film = Video(tmp_path / "bench1.mp4", 13, np.arange(76) / 30, fps=5)
    refusals.write({"bench1.csv": STEPS}, tmp_path)
    place = LabelPlace(tmp_path / "bench1.csv")
    with pytest.raises(ValueError, match=r"000075.txt: line 1: .* has 30 a second; .* has 5 fr"):
        read_recording(
            "bench1", film, place, PROCEDURE, read_boxes=lambda: matching.read_boxes(tmp_path)
        )
