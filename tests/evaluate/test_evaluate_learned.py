"""The stream of the learned fusion, from scores or from predictions."""

import csv
import dataclasses

import pytest

from stormpsr_jax import evaluate
from stormpsr_jax.psr import evidence, learned_beliefs, learned_stream
from tests.support.commands import refused
from tests.support.evaluate_data import run_scored


def test_learned_scores_add_a_stream_and_change_no_other(scored):
    before = run_scored(scored)
    after = run_scored(scored, f"--scores={scored / 'scores'}")
    assert list(after) == ["asd", "temporal", "storm", "learned"]
    assert {s: after[s] for s in before} == before
    assert after["learned"]["seen"]["f1"] > 0.7
    assert after["learned"]["settings"].pop("sure") in learned_stream.BARS
    assert after["learned"]["settings"] == {
        **{"install": 3.0, "wrong": 0.0, "remove": -2.0, "rho": 0.1},
        **{"unexpected": None, "hold": None},
    }
    alone = run_scored(scored, f"--scores={scored / 'scores'}", streams=())
    del alone["learned"]["settings"]["sure"]
    assert alone == {"learned": after["learned"]}


def test_learned_says_what_was_seen_beside_what_is_right(scored, capsys):
    found = run_scored(scored, f"--scores={scored / 'scores'}")["learned"]
    said = capsys.readouterr()
    free = run_scored(scored, f"--scores={scored / 'scores'}", "--risk=1")["learned"]
    keys = ("pos", "f1", "delay_s", "tp", "fp", "fn")
    assert [found["seen"][key] for key in keys] == [free[key] for key in keys]
    for name, r in free["recordings"].items():
        seen = found["recordings"][name]["seen"]
        assert seen["events"] == r["events"] == r["seen"]["events"]
        assert len(found["recordings"][name]["events"]) <= len(seen["events"])
    assert found["seen"]["wrong"]["accepted"] == free["wrong"]["accepted"]
    assert "\nlearned (seen) " in said.out
    assert "Of 2 incorrect installations here " in said.err


def show(capsys, *words):
    """The rows of a table that a command prints."""
    capsys.readouterr()
    evaluate.main([*map(str, words), "--format=csv"])
    return list(csv.DictReader(capsys.readouterr().out.splitlines()))


def test_tables_have_what_was_seen_as_a_stream(scored, capsys):
    found = run_scored(scored, f"--scores={scored / 'scores'}")["learned"]
    for table in ("summary", "recordings", "steps", "delays", "tolerance", "wrong"):
        rows = show(capsys, "tables", scored / "out.json", f"--table={table}")
        seen, right = ([r for r in rows if r["stream"] == s] for s in ("learned (seen)", "learned"))
        assert len(seen) >= len(right) > 0, table
        if table == "steps":
            assert sum(int(row["tp"]) for row in seen) == found["seen"]["tp"]
            assert sum(int(row["tp"]) for row in right) == found["tp"]


def test_compare_has_what_was_seen_as_a_stream(scored, capsys):
    found = run_scored(scored, f"--scores={scored / 'scores'}")
    result = scored / "out.json"
    streams = {row["stream"] for row in show(capsys, "compare", result, result)}
    assert streams == {*found, "learned (seen)"}
    rows = show(capsys, "compare", result, result, "--streams=learned (seen),asd")
    (row,) = (row for row in rows if row["metric"] == "f1")
    assert row["stream"] == "asd − learned (seen)"
    means = [float(row[key]) for key in ("a", "b")]
    assert means == pytest.approx([found["learned"]["seen"]["f1"], found["asd"]["f1"]])


def test_learned_of_detections_alone_has_weights_and_thresholds_of_its_own(scored, capsys):
    found = run_scored(scored, "--fusion=default", streams=("asd",))
    assert list(found) == ["asd", "learned"]
    weights = learned_beliefs.default_weights("detections")
    assert weights.kind == "detections"
    defaults = learned_stream.LEARNED.defaults(weights)
    assert found["learned"]["settings"].pop("sure") in (*learned_stream.BARS, evidence.CAP)
    assert found["learned"]["settings"] | {"sure": None} == dataclasses.asdict(defaults)
    free = run_scored(scored, "--fusion=default", "--risk=1", streams=("asd",))
    assert free["learned"]["settings"] == dataclasses.asdict(defaults)
    other = run_scored(scored, "--fusion=default", "--threshold=learned=9", streams=("asd",))
    assert other["learned"]["settings"] == {**free["learned"]["settings"], "install": 9.0}
    for kind, streams, what in (
        ("csv", ("asd",), "are for prediction files of both streams, and here are detections"),
        ("detections", ("asd", "temporal"), "are for detections alone, and here are prediction"),
    ):
        path = scored / f"{kind}.json"
        learned_beliefs.write_weights(path, learned_beliefs.default_weights(kind))
        said = refused(capsys, run_scored, scored, f"--fusion={path}", streams=streams)
        assert what in said


def test_learned_errors_of_scores_that_are_missing_or_alone(scored, capsys):
    folder = f"--scores={scored / 'scores'}"
    (scored / "scores" / "r1.npz").unlink()
    assert "no r1.npz for the recording r1" in refused(capsys, run_scored, scored, folder)
