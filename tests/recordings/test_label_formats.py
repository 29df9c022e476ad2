"""Labels of every format are exact to the frame; what is wrong is a line each with its place.

`exported/label_studio*` are of Label Studio 1.23.2: the pre-labels of the demo, imported and taken
over; the second step was moved to frames 150 to 160 there. Task 2, `bench_02`, has the first three.
The other files there are written by hand, in the forms of the tools.
"""

import csv
import json
import pathlib
import shutil

import pytest

from data_prep import labels as command
from stormpsr_jax.psr import convert
from stormpsr_jax.recordings import find, words
from stormpsr_jax.recordings.label_file import LabelPlace
from stormpsr_jax.recordings.labels import (
    PSR_FILES,
    STATES,
    steps_to_states,
    write_states,
    write_steps,
)
from stormpsr_jax.recordings.procedure import load_procedure
from tests.support import refusals, toy
from tests.support.processes import refused

PROCEDURE = toy.procedure("base, cap", "10 11", fps=10, variant="up")
UP = PROCEDURE.variants["up"]
EXPORTED = pathlib.Path(__file__).parent / "exported"
# Files whose text or name no line of a snapshot holds.
NAMES = [("\x1b[2J.csv", "; rename it"), ("x" * 201 + ".csv", "; rename it")]
ODD = [
    *((name, "time,step\n1,0\n", message) for name, message in NAMES),
    ("a/PSR_labels.csv", b"\n\n1.jpg,0,\xff\n", "line 3: not UTF-8"),
    ("a.csv", f"time,step\n1.2,0\n{'9' * 400},3\n", "a.csv: line 3: time: '9999"),
]
# Other exports of tools, with what the error says before it names what is read.
FOUR = "is of no label format that is read: CSV"
OTHERS = [
    ("a.json", (EXPORTED / "label_studio_min.json").read_text(), FOUR),
    ("a.csv", (EXPORTED / "label_studio.csv").read_text(), "line 1: header: "),
    ("a.xlsx", "PK\3\4", FOUR),
]


@pytest.fixture
def toy_file(tmp_path):
    (tmp_path / "labels").mkdir()
    (tmp_path / "toy.json").write_text(json.dumps(PROCEDURE.to_json()))
    return tmp_path / "toy.json"


def labels(toy_file):
    folder = toy_file.parent
    flags = [f"--labels={folder / 'labels'}", f"--procedure={toy_file}"]
    convert.main(["labels", *flags, f"--out={folder / 'out'}"])


@pytest.mark.parametrize(
    ("files", "messages"),
    [
        *(pytest.param(*case.values[1:], id=case.id) for case in refusals.cases("labels.txt")),
        *(({name: text}, [message]) for name, text, message in ODD),
    ],
)
def test_an_error_is_one_line_with_its_place(toy_file, capsys, files, messages):
    refusals.write(files, toy_file.parent / "labels")
    refusals.check(capsys, messages, labels, toy_file)
    assert not (toy_file.parent / "out").exists()


@pytest.mark.parametrize("file", OTHERS, ids=lambda row: f"{row[0]}-{row[1][:12]!r}")
def test_another_export_is_refused_in_a_line_that_names_what_is_read(toy_file, capsys, file):
    name, text, message = file
    (toy_file.parent / "labels" / name).write_text(text)
    err = refused(capsys, labels, toy_file)
    assert f"labels/{name}: {message}" in err
    for what in ("time,step", "PSR_labels.csv", "Label Studio (JSON)", "CVAT (XML", "ELAN (.eaf)"):
        assert what in err


def test_the_draft_goes_by_the_component_in_a_word_and_is_taken_as_words(toy_file, capsys):
    rows = ["1,instal_base", "2,INSTALL CAP", "3,=cap off", "4,2", "5,coffee break"]
    rows += ["6,Caps put on wrong", "7,cap on base"]
    labelled = toy_file.parent / "labels/a.csv"
    labelled.write_text("\n".join(["time,step", *rows]) + "\n")
    out = toy_file.parent / "words.csv"
    flags = [f"--procedure={toy_file}", f"--labels={labelled.parent}", f"--out={out}"]
    assert command.main(["map", *flags]) == 0
    with out.open(newline="") as file:
        assert list(csv.reader(file)) == [
            ["word", "step", "how"],
            ["2", "Remove base", "is a step"],
            ["'=cap off", "Remove cap", "by its component"],
            ["cap on base", "", "none found"],
            ["Caps put on wrong", "Incorrectly installed cap", "by its component"],
            ["coffee break", "", "none found"],
            ["instal_base", "Install base", "by its component"],
            ["INSTALL CAP", "Install cap", "is a step"],
        ]
    assert "exists; give another name" in refused(capsys, command.main, ["map", *flags])
    steps = LabelPlace(labelled).read(PROCEDURE, UP, terms=words.terms(out, None, PROCEDURE))
    assert steps.with_errors == [(10, 0), (20, 3), (30, 5), (40, 2), (60, 4)]
    for text, message in (
        ("word,step\nboden,Install bas\n", "line 2: step: 'Install bas' is no step"),
        ("word,step\na,0\nA,3\n", "line 3: word: 'A' is given twice"),
        ("a,b\n", "line 1: header: 'a,b' is not word,step"),
    ):
        out.write_text(text)
        with pytest.raises(ValueError, match=message):
            words.terms(out, None, PROCEDURE)


@pytest.mark.parametrize("fps", [0.1, 12.5, 23.976, 29.97, 59.94, 120, 1000])
def test_times_are_exact_to_the_frame(tmp_path, fps):
    product, frames = PROCEDURE.at(fps), [1, 2, 7, 29, 1001, 19_999, 200_000]
    names = [f"{'Remove' if i % 2 else 'Install'} cap" for i, _ in enumerate(frames)]
    rows = [f"{frame / fps:.9f},{name}" for frame, name in zip(frames, names, strict=True)]
    slots = "".join(
        f"<TIME_SLOT TIME_SLOT_ID='{f}' TIME_VALUE='{round(1000 * f / fps)}'/>" for f in frames
    )
    texts = "".join(
        f"<ANNOTATION><ALIGNABLE_ANNOTATION TIME_SLOT_REF1='{f}' TIME_SLOT_REF2='{f}'>"
        f"<ANNOTATION_VALUE>{name}</ANNOTATION_VALUE></ALIGNABLE_ANNOTATION></ANNOTATION>"
        for f, name in zip(frames, names, strict=True)
    )
    elan = f"<TIME_ORDER>{slots}</TIME_ORDER><TIER TIER_ID='steps'>{texts}</TIER>"
    (tmp_path / "a.csv").write_text("\n".join(["time,step", *rows]) + "\n")
    (tmp_path / "a.eaf").write_text(f"<ANNOTATION_DOCUMENT>{elan}</ANNOTATION_DOCUMENT>")
    for path in tmp_path.iterdir():
        assert [frame for frame, _ in LabelPlace(path).read(product, UP).steps] == frames


def test_an_export_of_label_studio_has_the_corrected_steps_of_each_recording(tmp_path):
    shutil.copy(EXPORTED / "label_studio.json", tmp_path / "project-1-at-2026.json")
    product = load_procedure("synthetic")
    steps = {
        name: place.read(product, product.variants["assembly"], recording=name).steps
        for name, place in find.find(tmp_path).items()
    }
    # Frames are numbered from 1 there.
    parts = {101: "chassis", 147: "front wheels", 159: "rear wheels", 243: "cabin"}
    corrected = [(frame, 3 * product.components.index(part)) for frame, part in parts.items()]
    assert steps["demo"][:4] == corrected
    assert steps["bench_02"] == corrected[:3]
    assert len(steps["demo"]) == 13


def test_a_recording_of_a_project_without_a_step_has_none_of_another_one(tmp_path):
    value = {"ranges": [{"start": 11, "end": 11}], "timelinelabels": ["Install cap"]}
    tasks = [
        {"data": {"video": f"/up/0a1b2c3d-{name}.mp4", "fps": 10}, "annotations": [{"result": its}]}
        for name, its in (("a", [{"value": value}]), ("b", []))
    ]
    for name, steps in (("a", [(10, 3)]), ("b", []), ("c", None)):
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(tasks))
        if steps is not None:
            assert LabelPlace(path).read(PROCEDURE, UP).steps == steps
    with pytest.raises(ValueError, match=r"of several recordings \('a', 'b'\), none of them 'c'"):
        LabelPlace(path).read(PROCEDURE, UP)
    path.write_text(json.dumps(tasks[:1]))  # the only one
    assert LabelPlace(path).read(PROCEDURE, UP).steps == [(10, 3)]


def test_tasks_of_a_project_of_cvat_are_recordings_whose_pictures_it_numbers_on(tmp_path):
    """A track ends with a picture of its task, of every n-th too."""
    path = tmp_path / "project.xml"
    tasks = (
        "<task><id>1</id><name>one.mp4</name><size>10</size><start_frame>50</start_frame>"
        "<frame_filter>step=5</frame_filter></task><task><id>2</id><name>two</name><size>100</size>"
        "</task><task><id>3</id><subset>Test</subset><name>three</name><size>5</size></task>"
    )
    labelled = """<image name='frame_000060' task_id='1'><tag label='a'/></image>
        <image name='frame_000110' task_id='2'><tag label='b'/></image>
        <image name='seen/12.jpg' task_id='2'><tag label='c'/></image>
        <track label='d' task_id='2'><box frame='120'/><box frame='130' outside='1'/></track>
        <track label='e' task_id='1'><box frame='50'/><box frame='90' outside='1'/></track>
        <image name='frame_000004' task_id='3'><tag label='f'/></image>"""

    def read(tasks, labelled):
        meta = f"<meta><project><tasks>{tasks}</tasks></project></meta>\n"
        path.write_text(f"<annotations><version>1.1</version>{meta}{labelled}</annotations>")
        return LabelPlace(path).entries

    by_text = sorted((entry.text, entry.at) for entry in read(tasks, labelled))
    assert LabelPlace(path).recordings("x", ()) == ["one", "two", "seen", "three"]
    assert by_text == [("a", 60), ("b", 10), ("c", 12), ("d", 29), ("e", 85), ("f", 4)]
    for wrong in (labelled.replace("000110", "000200"), labelled.replace("task_id='3'", "")):
        with pytest.raises(ValueError, match=r"line [37]: .* project of several videos, .* each t"):
            read(tasks, wrong)
    with pytest.raises(ValueError, match="tasks of the project have the same name"):
        read(tasks.replace("<name>three", "<name>two"), labelled)


def test_tiers_called_steps_are_read_and_others_only_without_them(tmp_path):
    path, text = tmp_path / "a.eaf", (EXPORTED / "a.eaf").read_text()
    path.write_text(text.replace('"talk"/>', '"talk"><ANNOTATION><x/></ANNOTATION></TIER>'))
    words = ["Install seal", "INSTALL COVER", "screw on"]
    assert [entry.text for entry in LabelPlace(path).entries] == words
    text = text.replace("screw on", "").replace("Steps of Ann", "Install screw")
    path.write_text(text.replace('TIME_ORIGIN="0"', 'TIME_ORIGIN="1500"'))
    entry = LabelPlace(path).entries[-1]
    assert (entry.text, entry.at) == ("Install screw", 4.4)  # a tier a step


# --- Places of labels ---------------------------------------------------------------------------

STEPS = [(12, 0), (30, 3)]
TIMES = "time,step\n1.2,0\n0:03,Install cap\n"


def write_psr(folder, names=PSR_FILES):
    folder.mkdir(parents=True)
    frames, states = steps_to_states(STEPS, (0, 0), 0)
    for name in names:
        if name == STATES:
            write_states(folder / name, frames, states)
        else:
            write_steps(folder / name, STEPS, PROCEDURE)


def test_find_every_kind_and_place(tmp_path):
    write_psr(tmp_path / "a")
    write_psr(tmp_path / "train" / "b")
    (tmp_path / "c").mkdir()
    for place in ("c/times.csv", "train/d.csv", "e.CSV"):
        (tmp_path / place).write_text(TIMES)
    for other in ("splits.csv", "README.md", ".hidden.csv"):
        (tmp_path / other).write_text("x")
    found = find.find(tmp_path)
    places = {name: str(at.path.relative_to(tmp_path)) for name, at in found.items()}
    assert places == {
        "a": "a",
        "b": "train/b",
        "c": "c/times.csv",
        "d": "train/d.csv",
        "e": "e.CSV",
    }
    for path in found.values():
        read = path.read(PROCEDURE, UP)
        assert read.steps == STEPS
        assert read.frames.tolist() == [0, 12, 30]
        assert read.states.tolist() == [[0, 0], [1, 0], [1, 1]]


def test_what_may_be_labels_and_is_not_read_is_told(tmp_path, capsys):
    (tmp_path / "a.csv").write_text(TIMES)
    for name in ("README.md", "boxes/a.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}")
    assert list(find.find(tmp_path)) == ["a"]
    assert not capsys.readouterr().err
    (tmp_path / "b.json").write_text("{}")
    (tmp_path / "c_annotations.zip").write_bytes(b"PK")
    assert list(find.find(tmp_path)) == ["a"]
    said = capsys.readouterr().err
    assert said.startswith(f"warning: {tmp_path}/b.json and 1 more files are of no label format")
    (tmp_path / "a.csv").unlink()
    with pytest.raises(
        ValueError, match=r"b\.json: is of no .*\n.*c_anno.*: archives are not read"
    ):
        find.find(tmp_path)


def test_read_a_step_at_the_first_frame_was_done_before_it(tmp_path):
    """It is in the first state, and no completion; without any step there is only that state."""
    path = tmp_path / "a.csv"
    for text, steps, states in (
        ("0,0\n3,3\n", [(30, 3)], [[1, 0], [1, 1]]),
        ("0,0\n0.1,2\n", [(1, 2)], [[1, 0], [0, 0]]),
        ("0,Incorrectly installed cap\n", [], [[0, -1]]),
        ("", [], [[0, 0]]),
    ):
        path.write_text("time,step\n" + text)
        read = LabelPlace(path).read(PROCEDURE, UP)
        assert (read.steps, read.states.tolist()) == (steps, states)


def test_read_steps_follow_from_states_where_no_file_has_them(tmp_path):
    write_psr(tmp_path / "a", [STATES])
    (tmp_path / "a" / STATES).write_text("0.jpg,0,0\n5.jpg,-1,0\n9.jpg,1,0\n")
    read = LabelPlace(tmp_path / "a").read(PROCEDURE, UP)
    assert read.steps == [(9, 0)]
    assert read.with_errors == [(5, 1), (9, 0)]
