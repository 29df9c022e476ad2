"""Prediction files: round trips, the released code's files, and errors that name their place."""

import pathlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stormpsr_jax.psr.files import predictions
from stormpsr_jax.psr.procedure import load_procedure
from tests.support import toy

PROCEDURE = toy.procedure("a, b", "10 11", variant="up", expected=[0])
GOLDEN = pathlib.Path(__file__).parents[3] / "../shared/golden"
ASD = "name,frame,class,conf,x,y,w,h\n"
TEMPORAL = ",clip,framenr,GT,Pred,Conf\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("predictions")


@settings(max_examples=50, deadline=None)
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


@settings(max_examples=50, deadline=None)
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


@settings(max_examples=50, deadline=None)
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


@pytest.mark.parametrize("kind", ["asd", "temporal"])
def test_readers_matches_loop_on_golden_file(kind):
    path = GOLDEN / "meccano" / "noisy" / kind / "0001_results_pred.csv"
    if not path.exists():
        pytest.skip("the golden files are not here")
    procedure = load_procedure("meccano")
    lines = path.read_text().splitlines()[1:]
    if kind == "asd":
        read = predictions.read_detections(path, procedure)
        expected = [list(map(float, line.split(",")[1:])) for line in lines]
        got = np.column_stack([read.frames, read.classes, read.confidences, read.boxes])
    else:
        read = predictions.read_temporal(path, procedure)
        expected = []
        for line in lines:
            head, gt, pred, conf = line.replace('"', "").replace("]", "").split("[")
            numbers = [list(map(float, part.strip(", ").split(","))) for part in (gt, pred, conf)]
            expected.append([float(head.split(",")[2]), *numbers[0], *numbers[1], *numbers[2]])
        got = np.column_stack([read.frames, read.labels, read.predicted, read.confidences])
    np.testing.assert_array_equal(got, expected)


def test_temporal_first_of_repeated_frames_counts_and_order_is_mended(folder):
    path = folder / "repeated.csv"
    rows = ['0,r,8,"[0 0]","[0 1]","[0.1  0.7]"', '1,r,4,"[0,0]","[0,0]","[0.1,0.2]"']
    rows.append('2,r,8,"[0, 0]","[1.0, 1]","[0.9, 0.9]"')
    path.write_bytes(b"\xef\xbb\xbf" + (TEMPORAL + "\n".join(rows)).replace("\n", "\r\n").encode())
    read = predictions.read_temporal(path, PROCEDURE)
    assert read.frames.tolist() == [4, 8]
    assert read.predicted.tolist() == [[0, 0], [0, 1]]
    assert read.confidences.tolist() == [[0.1, 0.2], [0.1, 0.7]]


def test_readers_header_alone_is_no_prediction(folder):
    path = folder / "empty.csv"
    path.write_text(ASD)
    assert predictions.read_detections(path, PROCEDURE).boxes.shape == (0, 4)
    path.write_text(TEMPORAL)
    assert predictions.read_temporal(path, PROCEDURE).confidences.shape == (0, 2)


ROW = "r,1,1,0.5,.1,.1,.1,.1\n"


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("", "line 1: header: the file is empty"),
        (ROW, "line 1: header: is missing"),
        (ASD + ROW + "r,1,1,0.5,.1,.1,.1\n", "line 3: h: is missing"),
        (ASD + "r,1,1,0.5,.1,.1,.1,.1,9\n", "line 2: field 9"),
        (ASD + "r,-1,1,0.5,.1,.1,.1,.1\n", "line 2: frame: '-1' is not in 0…"),
        (ASD + "r,1.5,1,0.5,.1,.1,.1,.1\n", "line 2: frame: '1.5' is not whole"),
        (ASD + "r,1e300,1,0.5,.1,.1,.1,.1\n", "line 2: frame: '1e300' is not in"),
        (ASD + "r," + "9" * 5000 + ",1,0.5,.1,.1,.1,.1\n", "line 2: frame: "),
        (ASD + "r,1,4,0.5,.1,.1,.1,.1\n", "line 2: class: '4' is not in 0…3"),
        (ASD + ROW + "r,1,1,1.5,.1,.1,.1,.1\n", "line 3: conf: '1.5' is not in 0…1"),
        (ASD + "r,1,1,nan,.1,.1,.1,.1\n", "line 2: conf: 'nan' is not finite"),
        (ASD + "r,1,1,0.5,.1,.1,.1,inf\n", "line 2: h: 'inf' is not finite"),
        (ASD + 'r,1,1,0.5,.1,.1,.1,"x', "line 2: not CSV (unexpected end of data)"),
    ],
)
def test_read_detections_errors_name_line_and_field(folder, text, place):
    path = folder / "bad_asd.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"bad_asd\.csv") as error:
        predictions.read_detections(path, PROCEDURE)
    assert place in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 300


def test_read_detections_whole_numbers_as_floats(folder):
    path = folder / "floats.csv"
    path.write_text(ASD + "r,7.0,2.0,0.5,.1,.1,.1,.1\n")
    read = predictions.read_detections(path, PROCEDURE)
    assert (read.frames.tolist(), read.classes.tolist()) == ([7], [2])


@pytest.mark.parametrize(
    ("row", "place"),
    [
        ('0,r,1,"[0,0]","[0,0]"', "line 2: Conf: is missing"),
        ("0,r,1,[0,0],[0,0],[0.1,0.2]", "line 2: field 7"),
        ('0,r,1,"[0,0]","[0,0,0]","[0.1,0.2]"', "line 2: Pred: a bracketed list of 2 numbers"),
        ('0,r,1,"0,0","[0,0]","[0.1,0.2]"', "line 2: GT: a bracketed list"),
        ('0,r,1,"[0,0]","[0,0.5]","[0.1,0.2]"', "line 2: Pred: 0.5 at place 2"),
        ('0,r,1,"[0,0]","[0,0]","[0.1,nan]"', "line 2: Conf: nan at place 2"),
        ('0,r,1,"[0,0]","[0,0]","[0.1,1.2]"', "line 2: Conf: 1.2 at place 2"),
        ('0,r,x,"[0,0]","[0,0]","[0.1,0.2]"', "line 2: framenr: 'x'"),
    ],
)
def test_read_temporal_errors_name_line_and_field(folder, row, place):
    path = folder / "bad_temporal.csv"
    path.write_text(TEMPORAL + row + "\n")
    with pytest.raises(ValueError, match=r"bad_temporal\.csv") as error:
        predictions.read_temporal(path, PROCEDURE)
    assert place in str(error.value)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("frame,visible\n3,0.5\n3,0.5\n", "line 3: frame: frame 3 does not come after frame 3"),
        ("frame,visible\n3,1.5\n", "line 2: visible: '1.5' is not in 0…1"),
        ("frame,visible\n3\n", "line 2: visible: is missing"),
        ("3,1\n4,1\n", "line 1: header: is missing"),
    ],
)
def test_read_visibility_errors_name_line_and_field(folder, text, place):
    path = folder / "bad_visibility.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"bad_visibility\.csv") as error:
        predictions.read_visibility(path)
    assert place in str(error.value)


def test_readers_errors_all_of_a_file(folder):
    path = folder / "many.csv"
    path.write_text(ASD + "r,1,1,2,.1,.1,.1,.1\n" + ROW + "r,1,9,0.5,.1,.1,.1,.1\nr\n")
    what = r"line 2: conf.*\n.*line 4: class: '9' is not in 0…3, the classes of procedure 'toy'.*\n"
    with pytest.raises(ValueError, match=what + ".*line 5: frame: is missing"):
        predictions.read_detections(path, PROCEDURE)
    rows = ['0,r,1,"[0,2]","[0,0]","[0,0]"', '0,r,2,"[0,0]","[0,0]","[0,0]"']
    rows.append('0,r,3,"[0,0]","[0,7]","[9,0]"')
    path.write_text(TEMPORAL + "\n".join(rows) + "\n")
    what = (
        r"line 2: GT: 2 at place 2.*\n.*line 4: Pred: 7 at place 2.*\n.*line 4: Conf: 9 at place 1"
    )
    with pytest.raises(ValueError, match=what):
        predictions.read_temporal(path, PROCEDURE)
    path.write_text(TEMPORAL + 'x\n0,r,1,"[0]","[0,0]","[0,0]"\n')
    with pytest.raises(ValueError, match=r"line 2: clip: is missing.*\n.*line 3: GT: a bracketed"):
        predictions.read_temporal(path, PROCEDURE)
    path.write_text("frame,visible\n3,0.5\nx,0.5\n4,2\n")
    with pytest.raises(ValueError, match=r"line 3: frame.*\n.*line 4: visible"):
        predictions.read_visibility(path)


@pytest.mark.parametrize(
    "cut", ["frame,visible\n1,0.5\n2,", "frame,visible\n1,0.5\n2", "frame,visible\n1,0.5\n2,\0"]
)
def test_readers_errors_cut_off_or_damaged(folder, cut):
    path = folder / "cut.csv"
    path.write_text(cut)
    with pytest.raises(ValueError, match=r"cut\.csv: line 3: (the file is cut off|holds a NUL)"):
        predictions.read_visibility(path)


def test_read_rows_errors_for_no_file(folder):
    for path in (folder, folder / "absent.csv"):
        with pytest.raises(ValueError, match="cannot be read"):
            predictions.read_detections(path, PROCEDURE)


def test_folders_in_folders_are_not_looked_into_without_end(tmp_path):
    deep = tmp_path / "/".join("a" * 200)
    deep.mkdir(parents=True)
    (deep / "x_results_pred.csv").write_text("")
    assert predictions.find(tmp_path) == {}
    assert list(predictions.find(deep.parent.parent)) == ["x"]
