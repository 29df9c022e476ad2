"""The command: files in, metrics.json out; wrong input; no JAX."""

import shutil

import pytest

from stormpsr_jax import evaluate
from stormpsr_jax.psr import detection_scores
from tests.support import refusals
from tests.support.commands import refused
from tests.support.evaluate_data import command, fails, run


def test_evaluate_contract_of_metrics_json(files, capsys):
    result = run(files)
    assert (result["protocol"], result["decoder"]) == ("paper", "expected")
    assert list(result["streams"]) == ["asd", "temporal", "storm"]
    for stream in result["streams"].values():
        assert sorted(stream["recordings"]) == ["01_assy_a", "02_assy_b", "07_main_c"]
        for key in ("pos", "f1", "delay_s"):
            values = [r[key] for r in stream["recordings"].values() if r[key] is not None]
            assert stream[key] == pytest.approx(sum(values) / len(values))
        for key in ("tp", "fp", "fn"):
            assert stream[key] == sum(r[key] for r in stream["recordings"].values())
        for r in stream["recordings"].values():
            assert r["perception_fp"] is r["perception_fn"] is None
            assert r["delay_s"] == pytest.approx(r["delay_frames"] / 10)
            assert r["tp"] + r["fp"] == len(r["events"])
            for frame, step_id, confidence in r["events"]:
                assert isinstance(frame, int)
                assert 0 <= step_id < 33
                assert 0 < confidence <= 1
    assert result["streams"]["storm"]["f1"] > 0.9
    assert result["streams"]["storm"]["delay_s"] < result["streams"]["asd"]["delay_s"]
    assert result["streams"]["storm"]["settings"]["threshold"] == 1
    shown = capsys.readouterr().out
    assert "storm: Decoder expected, threshold 1.0, decay 0.75, weight 0.5, floor 0.5." in shown
    assert f"storm        {result['streams']['storm']['segments']['accuracy']:.3f}" in shown
    assert "\nNever tested on an incorrect installation: these recordings show none." in shown
    evaluate.main([word for word in command(files) if not word.startswith("--out")])
    assert capsys.readouterr().out.startswith("stream ")


def test_evaluate_of_another_variant(files):
    own, other = run(files), run(files, "--variant=assembly")
    assert other["streams"]["asd"]["fn"] > own["streams"]["asd"]["fn"]


def test_evaluate_takes_a_rate_for_labels_by_the_clock_alone(files, capsys):
    assert "labels/01_assy_a: counts 10 frames a second, as" in fails(files, capsys, "--fps=5")
    for folder in (files / "labels").iterdir():
        rows = [line.split(",") for line in (folder / "PSR_labels.csv").read_text().splitlines()]
        text = "".join(f"{int(row[0].split('.')[0]) / 10},{row[1]}\n" for row in rows)
        (files / f"labels/{folder.name}.csv").write_text("time,step\n" + text)
        shutil.rmtree(folder)
    truths = [
        run(files, f"--fps={fps}")["streams"]["asd"]["recordings"]["01_assy_a"]["truth"]
        for fps in (10, 20)
    ]
    assert [(frame * 2, step) for frame, step in truths[0]] == list(map(tuple, truths[1]))


def test_evaluate_labels_that_begin_in_another_state_are_said(files, capsys):
    assert run(files)["warnings"] == []
    path = files / "labels" / "02_assy_b" / "PSR_labels_raw.csv"
    first, rest = path.read_text().split("\n", 1)
    assert first.endswith(",0")
    path.write_text(f"{first[:-1]}1\n{rest}")
    capsys.readouterr()
    (text,) = run(files)["warnings"]
    assert text.startswith("the labels of 02_assy_b begin in another state than their variant:")
    assert text in capsys.readouterr().err


@pytest.mark.parametrize("decoder", ["naive", "confidence", "expected"])
def test_evaluate_released_keeps_the_contract(files, decoder):
    result = run(files, "--protocol=released", f"--decoder={decoder}")
    streams = ["asd", "temporal"] if decoder == "naive" else ["asd", "temporal", "storm"]
    assert list(result["streams"]) == streams
    for stream in result["streams"].values():
        for r in stream["recordings"].values():
            assert {"pos", "f1", "delay_s", "delay_frames", "tp", "fp", "fn", "events"} <= set(r)
            assert {"perception_fp", "perception_fn", "contains_errors"} <= set(r)


BAD = "frame,visible\n3,0.5\n4,1.5\n5\n"


@pytest.mark.parametrize(("flags", "_", "messages"), refusals.cases("evaluate.txt"))
def test_evaluate_errors_are_a_line_each_and_nothing_is_written(
    files, capsys, monkeypatch, flags, _, messages
):
    monkeypatch.chdir(files)
    (files / "v").mkdir()
    (files / "v/01_assy_a.csv").write_text(BAD)
    refusals.check(capsys, messages, evaluate.main, command(files, *flags.split()))
    assert not (files / "out.json").exists()


def test_help_keeps_the_lines_of_its_description(capsys):
    for words, text in (([], evaluate.__doc__), (["detections"], detection_scores.__doc__)):
        with pytest.raises(SystemExit):
            evaluate.main([*words, "--help"])
        assert text.strip() in capsys.readouterr().out


def test_evaluate_errors_without_predictions_or_steps(files, capsys):
    assert "no predictions" in fails(files, capsys, streams=())
    said = fails(files, capsys, "--fusion=default", streams=("temporal",))
    assert "--fusion needs --scores, or --asd (and --temporal)" in said
    folder = files / "labels" / "02_assy_b"
    (folder / "PSR_labels.csv").write_text("")
    assert "PSR_labels_raw.csv beside it has 7; remove" in fails(files, capsys)
    (folder / "PSR_labels_raw.csv").unlink()
    assert fails(files, capsys, "--protocol=released") == (
        "error: recording '02_assy_b': no ground-truth steps in PSR_labels.csv: take "
        "protocol 'paper'"
    )


def test_evaluate_errors_leave_no_recording_out(files, capsys):
    gone = files / "temporal" / "02_assy_b_results_pred.csv"
    content = gone.read_bytes()
    gone.unlink()
    assert "no 02_assy_b_results_pred.csv for the recording 02_assy_b" in fails(files, capsys)
    (files / "asd" / "03_assy_z_results_pred.csv").write_text("name,frame,class,conf,x,y,w,h\n")
    gone.write_bytes(content)
    assert "no labels of 03_assy_z for" in fails(files, capsys)
    # Of many mistakes in one file those in others are seen too.
    (files / "asd" / "03_assy_z_results_pred.csv").unlink()
    bad = files / "asd" / "01_assy_a_results_pred.csv"
    bad.write_text("name,frame,class,conf,x,y,w,h\n" + "r,1,1,2,0,0,1,1\n" * 15)
    gone.write_bytes(content + b"x,y\n")
    lines = refused(capsys, evaluate.main, command(files), lines=7).splitlines()
    assert lines[5].endswith("01_assy_a_results_pred.csv: 10 more errors")
    assert "02_assy_b_results_pred.csv: line 402: framenr: is missing" in lines[6]
