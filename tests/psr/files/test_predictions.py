"""Prediction files: round trips, the released code's files, and errors that name their place."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stormpsr_jax.psr import convert
from stormpsr_jax.psr.files import predictions
from tests.support import toy
from tests.support.commands import refused

PROCEDURE = toy.procedure("a, b", "10 11", variant="up", expected=[0])
ASD = "name,frame,class,conf,x,y,w,h\n"
TEMPORAL = ",clip,framenr,GT,Pred,Conf\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("predictions")


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 3), st.integers(0, 10**6)), max_size=9))
def test_detections_round_trip_keeps_order_in_a_frame(folder, rows):
    rows = np.array(rows, int).reshape(-1, 3)
    order = np.argsort(rows[:, 0], kind="stable")
    boxes = np.arange(4 * len(rows)).reshape(-1, 4) / 64 - 1
    shuffled = predictions.Detections(rows[:, 0], rows[:, 1], rows[:, 2] / 10**6, boxes)
    path = folder / "asd.csv"
    predictions.write_detections(path, "rec", shuffled)
    read = predictions.read_detections(path, PROCEDURE)
    for field in ("frames", "classes", "confidences", "boxes"):
        assert (getattr(read, field) == getattr(shuffled, field)[order]).all()


@settings(max_examples=25, deadline=None)
@given(st.sets(st.integers(0, 10**6), max_size=9), st.integers(0, 99))
def test_temporal_round_trip(folder, frames, seed):
    rng = np.random.default_rng(seed)
    shape = (len(frames), 2)
    written = predictions.TemporalPredictions(
        np.array(sorted(frames), int),
        rng.integers(0, 2, shape),
        rng.integers(0, 2, shape),
        rng.integers(0, 10**4, shape) / 10**4,
    )
    path = folder / "temporal.csv"
    predictions.write_temporal(path, "rec", written)
    read = predictions.read_temporal(path, PROCEDURE)
    for field in ("frames", "labels", "predicted", "confidences"):
        assert (getattr(read, field) == getattr(written, field)).all()


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(0, 1, width=32), max_size=20), st.booleans())
def test_as_written_matches_what_is_read_from_the_files(folder, values, exact):
    values += [0.00005, 0.00015, 0.5, 0.1234565, 2**-14, 3 * 2**-20] if exact else []
    n = len(values)
    values = np.array(values, np.float32).astype(float)
    frames, none = np.arange(n), np.zeros((n, 2), int)
    found = predictions.Detections(frames, none[:, 0], values, np.zeros((n, 4)))
    predictions.write_detections(folder / "asd.csv", "rec", found)
    read = predictions.read_detections(folder / "asd.csv", PROCEDURE)
    rounded = predictions.as_written(values.tolist(), predictions.DETECTION_DECIMALS)
    assert read.confidences.tolist() == rounded
    both = np.stack([values, values[::-1]], axis=1)
    clips = predictions.TemporalPredictions(frames, none, none, both)
    predictions.write_temporal(folder / "temporal.csv", "rec", clips)
    read = predictions.read_temporal(folder / "temporal.csv", PROCEDURE)
    rounded = predictions.as_written(values.tolist(), predictions.TEMPORAL_DECIMALS)
    assert read.confidences[:, 0].tolist() == rounded


@pytest.mark.parametrize("name", ["=cmd|' /C calc'!A0", "-2", "+1", "@x"])
def test_the_name_of_a_recording_is_no_formula_in_its_prediction_files(folder, name):
    found = predictions.Detections(*(np.ones(shape) for shape in (1, 1, 1, (1, 4))))
    said = predictions.TemporalPredictions(np.ones(1, int), *(np.ones((1, 4)) for _ in range(3)))
    for write, content in (
        (predictions.write_detections, found),
        (predictions.write_temporal, said),
    ):
        write(folder / "x.csv", name, content)
        _, row = (folder / "x.csv").read_text().splitlines()
        assert f"'{name}" in row.replace('""', '"')


def test_visibility_round_trip(folder):
    path = folder / "visibility.csv"
    predictions.write_visibility(path, [3, 4, 9], np.array([0.5, np.nan, 1.0]))
    frames, visible = predictions.read_visibility(path)
    assert frames.tolist() == [3, 4, 9]
    np.testing.assert_equal(visible, [0.5, np.nan, 1.0])


def rows(*lines):
    return ASD + "".join(f"{line}\n" for line in lines)


def clips(*lines):
    return TEMPORAL + "".join(f"{line}\n" for line in lines)


ROW = "r,1,1,0.5,.1,.1,.1,.1"
# The text of a file, and what each line of the errors has.
ERRORS = [
    ("", "line 1: header: the file is empty"),
    (f"{ROW}\n", "line 1: header: is missing"),
    (ASD + 'r,1,1,0.5,.1,.1,.1,"x', "line 2: not CSV (unexpected end of data)"),
    (
        rows(
            *(
                ROW,
                ROW[:-3],
                f"{ROW},9",
                ROW.replace("1,1,", "-1,1,"),
                ROW.replace("1,1,", "1.5,1,"),
            ),
            *(ROW.replace("1,1,", "1e300,1,"), ROW.replace("1,1,", f"{'9' * 5000},1,")),
            *(ROW.replace("1,1,", "1,4,"), ROW.replace("0.5", "1.5"), ROW.replace("0.5", "nan")),
            *("r,1,1,0.5,.1,.1,.1,inf", "r", "r,0,5", "r,-1,0", "r,x,0", "r,0,0"),
        ),
        "line 3: h: is missing",
        "line 4: field 9",
        "line 5: frame: '-1' is not in 0…",
        "line 6: frame: '1.5' is not whole",
        "line 7: frame: '1e300' is not in",
        "line 8: frame: ",
        "line 9: class: '4' is not in 0…3, the classes of procedure 'toy' (check --procedure)",
        "line 10: conf: '1.5' is not in 0…1",
        "line 11: conf: 'nan' is not finite",
        "line 12: h: 'inf' is not finite",
        "line 13: frame: is missing",
        "line 14: conf: is missing (the row has 3 fields)",
        "line 15: frame: '-1'",
        "line 16: frame: 'x' is not a number",
    ),
    (
        clips(
            *('0,r,1,"[0,0]","[0,0]"', "0,r,1,[0,0],[0,0],[0.1,0.2]"),
            *('0,r,1,"[0,0]","[0,0,0]","[0.1,0.2]"', '0,r,1,"0,0","[0,0]","[0.1,0.2]"'),
            *('0,r,x,"[0,0]","[0,0]","[0.1,0.2]"',),
        ),
        "line 2: Conf: is missing",
        "line 3: field 7",
        "line 4: Pred: a bracketed list of 2 numbers is needed, one per component of procedure 'to",
        "line 5: GT: a bracketed list",
        "line 6: framenr: 'x'",
    ),
    (
        clips(
            *('0,r,1,"[0,2]","[0,0]","[0,0]"', '0,r,2,"[0,0]","[0,0.5]","[0,0]"'),
            *('0,r,3,"[0,0]","[0,0]","[0.1,nan]"', '0,r,4,"[0,0]","[0,0]","[1.2,0]"'),
        ),
        "line 2: GT: 2 at place 2 is not 0 or 1",
        "line 3: Pred: 0.5 at place 2",
        "line 4: Conf: nan at place 2 is not a probability in 0…1",
        "line 5: Conf: 1.2 at place 1",
    ),
    (rows(ROW) + "r,2,1,0.5,.1", "line 3: the file is cut off here"),
    (rows(ROW) + "r,2,1,0.5,.1,.1,.1,\0\n", "line 3: holds a NUL"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda row: row[1][:30])
def test_what_is_wrong_with_a_file_is_a_line_each(tmp_path, capsys, error):
    text, *messages = error
    (tmp_path / "asd").mkdir()
    (tmp_path / "asd/r_results_pred.csv").write_text(text)
    (tmp_path / "toy.json").write_text(json.dumps(PROCEDURE.to_json()))
    words = [f"--predictions={tmp_path / 'asd'}", f"--procedure={tmp_path / 'toy.json'}"]
    words = ["frames", *words, "--fps=5", f"--out={tmp_path / 'out'}"]
    said = refused(capsys, convert.main, words, lines=len(messages)).splitlines()
    for line, message in zip(said, messages, strict=True):
        assert f"r_results_pred.csv: {message}" in line
        assert len(line) < 300
    assert not (tmp_path / "out").exists()
