"""What is wrong with labels of any kind is a line each with its place, by `convert labels`."""

import csv
import json
import pathlib

import pytest

from data_prep import labels as command
from stormpsr_jax.psr import convert
from stormpsr_jax.recordings import words
from stormpsr_jax.recordings.recording import LabelPlace
from tests.support import refusals, toy
from tests.support.commands import refused

PROCEDURE = toy.procedure("base, cap", "10 11", fps=10, variant="up")
UP = PROCEDURE.variants["up"]
EXPORTED = pathlib.Path(__file__).parent / "exported"
# Files whose text or name no line of a snapshot holds.
NAMES = [("\x1b[2J.csv", "; rename it"), ("x" * 201 + ".csv", "; rename it")]
ODD = [
    *((name, "time,step\n1,0\n", message) for name, message in NAMES),
    ("a/PSR_labels.csv", b"\n\n1.jpg,0,\xff\n", "line 3: not UTF-8"),
    ("a.csv", f"time,step\n1.2,0\n{'9' * 400},3\n", "a.csv: line 3: time: '9999"),
    ("a.eaf", "<a>" * 200 + "</a>" * 200, "elements are nested deeper than 100"),
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
    read = LabelPlace(tmp_path / "a.csv").read(PROCEDURE, UP, terms=terms)
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
