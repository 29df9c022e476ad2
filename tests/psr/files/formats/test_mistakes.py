"""What is wrong with a label file is one line with its place; hostile files end the same way."""

import csv
import json
import pathlib
import sys
import time
import zipfile

import numpy as np
import openpyxl
import pytest

from data_prep import labels as command
from stormpsr_jax.psr.files import label_files, timed_labels, words
from stormpsr_jax.psr.files.formats import formats, xml_tree
from stormpsr_jax.psr.procedure import Procedure
from tests.support import label_formats

PROCEDURE = Procedure.from_json(
    {
        "name": "toy",
        "fps": 10,
        "components": ["base", "cap"],
        "states": ["10", "11"],
        "variants": {"up": {"initial_state": "00", "expected": [0, 3], "recordings": ["*"]}},
    }
)
UP = PROCEDURE.variants["up"]
EAF = (
    "<ANNOTATION_DOCUMENT><HEADER/>\n<TIME_ORDER>{slots}</TIME_ORDER>\n<TIER TIER_ID='steps'>"
    "<ANNOTATION><ALIGNABLE_ANNOTATION ANNOTATION_ID='a' TIME_SLOT_REF1='1' TIME_SLOT_REF2='2'>"
    "<ANNOTATION_VALUE>Install cap</ANNOTATION_VALUE></ALIGNABLE_ANNOTATION></ANNOTATION></TIER>"
    "</ANNOTATION_DOCUMENT>"
)
SLOT = "<TIME_SLOT TIME_SLOT_ID='{}' TIME_VALUE='{}'/>"
CVAT = "<annotations><version>1.1</version>\n{}</annotations>"
VIA = {"project": {}, "attribute": {}, "file": {}, "view": {"1": {"fid_list": []}}}
BORIS = ",".join(label_formats.BORIS)


def task(value, **data):
    return json.dumps([{"data": data, "annotations": [{"result": [{"value": value}]}]}])


def ranges(start, end, label="Install cap"):
    return {"ranges": [{"start": start, "end": end}], "timelinelabels": [label]}


def segment(**metadata):
    return json.dumps({**VIA, "metadata": {"1_x": {"vid": "1", **metadata}}})


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "a.srt",
            "1\n00:00:05,2 -> 00:06\nInstall cap\n",
            "neither time,step nor .* or give a file of .*VIA 3",
        ),
        ("a.srt", "1\n0:05 --> x\nInstall cap\n", "line 2: time: '0:05 --> x' is not 00:00:05,200"),
        ("a.srt", "1\n00:00:05,2 --> 00:00:04,2\nx\n", "line 2: end: 4.2 is before the start, 5.2"),
        ("a.srt", "1\n00:00:05,2 --> 00:00:06,2\n", "line 2: step: the cue is empty"),
        ("a.vtt", "WEBVTT\n\nhello\nthere\n", "line 3: has no times such as"),
        (
            "a.vtt",
            "WEBVTT\n\n00:01.0 --> 00:02.0\nInstal cap\n",
            "line 4: step: 'Instal cap' is no",
        ),
        (
            "a.eaf",
            EAF.format(slots=SLOT.format(1, 5)),
            "line 3: .* TIME_SLOT_REF2: time slot '2' has",
        ),
        (
            "a.eaf",
            EAF.format(slots=SLOT.format(1, "NaN")),
            "line 2: <TIME_SLOT>: TIME_VALUE: 'NaN'",
        ),
        (
            "a.eaf",
            EAF.format(slots=SLOT.format(1, "9" * 25)),
            "TIME_VALUE: 9999999.* is not a whole",
        ),
        ("a.eaf", "<ANNOTATION_DOCUMENT><TIER>", "line 1: not XML"),
        ("a.eaf", "<a>" * 200 + "</a>" * 200, "elements are nested deeper than 100"),
        ("a.eaf", "<other/>", "no label format .* closest is ELAN .* lacks a root <ANNOTATION_DOC"),
        (
            "a.xml",
            CVAT.format("<track label='x'><box frame='1e9'/></track>"),
            "line 2: <box>: frame",
        ),
        ("a.xml", CVAT.format("<track label='Install cap'/>"), "line 2: <track>: has no shapes"),
        (
            "a.xml",
            CVAT.format("<image name='a/b.jpg'><tag label='x'/></image>"),
            "line 2: image: 'a/b",
        ),
        ("a.xml", CVAT.format("<image name='1.jpg'><tag/></image>"), "<tag>: label: is missing"),
        ("a.xml", CVAT.replace("1.1", "1.0"), "closest is CVAT .* lacks <version>1.1"),
        (
            "a.json",
            task(ranges(0, 4), fps=10),
            "task 1: region 1: start: 0 is not a whole number in 1",
        ),
        ("a.json", task(ranges(4, 2), fps=10), "task 1: region 1: end: 1 is before the start, 3"),
        ("a.json", task(ranges(1, 10**400), fps=10), "region 1: end: .* is not a whole number"),
        ("a.json", task(ranges(1, 2), fps=-1), "task 1: region 1: fps: -1 is not in"),
        (
            "a.json",
            task(ranges(1, 2)),
            "region 1: time: counts frames at the rate .* --labels_fps=F",
        ),
        ("a.json", task({"start": 1, "end": 1e300, "labels": ["x"]}), "end: 1e.300 is not in 0"),
        ("a.json", task({"start": 1, "end": 2, "labels": []}), "labels: a region has no label"),
        ("a.json", task({"ranges": 5, "timelinelabels": ["x"]}), "ranges: 5 is not a list"),
        (
            "a.json",
            '[{"data": {}, "annotations": [{"result": [], "x": NaN}]}]',
            "NaN is not a number",
        ),
        ("a.json", "[" * 100_000, "nested too deeply"),
        ("a.json", '{"data": {},', "line 1: not JSON"),
        ("a.json", segment(z=[1, 2], av={"1": "x"}), "metadata '1_x': attribute: 1: is missing"),
        ("a.json", segment(z=["x"], av={}), "metadata '1_x': z: 'x' is not in 0"),
        ("a.json", segment(z=[3, 2], av={}), "metadata '1_x': end: 2 is before the start, 3"),
        ("a.csv", f"{BORIS}\na,a,1,,Install cap,POINT,NaN\n", "line 2: time: 'NaN' is not a time"),
        (
            "a.csv",
            f"{BORIS}\na,a,1,,Install cap,STOP,1\n",
            "line 2: behavior type: .* has not begun",
        ),
        (
            "a.csv",
            f"{BORIS}\na,a,1,,Install cap,START,1\n",
            "line 2: behavior type: .* has no STOP",
        ),
        ("a.csv", f"{BORIS}\na,a,1,,Install cap,JUMP,1\n", "'JUMP' is not POINT, START or STOP"),
        (
            "a.csv",
            "Time offset (s),Behavior,Time\n9,Install cap,1\n",
            "line 2: time: -8.0 is not in 0",
        ),
        ("a.csv", "frame,step\n-1,0\n", "line 2: frame: '-1' is not in 0…1000000000"),
        ("a.csv", "frame,step\n1e99,0\n", "line 2: frame: '1e99' is not in 0…1000000000"),
        ("a.csv", "frame,step\nnan,0\n", "line 2: frame: 'nan' is not finite"),
        ("a.csv", "Behavior,When\nx,1\n", "line 1: header: .* closest is BORIS .* a column 'time'"),
        (
            "a.tsv",
            "time\tstep\n1\tInstall cap\n2\tinstall CAP\n",
            "line 3: step: 3 .* changes nothing",
        ),
    ],
)
def test_a_mistake_is_one_line_with_its_place(tmp_path, name, text, message):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message) as error:
        label_files.read(path, PROCEDURE, UP)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 1200


@pytest.mark.parametrize(
    "entities",
    [
        '<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;">',
        '<!ENTITY a SYSTEM "file:///etc/passwd">',
        '<!ENTITY % a SYSTEM "http://127.0.0.1:9/x"> %a;',
        "",
    ],
)
def test_a_document_type_is_refused_before_any_entity_is_read(tmp_path, entities):
    path = tmp_path / "a.eaf"
    path.write_text(
        f"<?xml version='1.0'?>\n<!DOCTYPE x [{entities}]>\n<ANNOTATION_DOCUMENT>&a;"
        "</ANNOTATION_DOCUMENT>"
    )
    with pytest.raises(ValueError, match=r"line 2: has a document type .*; remove it$"):
        label_files.read(path, PROCEDURE, UP)


def book(path, *rows):
    made = openpyxl.Workbook()
    for row in rows:
        made.active.append(row)
    made.save(path)


def test_cells_of_a_spreadsheet_are_values_and_no_formulas(tmp_path):
    path = tmp_path / "a.xlsx"
    book(path, ["time", "step"], ["=1+1", "Install cap"])
    with pytest.raises(ValueError, match="line 2: cell A2 holds a formula; paste its value"):
        label_files.read(path, PROCEDURE, UP)
    book(path, ["when", "step"], [1, "Install cap"])
    with pytest.raises(ValueError, match="line 1: header: 'when,step' is neither time,step"):
        label_files.read(path, PROCEDURE, UP)
    book(
        path,
        ["time", "step"],
        [],
        [1, "Install base"],
        ["0:02.5", "install CAP"],
        [float("nan"), 3],
    )
    with pytest.raises(ValueError, match="line 5: time: "):
        label_files.read(path, PROCEDURE, UP)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(ValueError, match=r"a\.xlsx: "):
        label_files.read(path, PROCEDURE, UP)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("xl/workbook.xml", b" " * 2**28)
    with pytest.raises(ValueError, match="has 268435456 bytes unpacked, more than 134217728"):
        label_files.read(path, PROCEDURE, UP)


def test_a_spreadsheet_without_its_library_is_one_line(tmp_path, monkeypatch):
    book(tmp_path / "a.xlsx", ["time", "step"])
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(ValueError, match=r"needs openpyxl: .*\[labels\].* \(or save it as CSV\)"):
        label_files.read(tmp_path / "a.xlsx", PROCEDURE, UP)


def test_a_file_of_several_recordings_gives_the_one_it_is_named_after(tmp_path):
    tasks = [
        {"data": {"video": f"/x/0a1b2c3d-{name}.mp4", "fps": 10}, "annotations": [
            {"result": [{"value": ranges(frame, frame)}]}]}
        for name, frame in (("a", 5), ("b", 9))
    ]  # fmt: skip
    for name, steps in (("a", [(4, 3)]), ("b", [(8, 3)])):
        (tmp_path / f"{name}.json").write_text(json.dumps(tasks))
        assert label_files.read(tmp_path / f"{name}.json", PROCEDURE, UP).steps == steps
    (tmp_path / "c.json").write_text(json.dumps(tasks))
    with pytest.raises(ValueError, match=r"of several recordings \('a', 'b'\), none of them 'c'"):
        label_files.read(tmp_path / "c.json", PROCEDURE, UP)


def test_words_stand_for_steps_or_for_none(tmp_path):
    (tmp_path / "a.srt").write_text(
        "1\n00:00:01,000 --> 00:00:02,000\nBoden\n\n"
        "2\n00:00:02,000 --> 00:00:03,000\nrede\nDECKEL\n"
    )
    for name, text in (
        ("w.csv", "word,step,how\nboden,Install base,\nRede,,\ndeckel,3,nearest\n"),
        ("w.json", '{"boden": "install BASE", "Rede": "", "deckel": 3}'),
    ):
        (tmp_path / name).write_text(text)
        terms = words.terms(tmp_path / name, None, PROCEDURE)
        read = label_files.read(tmp_path / "a.srt", PROCEDURE, UP, terms=terms)
        assert read.steps == [(20, 0), (30, 3)]
    for text, message in (
        ("word,step\nboden,Install bas\n", "line 2: step: 'Install bas' is no step"),
        ("word,step\na,0\nA,3\n", "line 3: word: 'A' is given twice"),
        ("word,step\n,0\n", "line 2: word: is empty"),
        ("a,b\n", "line 1: header: 'a,b' is not word,step"),
    ):
        (tmp_path / "w.csv").write_text(text)
        with pytest.raises(ValueError, match=message):
            words.terms(tmp_path / "w.csv", None, PROCEDURE)
    with pytest.raises(ValueError, match="--labels_fps: 0 is not in"):
        words.terms(None, 0, PROCEDURE)


def test_prose_and_other_tools_files_beside_labels_are_no_labels(tmp_path):
    (tmp_path / "README.txt").write_text("How we labelled\n\nwith, commas and --> no cues")
    (tmp_path / "notes.txt").write_text("filmed by A, B\nin the lab, on Monday\nno end of line")
    (tmp_path / "boxes.json").write_text('{"images": [], "annotations": [], "categories": []}')
    (tmp_path / "000001.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    label_formats.srt(tmp_path / "a.txt", [(1, 10, "Install cap")], 10)
    assert list(label_files.find(tmp_path)) == ["a"]
    (tmp_path / "b.txt").write_text("time,step\n1,Install base\n2")
    assert list(label_files.find(tmp_path)) == ["a", "b"]
    with pytest.raises(ValueError, match="line 3: the file is cut off here"):
        label_files.read(tmp_path / "b.txt", PROCEDURE, UP)
    (tmp_path / "b.txt").unlink()
    (tmp_path / "c.json").symlink_to(tmp_path / "gone")
    with pytest.raises(ValueError, match=r"c\.json: cannot be read \(No such file"):
        label_files.find(tmp_path)
    (tmp_path / "c.json").unlink()
    (tmp_path / "b.json").write_text('{"images": [}')
    with pytest.raises(ValueError, match=r"b\.json: line 1: not JSON"):
        label_files.find(tmp_path)


def test_tiers_called_steps_are_read_and_others_only_without_them(tmp_path):
    path = tmp_path / "a.txt"
    header = "Tier\tBegin Time - msec\tEnd Time - msec\tAnnotation\n"
    rows = "steps A\t0\t500\tInstall base\ntalk\t0\t700\thm\nsteps B\t0\t900\tInstall cap\n"
    path.write_text(header + rows)
    assert label_files.read(path, PROCEDURE, UP).steps == [(5, 0), (9, 3)]
    path.write_text(header + "Install base\t0\t500\t\nInstall cap\t0\t900\t\n")  # a tier a step
    assert label_files.read(path, PROCEDURE, UP).steps == [(5, 0), (9, 3)]
    label_formats.eaf(path, [(2.0, 0, "Install cap")], 10, origin=1500)
    assert [(e.text, e.at) for e in formats.read(path)[1]] == [("Install cap", 2.0)]


@pytest.mark.parametrize(
    ("unit", "seconds"), [("milliseconds", 0.5), ("PAL-frames", 20), ("NTSC-frames", 1001 / 60)]
)
def test_the_origin_of_elan_is_milliseconds_whatever_the_unit_of_its_times(tmp_path, unit, seconds):
    path = tmp_path / "a.eaf"
    label_formats.eaf(path, [(2.0, 0, "Install cap")], 10, origin=1500)  # so a slot is at 500
    path.write_text(path.read_text().replace("milliseconds", unit))
    assert formats.read(path)[1][0].at == pytest.approx(seconds + 1.5)


def test_a_picture_after_the_last_one_of_the_video_is_named(tmp_path):
    label_formats.cvat_tracks(tmp_path / "a.xml", [(0, 7, "Install cap")], 10)
    timed = timed_labels.read_times(tmp_path / "a.xml", PROCEDURE)
    shown = timed_labels.Shown(np.arange(5), np.arange(5))
    with pytest.raises(ValueError, match="line 2: <track>: time: picture 7 is after the last of 5"):
        timed_labels.to_frames("a.xml", timed, (0, 0), PROCEDURE, shown=lambda: shown)


def test_the_draft_has_the_nearest_step_for_every_word(tmp_path, capsys):
    (tmp_path / "labels").mkdir()
    (tmp_path / "procedure.json").write_text(json.dumps(PROCEDURE.to_json()))
    rows = ["1,instal_base", "2,INSTALL CAP", "3,=cap off", "4,2"]
    (tmp_path / "labels" / "a.csv").write_text("\n".join(["time,step", *rows]) + "\n")
    out = tmp_path / "words.csv"
    flags = [f"--procedure={tmp_path / 'procedure.json'}", f"--labels={tmp_path / 'labels'}"]
    assert command.main(["map", *flags, f"--out={out}"]) == 0
    with out.open(newline="") as file:
        assert list(csv.reader(file)) == [
            ["word", "step", "how"],
            ["2", "Remove base", "is a step"],
            ["'=cap off", "Remove cap", "nearest"],
            ["instal_base", "Install base", "nearest"],
            ["INSTALL CAP", "Install cap", "is a step"],
        ]
    assert words.read(out, PROCEDURE) == {"2": 2, "=cap off": 5, "install cap": 3, "instal_base": 0}
    with pytest.raises(SystemExit):
        command.main(["map", *flags, f"--out={out}"])
    assert "exists; give another name" in capsys.readouterr().err


def test_the_docs_have_the_clock_of_every_format():
    page = (pathlib.Path(__file__).parents[4] / "docs/formats.md").read_text(encoding="utf-8")
    for form in formats.FORMATS:
        key = f"`{form.key}`" if form.write else ""
        assert f"| {form.name} | {key} | {form.clock} |" in page


@pytest.mark.parametrize("part", ["xl/worksheets/sheet1.xml", "xl/workbook.xml"])
def test_entities_in_a_spreadsheet_are_refused(tmp_path, part):
    book(tmp_path / "made.xlsx", ["time", "step"], [1, "Install cap"])
    path = tmp_path / "a.xlsx"
    with zipfile.ZipFile(tmp_path / "made.xlsx") as made, zipfile.ZipFile(path, "w") as file:
        for name in made.namelist():
            content = made.read(name).decode()
            if name == part:
                head, _, rest = content.partition("?>") if "?>" in content else ("", "", content)
                bomb = '<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;">]>'
                content = f"{head}?>{bomb}{rest}" if head else bomb + rest
            file.writestr(name, content)
    with pytest.raises(ValueError, match=f"{part}: has a document type"):
        label_files.read(path, PROCEDURE, UP)


def test_entities_in_a_sheet_of_any_name_are_refused(tmp_path):
    book(tmp_path / "made.xlsx", ["time", "step"], [1, "Install cap"])
    sheet, path = "worksheets/sheet1.xml", tmp_path / "a.xlsx"
    with zipfile.ZipFile(tmp_path / "made.xlsx") as made, zipfile.ZipFile(path, "w") as file:
        for name in made.namelist():
            content = made.read(name).decode().replace(sheet, "worksheets/sheet1.bin")
            content = "<!DOCTYPE x>" * name.endswith(sheet) + content
            file.writestr(name.replace(sheet, "worksheets/sheet1.bin"), content)
    with pytest.raises(ValueError, match=r"sheet1\.bin: has a document type"):
        label_files.read(path, PROCEDURE, UP)


def test_a_long_text_in_xml_takes_time_by_its_length():
    """Pieces of it that are added to one another would take minutes."""
    text = ("x" * 79 + "\n") * (2**24 // 80)
    begun = time.process_time()
    (node,) = xml_tree.parse(f"<a>1{text}<b>{text}</b>2</a>", "f").children
    assert node.text == text
    assert time.process_time() - begun < 2
