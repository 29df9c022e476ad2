"""Prediction files: round trips, the released code's files, and errors that name their place."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stormpsr_jax.psr import convert
from stormpsr_jax.recordings import predictions
from tests.support import refusals, toy

PROCEDURE = toy.procedure("a, b", "10 11", variant="up", expected=[0])
ASD = "name,frame,class,conf,x,y,w,h\n"


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


@pytest.mark.parametrize(
    ("_", "files", "messages"),
    [
        *refusals.cases("predictions.txt"),
        pytest.param("", {"r": f"{ASD}r,1,1,.5,0,0,1,\0\n"}, ["line 2: holds a NUL"], id="NUL"),
    ],
)
def test_what_is_wrong_with_a_file_is_a_line_each(tmp_path, capsys, _, files, messages):
    (tmp_path / "asd").mkdir()
    (tmp_path / "asd/r_results_pred.csv").write_text(files["r"])
    (tmp_path / "toy.json").write_text(json.dumps(PROCEDURE.to_json()))
    words = [f"--predictions={tmp_path / 'asd'}", f"--procedure={tmp_path / 'toy.json'}"]
    words = ["frames", *words, "--fps=5", f"--out={tmp_path / 'out'}"]
    messages = [f"r_results_pred.csv: {message}" for message in messages]
    refusals.check(capsys, messages, convert.main, words)
    assert not (tmp_path / "out").exists()
