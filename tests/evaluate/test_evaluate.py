"""The command: files in, metrics.json out; what is scored and shown; wrong input."""

import csv
import dataclasses
import pathlib
import shutil

import numpy as np
import pytest

from stormpsr_jax import evaluate
from stormpsr_jax.psr import (
    evaluation,
    evidence,
    learned_beliefs,
    learned_stream,
    streams,
)
from stormpsr_jax.psr.accumulation import Settings
from stormpsr_jax.recordings import labels, predictions
from stormpsr_jax.recordings.evaluation_set import LabelledPredictions
from stormpsr_jax.recordings.labels import read_steps
from stormpsr_jax.recordings.predictions import Detections, read_detections, read_temporal
from stormpsr_jax.recordings.procedure import load_procedure
from tests.support import refusals, toy
from tests.support.evaluate_data import PROCEDURE, command, fails, put_wrong, run, run_scored
from tests.support.processes import refused
from tests.support.toy_stream import BOTH


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
    assert "\nNever tested on an incorrect installation: these recordings show none." in shown
    evaluate.main([word for word in command(files) if not word.startswith("--out")])
    assert capsys.readouterr().out.startswith("stream ")


def test_evaluate_of_another_variant(files):
    own, other = run(files), run(files, "--variant=assembly")
    assert other["streams"]["asd"]["fn"] > own["streams"]["asd"]["fn"]


def test_evaluate_takes_another_rate_for_labels_by_the_clock(files, capsys):
    truth = run(files)["streams"]["asd"]["recordings"]["01_assy_a"]["truth"]
    for folder in (files / "labels").iterdir():
        rows = [line.split(",") for line in (folder / "PSR_labels.csv").read_text().splitlines()]
        text = "".join(f"{int(row[0].split('.')[0]) / 10},{row[1]}\n" for row in rows)
        (files / f"labels/{folder.name}.csv").write_text("time,step\n" + text)
        shutil.rmtree(folder)
    timed = run(files, "--fps=10")["streams"]["asd"]["recordings"]["01_assy_a"]["truth"]
    assert timed == truth
    assert "such as 10 a second instead of 20?" in fails(
        files, capsys, "--fps=20", streams=("asd",)
    )


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


@pytest.mark.parametrize(("flags", "changed", "messages"), refusals.cases("evaluate.txt"))
def test_evaluate_errors_are_a_line_each_and_nothing_is_written(
    files, capsys, monkeypatch, flags, changed, messages
):
    monkeypatch.chdir(files)
    refusals.write(changed, files)
    refusals.check(capsys, messages, evaluate.main, command(files, *flags.split()))
    assert not (files / "out.json").exists()


def test_evaluate_errors_without_predictions(files, capsys):
    assert "no predictions" in fails(files, capsys, streams=())
    said = fails(files, capsys, "--fusion=default", streams=("temporal",))
    assert "--fusion needs --scores, or --asd (and --temporal)" in said


# --- What is scored ------------------------------------------------------------------------------


def test_evaluate_scores_errors_only_if_asked(files):
    plain = run(files)
    folder = files / "labels" / "01_assy_a"
    for name in ("01_assy_a", "02_assy_b", "07_main_c"):
        folder = files / "labels" / name
        steps = labels.read_steps(folder / "PSR_labels.csv", PROCEDURE)
        labels.write_steps(folder / "PSR_labels_with_errors.csv", [*steps, (399, 4)], PROCEDURE)
    assert run(files) == plain
    scored = run(files, "--with_errors")
    for stream in plain["streams"]:
        assert scored["streams"][stream]["fn"] == plain["streams"][stream]["fn"] + 3


# The released code takes the first row of a frame, not the most confident one.
@pytest.mark.parametrize(("protocol", "delay"), [("paper", 11), ("released", 12)])
def test_evaluate_golden_wrong_parts(files, capsys, protocol, delay):
    k, start, end = put_wrong(files)
    # The detector takes the wrong part for a right one, ten frames after it was put on.
    path = files / "asd" / f"01_assy_a{predictions.SUFFIX}"
    header, *lines = path.read_text().splitlines()
    seen = [f"x,{frame},4,0.99,0,0,1,1" for frame in range(start + 10, end)]
    path.write_text("\n".join([header, *lines, *seen]) + "\n")
    result = run(files, f"--protocol={protocol}", "--threshold=asd=1.5,temporal=1,storm=9")
    asd = result["streams"]["asd"]
    (one,) = asd["recordings"]["01_assy_a"]["wrong"]["installations"]
    assert one == [k, start, end, start + delay, None]
    assert (asd["wrong"]["shown"], asd["wrong"]["accepted"], asd["wrong"]["found"]) == (1, 1, 0)
    assert result["streams"]["temporal"]["wrong"]["accepted"] == 0
    assert asd["recordings"]["02_assy_b"]["wrong"]["installations"] == []
    said = capsys.readouterr().out
    assert said.index("\nincorrect installations\n") < said.index(" accepted ")
    assert said.index("\ncorrect installations\n") < said.index(" right_called_wrong ")
    shown = show(capsys, "tables", files / "out.json", "--table=installations", "--format=csv")
    assert f"asd,01_assy_a,{PROCEDURE.components[k]}," in shown


def test_evaluate_nothing_is_known_of_wrong_parts_without_states(files, capsys):
    for path in files.glob("labels/*/PSR_labels_raw.csv"):
        path.unlink()
    stream = run(files)["streams"]["asd"]
    assert stream["wrong"] is None
    assert all(r["wrong"] is None for r in stream["recordings"].values())
    assert "incorrect" not in capsys.readouterr().out


def test_evaluate_a_delay_counts_from_when_a_render_shows_the_step(files, capsys):
    assert "delay_visible_s" not in run(files)["streams"]["asd"]
    for folder in (files / "labels").iterdir():
        (folder / "PSR_labels_visible_from.csv").write_text("frame,step_id,visible_from\n")
    found = run(files)["streams"]["asd"]
    assert found["delay_visible_s"] == found["delay_s"]
    step, true, _ = found["recordings"]["02_assy_b"]["outcomes"]["correct"][0]
    path = files / "labels/02_assy_b/PSR_labels_visible_from.csv"
    never = f"frame,step_id,visible_from\n{true},{step + 1},\n"
    path.write_text(f"{never}{true},{step},{true + 30}\n")
    stream = run(files)["streams"]["asd"]
    one = stream["recordings"]["02_assy_b"]
    assert one["delay_visible_s"] == pytest.approx(one["delay_s"] - 3 / one["tp"])
    assert stream["delay_visible_s"] == pytest.approx(stream["delay_s"] - 1 / one["tp"])


# --- The learned fusion --------------------------------------------------------------------------


def show(capsys, *words):
    """What a command prints."""
    capsys.readouterr()
    evaluate.main(list(map(str, words)))
    return capsys.readouterr().out


def rows_shown(capsys, *words):
    return list(csv.DictReader(show(capsys, *words, "--format=csv").splitlines()))


def test_learned_scores_add_a_stream_and_change_no_other(scored):
    before = run_scored(scored)
    after = run_scored(scored, f"--scores={scored / 'scores'}")
    assert list(after) == ["asd", "temporal", "storm", "learned"]
    assert {s: after[s] for s in before} == before
    assert after["learned"]["seen"]["f1"] > 0.7
    assert after["learned"]["settings"].pop("sure") in learned_stream.BARS
    assert after["learned"]["settings"] == {
        **{"install": 3.0, "wrong": 0.0, "remove": -2.0, "rho": 0.1},
        **{"unexpected": None, "hold": None, "camera": None},
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


def test_tables_and_compare_have_what_was_seen_as_a_stream(scored, capsys):
    found, result = run_scored(scored, f"--scores={scored / 'scores'}"), scored / "out.json"
    learned = found["learned"]
    for table in ("summary", "recordings", "steps", "delays", "wrong"):
        rows = rows_shown(capsys, "tables", result, f"--table={table}")
        seen, right = ([r for r in rows if r["stream"] == s] for s in ("learned (seen)", "learned"))
        assert len(seen) >= len(right) > 0, table
        if table == "steps":
            assert sum(int(row["tp"]) for row in seen) == learned["seen"]["tp"]
            assert sum(int(row["tp"]) for row in right) == learned["tp"]
    streams = {row["stream"] for row in rows_shown(capsys, "compare", result, result)}
    assert streams == {*found, "learned (seen)"}
    rows = rows_shown(capsys, "compare", result, result, "--streams=learned (seen),asd")
    (row,) = (row for row in rows if row["metric"] == "f1")
    assert row["stream"] == "asd − learned (seen)"
    means = [float(row[key]) for key in ("a", "b")]
    assert means == pytest.approx([learned["seen"]["f1"], found["asd"]["f1"]])


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
    for kind, names, what in (
        ("csv", ("asd",), "are for prediction files of both streams, and here are detections"),
        ("detections", ("asd", "temporal"), "are for detections alone, and here are prediction"),
    ):
        path = scored / f"{kind}.json"
        learned_beliefs.write_weights(path, learned_beliefs.default_weights(kind))
        said = refused(capsys, run_scored, scored, f"--fusion={path}", streams=names)
        assert what in said


def test_learned_errors_of_scores_that_are_missing_or_alone(scored, capsys):
    folder = f"--scores={scored / 'scores'}"
    (scored / "scores" / "r1.npz").unlink()
    assert "no r1.npz for the recording r1" in refused(capsys, run_scored, scored, folder)


# --- What shows a result -------------------------------------------------------------------------


def test_tables_all_of_them_in_every_format(files, capsys):
    result = run(files, f"--visibility={files / 'visibility'}")
    text = show(capsys, "tables", files / "out.json")
    for name in "summary recordings steps delays occlusion reliability".split():
        assert f"\n{name}\nstream " in text
        for form in ("text", "csv", "markdown"):
            flags = f"--table={name}", f"--format={form}"
            assert "storm" in show(capsys, "tables", files / "out.json", *flags)
    assert "Install front chassis" in text
    recordings = result["streams"]["asd"]["recordings"]
    for r in recordings.values():
        assert len(r["visible"]) == len(r["truth"])
        assert all(0 <= v <= 1 for v in r["visible"])


def test_compare_streams_and_files(files, capsys):
    run(files)
    late = files / "late.json"
    evaluate.main([*command(files, "--threshold=3"), f"--out={late}"])
    assert show(capsys, "compare", files / "out.json", late).count("common_delay_s") == 3
    rows = rows_shown(capsys, "compare", late, late, "--streams=asd,storm")
    rows = {row["metric"]: row for row in rows}
    assert float(rows["delay_s"]["difference"]) < 0
    assert "f1_tolerant" in show(capsys, "compare", late, late, "--streams=asd")
    for arguments, message in [
        (["compare", files / "out.json"], "required: b"),
        (["compare", files / "out.json", files / "nothing.json"], "nothing.json: cannot be read"),
        (["compare", late, late, "--streams=a,b,c"], "names more than two streams"),
        (["tables", files / "labels"], "is not a regular file"),
    ]:
        said = refused(capsys, evaluate.main, list(map(str, arguments)))
        assert message in said


def test_published_detections_and_labels_in_folders_of_splits_score_the_same(files, capsys):
    """Published files have a row for a frame without a detection too: name, frame, 0."""
    expected = run(files, streams=("asd",))
    for path in sorted((files / "asd").iterdir()):
        rows = path.read_text().splitlines()
        name = path.name.removesuffix("_results_pred.csv")
        there = {int(row.split(",")[1]) for row in rows[1:]}
        rows += [f"{name},{frame},0" for frame in range(420) if frame not in there]
        path.write_text("\n".join(rows) + "\n")
    assert run(files, streams=("asd",)) == expected
    for name, split in {
        "01_assy_a": "test_p1",
        "02_assy_b": "test_p1",
        "07_main_c": "test",
    }.items():
        shutil.copytree(files / "labels" / name, files / "all" / split / name)
    shutil.copytree(files / "labels/01_assy_a", files / "all/train_p1/05_assy_x")
    labels = f"--labels={files / 'all'}"
    assert run(files, labels, "--split=test", streams=("asd",)) == expected
    said = fails(files, capsys, labels, streams=("asd",))
    assert "--split leaves out other splits than one (this is of train)" in said
    assert "no labels of split val" in fails(files, capsys, labels, "--split=val")


SHARED = pathlib.Path(__file__).parents[2] / "../shared"
FPS = 5.0
FOUR_PARTS = toy.procedure("a, b, c, d", "1000 1100 1110 1111", fps=FPS, variant="up")


def shown_recording(name, seed, *, scale=1.0, tail=100, late=4, first_class=1):
    """Steps at made-up frames, seen `late` frames after; predictions counted `scale` times."""
    rng = np.random.default_rng(seed)
    frames = np.sort(rng.choice(np.arange(100, 1000, 10), 4, replace=False))
    at = np.arange(frames[0] + late, frames[-1] + tail)
    classes = np.searchsorted(frames + late, at, "right") + first_class - 1
    counted, first = np.unique(np.round(at * scale).astype(int), return_index=True)
    sure = np.full(len(first), 0.9)
    detections = Detections(counted, classes[first], sure, np.zeros((len(first), 4)))
    truth = [(int(frame), 3 * k) for k, frame in enumerate(frames)]
    variant = FOUR_PARTS.variants["up"]
    return LabelledPredictions(name, variant, truth, np.zeros((0, 4), np.int8), detections)


def score(**changes):
    recordings = {str(i): shown_recording(str(i), i, **changes) for i in range(3)}
    return evaluation.evaluate_recordings(FOUR_PARTS, recordings, Settings(threshold=0.5))


def test_another_rate_is_certain_or_a_warning_and_long_ends_and_late_steps_are_none():
    for scale in (5.0, 2.5, 0.2):
        with pytest.raises(ValueError, match=r"--asd count at another rate.*convert fra") as error:
            score(scale=scale)
        rate = float(str(error.value).partition("such as ")[2].split()[0])
        assert rate == pytest.approx(scale * FPS, rel=0.02)
        assert "Give it as --labels_fps" in str(error.value)
    (warning,) = score(scale=1.2)["warnings"]
    assert "grow 1.2 times as fast" in warning
    for changes in ({}, {"tail": 3000}, {"late": 15}, {"tail": 5}):
        assert score(**changes)["warnings"] == []


def test_classes_from_0_are_a_warning_and_what_agrees_is_said():
    (warning,) = score(first_class=0)["warnings"]
    assert "would if its classes were one higher: class 0 is background" in warning
    (fact,) = score()["checks"]
    assert fact.endswith("agree with the labels; of 12 states after labelled steps it shows 12")


@pytest.mark.parametrize("name", ["industreal", "meccano"])
def test_check_no_false_alarms_on_golden_inputs(name):
    golden = SHARED / "golden" / name
    if not golden.exists():
        pytest.skip("the golden files are not here")
    procedure = load_procedure(name)
    labels = golden / "labels"
    if name == "meccano":
        labels = SHARED / "data" / "meccano_psr_labels"
    recordings, profile = {}, golden / "noisy"
    for path in sorted((profile / "asd").glob("*_results_pred.csv")):
        key = path.name.removesuffix("_results_pred.csv")
        (folder,) = labels.glob(f"**/{key}")
        recordings[key] = LabelledPredictions(
            key,
            procedure.variant_for(key),
            read_steps(folder / "PSR_labels.csv", procedure),
            np.zeros((0, procedure.num_components), np.int8),
            read_detections(path, procedure),
            read_temporal(profile / "temporal" / path.name, procedure),
        )
    settings = Settings(threshold=1.0)
    assert evaluation.evaluate_recordings(procedure, recordings, settings)["warnings"] == []


@pytest.fixture
def fifth(monkeypatch):
    """The line."""
    monkeypatch.setattr(streams, "STREAMS", (*streams.STREAMS, BOTH))


def test_a_fifth_stream_is_scored_and_shown_and_changes_no_other(scored, fifth, capsys):
    found = run_scored(scored, f"--report={scored / 'r.html'}", "--threshold=both=4")
    assert list(found) == ["asd", "temporal", "storm", "both"]
    assert found["both"]["settings"] == {"pictures": 4.0}
    assert found["both"]["tp"] > 10
    shown = (scored / "r.html").read_text()
    assert "Both agree" in shown
    assert "Both agreed in 4 pictures." in shown
    assert "var(--amber)" in shown
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streams, "STREAMS", streams.STREAMS[:-1])
        assert run_scored(scored) == {s: found[s] for s in ("asd", "temporal", "storm")}
    # A number alone is meant for those that sum up evidence.
    assert run_scored(scored, "--threshold=9")["both"]["settings"] == {"pictures": 2.0}
    capsys.readouterr()
    run_scored(scored, streams=("asd",))
    assert "no both stream: it needs --asd and --temporal" in capsys.readouterr().err
    for flag, message in (
        ("--gate=both=1", "--gate: stream both has none"),
        ("--threshold=both=0", "pictures 0.0 is not a number from 1 up"),
        ("--threshold=neither=1", "neither a number nor like asd=6"),
    ):
        assert message in refused(capsys, run_scored, scored, flag)
    with pytest.raises(SystemExit):
        evaluate.main(["--help"])
    assert "both=2 is the number of pictures" in " ".join(capsys.readouterr().out.split())
    assert "both" not in run_scored(scored, "--protocol=released")
    assert "both" not in run_scored(scored, "--decoder=naive", "--threshold=1")
