"""What is wrong with labels of any kind is a line each with its place, by `convert labels`."""

import csv
import json
import pathlib

import pytest

from data_prep import labels as command
from stormpsr_jax.psr import convert
from stormpsr_jax.psr.files import label_files, words
from tests.support import toy
from tests.support.commands import refused

PROCEDURE = toy.procedure("base, cap", "10 11", fps=10, variant="up")
UP = PROCEDURE.variants["up"]
EXPORTED = pathlib.Path(__file__).parent / "exported"
EAF = (
    "<ANNOTATION_DOCUMENT><HEADER/>\n<TIME_ORDER>{slots}</TIME_ORDER>\n<TIER TIER_ID='steps'>"
    "<ANNOTATION><ALIGNABLE_ANNOTATION ANNOTATION_ID='a' TIME_SLOT_REF1='1' TIME_SLOT_REF2='2'>"
    "<ANNOTATION_VALUE>Install cap</ANNOTATION_VALUE></ALIGNABLE_ANNOTATION></ANNOTATION></TIER>"
    "</ANNOTATION_DOCUMENT>"
)
SLOT = "<TIME_SLOT TIME_SLOT_ID='{}' TIME_VALUE='{}'/>"
CVAT = "<annotations><version>1.1</version>\n{}</annotations>"
MANY = "<meta><project><tasks><task/><task/></tasks></project></meta>\n"
HEADER = "line 1: header: "
FOUR = "is of no label format that is read: CSV"
# Files of other tools, and other exports, by name; with what the error says before it names what
# is read.
OTHERS = [
    ("a.json", (EXPORTED / "label_studio_min.json").read_text(), FOUR),
    ("a.json", '{"project": {}, "attribute": {}, "file": {}, "view": {}, "metadata": {}}', FOUR),
    ("a.csv", (EXPORTED / "label_studio.csv").read_text(), HEADER),
    (
        "a.csv",
        '# Exported using VGG Image Annotator\n# ATTRIBUTE = {"1":{"aname":"x","y":""}}\n',
        HEADER,
    ),
    ("a.tsv", "Tier\tBegin Time - msec\tEnd Time - msec\tAnnotation\n", HEADER),
    ("a.tsv", "Observation id\tSubject\tBehavior\tTime\na\t\tInstall cap\t3,0\n", HEADER),
    ("a.srt", "1\n00:00:05,2 --> 00:00:06,2\nInstall cap\n", HEADER),
    ("a.vtt", "WEBVTT\n\n00:05.2 --> 00:06.2\nInstall cap\n", HEADER),
    ("a.eaf", "<other/>", FOUR),
    ("a.xml", "<annotations><version>1.0</version></annotations>", FOUR),
    ("a.xlsx", "PK\3\4", FOUR),
]


def task(value, **data):
    return json.dumps([{"data": data, "annotations": [{"result": [{"value": value}]}]}])


def ranges(start, end, label="Install cap"):
    return {"ranges": [{"start": start, "end": end}], "timelinelabels": [label]}


STEPS, STATES = "a/PSR_labels.csv", "a/PSR_labels_raw.csv"
# By file, its text and the mistake in each line of the errors.
ERRORS = [
    (
        STEPS,
        "1.jpg,0,x\n-3.jpg,3,y\n1.jpg,6,y\n2.jpg,nan,x\n3.jpg\n4.jpg,0,a,b\n",
        "PSR_labels.csv: line 2: image: '-3.jpg'",
        "line 3: step id: '6' is not in 0…5, the steps of procedure 'toy'",
        "line 4: step id: 'nan'",
        "line 5: step id: is missing",
        "line 6: field 4",
    ),
    (STEPS, "1.jpg,0,a\n1.jpg,0,a\n", "line 2: step id: step 0 is given twice at frame 1"),
    (
        STEPS,
        "1.jpg,1,a\n",
        "line 1: step id: 1 (Incorrectly installed base) belongs into PSR_labels_w",
    ),
    (STEPS, b"\n\n1.jpg,0,\xff\n", "line 3: not UTF-8"),
    *(
        (STEPS, cut, "the file is cut off here")
        for cut in ("1.jpg,0,x\n9.jpg,3", "1.jpg,0\n9.jpg,", "1.jpg,0,x\n9.jpg,3,", "9.jpg,3,Inst")
    ),
    (STATES, "", "is empty"),
    (
        STATES,
        "1.jpg,0,0,0\n",
        "has states of 3 components, procedure 'toy' has 2; give --procedure",
    ),
    (
        STATES,
        "1.jpg,0,0\n1.jpg,0,1\n3.jpg,0,0\n2.jpg,1,0\n",
        "line 2: image: frame 1 does not come after frame 1",
        "line 4: image: frame 2 does not come after",
    ),
    (STATES, "1.jpg,0,2\n2.jpg,0\n", "line 1: s_1: '2' is not in -1…1", "line 2: s_1: is missing"),
    ("PSR_labels.csv", "", "PSR_labels.csv: belongs into a folder of the recording's name"),
    ("a/notes.md", "x", "a: holds no labels of recording a: neither PSR_labels.csv nor"),
    ("notes.md", "x", "labels: no labels; --labels holds a folder"),
    *((f"{name}.csv", "time,step\n1,0\n", "; rename it") for name in ("\x1b[2J", " a", "x" * 201)),
    *(
        ("a.csv", f"time,step\n1.2,0\n{time},3\n", f"a.csv: line 3: time: {message}")
        for time, message in (
            ("9" * 400, "'9999"),
            ("1:65", "'1:65' is not a time"),
            ("100000001", "1e+08 s is after frame 1,000,000,000, the last there may be"),
        )
    ),
    (
        "a.csv",
        "time,step\n0,2\n",
        "line 2: step: 2 (Remove base) changes nothing: it is absent from",
    ),
    ("a.csv", "time,step\n0,0\n0,2\n", "line 3: step: 2 (Remove base) falls into the same frame"),
    (
        "a.csv",
        "time,step\n0,0\n1,0\n",
        "line 3: step: 0 (Install base) changes nothing: it is inst",
    ),
    (
        "a.csv",
        "time,step\n1,Instal cap\n",
        "line 2: step: 'Instal cap' is no step of procedure 'toy'; n",
    ),
    ("a.csv", "time,step\n1,9\n", "line 2: step: '9' is not in 0…5"),
    ("a.csv", "frame,step\n-1,0\n", "line 2: frame: '-1' is not in 0…1000000000"),
    ("a.csv", "frame,step\nnan,0\n", "line 2: frame: 'nan' is not finite"),
    (
        "a.csv",
        "when,what\n1,0\n",
        "line 1: header: 'when,what' is neither time,step nor start,end,st",
    ),
    (
        "a.tsv",
        "time\tstep\n1\tInstall cap\n2\tinstall CAP\n",
        "line 3: step: 3 (Install cap) changes",
    ),
    ("a.txt", "time,step\n1,Install base\n2", "line 3: the file is cut off here"),
    ("a.eaf", EAF.format(slots=SLOT.format(1, 5)), "TIME_SLOT_REF2: time slot '2' has no time"),
    ("a.eaf", EAF.format(slots=SLOT.format(1, "NaN")), "line 2: <TIME_SLOT>: TIME_VALUE: 'NaN'"),
    ("a.eaf", "<ANNOTATION_DOCUMENT><TIER>", "line 1: not XML"),
    ("a.eaf", "<a>" * 200 + "</a>" * 200, "elements are nested deeper than 100"),
    *(
        (
            "a.eaf",
            f"<?xml version='1.0'?>\n<!DOCTYPE x [{entities}]>\n<ANNOTATION_DOCUMENT>&a;"
            "</ANNOTATION_DOCUMENT>",
            "line 2: has a document type (<!DOCTYPE …>), which is not read, as it may hold entit",
        )
        for entities in (
            '<!ENTITY a SYSTEM "file:///etc/passwd">',
            "",
        )
    ),
    ("a.xml", CVAT.format("<track label='x'><box frame='1e9'/></track>"), "line 2: <box>: frame"),
    ("a.xml", CVAT.format("<track label='Install cap'/>"), "line 2: <track>: has no shapes"),
    ("a.xml", CVAT.format("<image name='a/b.jpg'><tag label='x'/></image>"), "line 2: image: 'a/b"),
    ("a.xml", CVAT.format("<image name='1.jpg'><tag/></image>"), "<tag>: label: is missing"),
    *(
        (
            "a.xml",
            CVAT.format(MANY + label),
            *["from a project of several videos"] * label.count("name"),
        )
        for label in (
            "<image name='frame_000060'><tag label='Install cap'/></image>",
            "<image name='frame_000060' task_id='2'><tag label='Install cap'/></image>"
            "<image name='frame_000060' task_id='3'><tag label='Install cap'/></image>",
        )
    ),
    ("a.json", task(ranges(0, 4), fps=10), "task 1: region 1: start: 0 is not a whole number in 1"),
    ("a.json", task(ranges(4, 2), fps=10), "task 1: region 1: end: 1 is before the start, 3"),
    ("a.json", task(ranges(1, 2), fps=-1), "task 1: region 1: fps: -1 is not in"),
    (
        "a.json",
        task(ranges(1, 2)),
        "region 1: time: counts frames at the rate set in the tool",
    ),
    (
        "a.json",
        '[{"data": {"video": "a.mp4"}, "annotations": []}]',
        "nobody has labelled it; submit",
    ),
    ("a.json", task({"start": 1, "end": 2, "labels": []}), "labels: a region has no label"),
    ("a.json", '{"data": {},', "line 1: not JSON"),
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


@pytest.mark.parametrize("error", ERRORS, ids=lambda row: f"{row[0][:9]}-{row[2][:30]}")
def test_an_error_is_one_line_with_its_place(toy_file, capsys, error):
    name, text, *messages = error
    path = toy_file.parent / "labels" / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    said = refused(capsys, labels, toy_file, lines=len(messages)).splitlines()
    for line, message in zip(said, messages, strict=True):
        assert message in line
        assert line.isprintable()
        assert len(line) < 1200
    assert not (toy_file.parent / "out").exists()


def test_errors_of_all_files_come_at_once(toy_file, capsys):
    root = toy_file.parent / "labels"
    for name in ("train/a", "val/a", "b", "c"):
        (root / name).mkdir(parents=True)
        (root / name / "1.csv").write_text("time,step\n1,0\n")
    (root / "c/2.csv").write_text("time,step\n1,0\n")
    (root / "d.json").symlink_to(root / "gone")
    assert "d.json: is a link to" in refused(capsys, labels, toy_file)
    (root / "d.json").unlink()
    said = refused(capsys, labels, toy_file, lines=2).splitlines()
    assert "recording c: labels in" in said[0]
    assert "recording a: labels in" in said[1]
    (root / "c/2.csv").unlink()
    (root / "val/a/1.csv").unlink()
    (root / "val/a").rmdir()
    (root / "train/a/1.csv").unlink()
    (root / "train/a/PSR_labels.csv").write_text("1.jpg,9,x\n")
    (root / "train/a/PSR_labels_raw.csv").write_text("1.jpg,9,0\n")
    (root / "b/1.csv").write_text("time,step\n1,x\n")
    said = refused(capsys, labels, toy_file, lines=3).splitlines()
    places = ("a/PSR_labels.csv: line 1", "a/PSR_labels_raw.csv: line 1", "b/1.csv: line 2")
    assert all(place in line for place, line in zip(places, said, strict=True))


@pytest.mark.parametrize("file", OTHERS, ids=lambda row: f"{row[0]}-{row[1][:12]!r}")
def test_another_export_is_refused_in_a_line_that_names_what_is_read(toy_file, capsys, file):
    name, text, says = file
    (toy_file.parent / "labels" / name).write_text(text)
    said = refused(capsys, labels, toy_file)
    assert f"labels/{name}: {says}" in said
    for what in ("time,step", "PSR_labels.csv", "Label Studio (JSON)", "CVAT (XML", "ELAN (.eaf)"):
        assert what in said


def test_words_stand_for_steps_or_for_none(tmp_path):
    (tmp_path / "a.csv").write_text("time,step\n2,Boden\n3,rede\n3,DECKEL\n")
    (tmp_path / "w.csv").write_text(
        "word,step,how\nboden,install BASE,\nRede,,\ndeckel,3,nearest\n"
    )
    terms = words.terms(tmp_path / "w.csv", None, PROCEDURE)
    read = label_files.read(tmp_path / "a.csv", PROCEDURE, UP, terms=terms)
    assert read.steps == [(20, 0), (30, 3)]
    for text, message in (
        ("word,step\nboden,Install bas\n", "line 2: step: 'Install bas' is no step"),
        ("word,step\na,0\nA,3\n", "line 3: word: 'A' is given twice"),
        ("a,b\n", "line 1: header: 'a,b' is not word,step"),
    ):
        (tmp_path / "w.csv").write_text(text)
        with pytest.raises(ValueError, match=message):
            words.terms(tmp_path / "w.csv", None, PROCEDURE)


def test_the_draft_goes_by_the_component_in_a_word_and_is_empty_without_one(toy_file, capsys):
    rows = ["1,instal_base", "2,INSTALL CAP", "3,=cap off", "4,2", "5,coffee break"]
    rows += ["6,Caps put on wrong", "7,cap on base"]
    labelled = toy_file.parent / "labels"
    (labelled / "a.csv").write_text("\n".join(["time,step", *rows]) + "\n")
    out = toy_file.parent / "words.csv"
    flags = [f"--procedure={toy_file}", f"--labels={labelled}", f"--out={out}"]
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
    read = words.read(out, PROCEDURE)
    assert [read[word] for word in ("2", "=cap off", "install cap", "coffee break")] == [
        2,
        5,
        3,
        None,
    ]
    assert "exists; give another name" in refused(capsys, command.main, ["map", *flags])
