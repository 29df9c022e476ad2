"""The evaluate command: files in, metrics.json out; wrong input; no JAX."""

import json
import pathlib
import re
import statistics
import subprocess
import sys

import numpy as np
import pytest
from simulated_scores import PROCEDURE as SYNTHETIC
from simulated_scores import simulate

from stormpsr_jax import evaluate
from stormpsr_jax.psr import (
    analysis,
    batch,
    decoding,
    labels,
    learned,
    learned_weights,
    metrics,
    predictions,
    scores,
    scoring,
)
from stormpsr_jax.psr.calibration import Calibration
from stormpsr_jax.psr.decoding import Settings
from stormpsr_jax.psr.procedure import load_procedure
from stormpsr_jax.psr.recordings import load_recordings

ROOT = pathlib.Path(__file__).parents[1]
PROCEDURE = load_procedure("industreal")
WINDOW = 32


def make_files(root, names=("01_assy_a", "02_assy_b", "07_main_c")):
    """Label and prediction folders of recordings that are recognised a little late."""
    for kind in ("asd", "temporal", "labels", "visibility"):
        (root / kind).mkdir(parents=True)
    for seed, name in enumerate(names):
        rng = np.random.default_rng(seed)
        variant = PROCEDURE.variant_for(name)
        targets = PROCEDURE.states[[3, 7, 8]] if "assy" in name else PROCEDURE.states[[14, 19]]
        states = np.vstack([variant.initial_state, targets]).astype(np.int8)
        changes = np.array([0, *(40 + np.sort(rng.choice(300, len(targets), replace=False)))])
        folder = root / "labels" / name
        folder.mkdir()
        steps = labels.states_to_steps(changes, states)
        labels.write_steps(folder / "PSR_labels.csv", steps, PROCEDURE)
        labels.write_states(folder / "PSR_labels_raw.csv", changes, states)
        per_frame = labels.states_per_frame(changes, states, 0, 400)
        frames = np.arange(10, 400, 2)
        late = predictions.Detections(
            frames,
            PROCEDURE.state_classes(per_frame[frames - 10]),
            0.6 + 0.3 * rng.random(len(frames)),
            rng.random((len(frames), 4)),
        )
        predictions.write_detections(root / "asd" / f"{name}_results_pred.csv", name, late)
        frames = np.arange(400)
        change = per_frame != per_frame[np.maximum(frames - WINDOW, 0)]
        clips = predictions.TemporalPredictions(
            frames, change.astype(int), change.astype(int), np.where(change, 0.9, 0.1)
        )
        predictions.write_temporal(root / "temporal" / f"{name}_results_pred.csv", name, clips)
        predictions.write_visibility(
            root / "visibility" / f"{name}.csv", frames, rng.random(len(frames))
        )
    return root


@pytest.fixture
def files(tmp_path):
    return make_files(tmp_path / "files")


def command(files, *flags, streams=("asd", "temporal"), out="out.json"):
    return [
        "--procedure=industreal",
        f"--labels={files / 'labels'}",
        *(f"--{s}={files / s}" for s in streams),
        "--threshold=asd=1.5,temporal=1,storm=1",
        f"--window={WINDOW}",
        f"--out={files / out}",
        *flags,
    ]


def run(files, *flags, **options):
    evaluate.main(command(files, *flags, **options))
    return json.loads((files / options.get("out", "out.json")).read_text())


def test_evaluate_property_contract_of_metrics_json(files, capsys):
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
    assert "storm" in capsys.readouterr().out


def test_evaluate_property_thresholds_per_stream_and_fps_and_variant(files):
    slow = run(files, "--fps=5")
    fast = run(files)
    for stream in fast["streams"]:
        assert slow["streams"][stream]["delay_s"] == 2 * fast["streams"][stream]["delay_s"]
    with pytest.raises(SystemExit):
        run(files, "--variant=nothing")
    assert run(files, "--variant=assembly")["streams"]["asd"]["fn"] > fast["streams"]["asd"]["fn"]


def test_evaluate_property_removals_and_gate_per_stream(files):
    plain = run(files, "--decoder=confidence")
    flags = ("--removal=asd=1.5,temporal=1,storm=1", "--gate=0.5")
    same = run(files, "--decoder=confidence", *flags)
    never = run(files, "--decoder=confidence", "--removal=asd=1e6", "--gate=temporal=0.95")
    for stream in plain["streams"]:
        assert plain["streams"][stream]["settings"]["removal"] is None
        assert plain["streams"][stream]["settings"]["gate"] == 0.5
        assert same["streams"][stream]["recordings"] == plain["streams"][stream]["recordings"]
    assert same["streams"]["asd"]["settings"]["removal"] == 1.5
    events = {
        stream: [e for r in never["streams"][stream]["recordings"].values() for e in r["events"]]
        for stream in never["streams"]
    }
    assert {e[1] % 3 for e in events["asd"]} == {0}
    assert events["temporal"] == []  # its probabilities are 0.1 and 0.9
    assert never["streams"]["storm"] == plain["streams"]["storm"]


def test_evaluate_property_allowed_removal_is_no_error(files):
    path = files / "labels" / "01_assy_a" / "PSR_labels.csv"
    steps = labels.read_steps(path, PROCEDURE)
    recording = run(files)["streams"]["asd"]["recordings"]["01_assy_a"]
    assert recording["contains_errors"]  # not every expected step is in these labels
    expected = PROCEDURE.variants["assembly"].expected
    done = {step for _, step in steps}
    steps += [(300, step) for step in expected if step not in done]
    labels.write_steps(path, steps, PROCEDURE)
    assert not run(files)["streams"]["asd"]["recordings"]["01_assy_a"]["contains_errors"]
    labels.write_steps(path, [*steps, (350, 5), (360, 3)], PROCEDURE)
    for flags in ([], ["--removal=1"], ["--protocol=released"]):
        recording = run(files, *flags)["streams"]["asd"]["recordings"]["01_assy_a"]
        assert not recording["contains_errors"]


def test_evaluate_property_absent_streams_are_said(files, capsys):
    assert list(run(files, streams=("asd",))["streams"]) == ["asd"]
    said = capsys.readouterr().err
    assert "no temporal stream: --temporal is not given" in said
    assert "no storm stream" in said
    assert list(run(files, "--decoder=naive")["streams"]) == ["asd", "temporal"]
    assert "no storm stream: the naive decoder has no fused one" in capsys.readouterr().err


@pytest.mark.parametrize("decoder", ["naive", "confidence", "expected"])
def test_evaluate_property_released_keeps_the_contract(files, decoder):
    result = run(files, "--protocol=released", f"--decoder={decoder}")
    streams = ["asd", "temporal"] if decoder == "naive" else ["asd", "temporal", "storm"]
    assert list(result["streams"]) == streams
    for stream in result["streams"].values():
        for r in stream["recordings"].values():
            assert {"pos", "f1", "delay_s", "delay_frames", "tp", "fp", "fn", "events"} <= set(r)
            assert {"perception_fp", "perception_fn", "contains_errors"} <= set(r)


def test_evaluate_property_order_of_recordings_changes_nothing(tmp_path):
    names = ("01_assy_a", "02_assy_b", "03_assy_c")
    renamed = dict(zip(names, ("09_assy_a", "05_assy_b", "01_assy_c"), strict=True))
    first, second = make_files(tmp_path / "x", names), make_files(tmp_path / "y", names)
    for old, new in renamed.items():  # the sorted order turns round
        (second / "labels" / old).rename(second / "labels" / f"tmp_{new}")
        for kind in ("asd", "temporal"):
            path = second / kind / f"{old}_results_pred.csv"
            path.rename(second / kind / f"tmp_{new}_results_pred.csv")
    for path in [*(second / "labels").iterdir(), *second.glob("[at]*/tmp_*")]:
        path.rename(path.with_name(path.name.removeprefix("tmp_")))
    a, b = run(first), run(second)
    for stream in a["streams"]:
        rec_a, rec_b = (x["streams"][stream].pop("recordings") for x in (a, b))
        assert a["streams"][stream] == b["streams"][stream]
        for old, new in renamed.items():
            assert rec_a[old] == rec_b[new]


def test_evaluate_property_scores_errors_only_if_asked(files):
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


def put_wrong(files):
    """Lets a component that is installed first in 01_assy_a sit wrong 30 frames before that."""
    path = files / "labels" / "01_assy_a" / "PSR_labels_raw.csv"
    frames, states = labels.read_states(path, PROCEDURE)
    k = int(np.flatnonzero(states[1] > states[0])[0])
    wrong = states[0].copy()
    wrong[k] = -1
    frames = np.insert(frames, 1, frames[1] - 30)
    labels.write_states(path, frames, np.insert(states, 1, wrong, axis=0))
    return k, int(frames[1]), int(frames[2])


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
    assert "parts that sit wrong" in capsys.readouterr().out
    evaluate.main(["tables", str(files / "out.json"), "--table=installations", "--format=csv"])
    assert f"asd,01_assy_a,{PROCEDURE.components[k]}," in capsys.readouterr().out


def test_evaluate_property_certain_events_alone_are_scored(files, capsys):
    plain = run(files)
    middle = statistics.median(
        e[2] for r in plain["streams"]["asd"]["recordings"].values() for e in r["events"]
    )
    result = run(files, f"--certain={middle}")
    assert "confidence of at least" in analysis.notes(result)[0]
    assert run(files, "--certain=0") == plain
    assert (result["certain"], plain["certain"]) == (middle, 0)
    split = 0
    for stream, s in result["streams"].items():
        assert s["reliability"] == plain["streams"][stream]["reliability"]
        for name, r in s["recordings"].items():
            every = plain["streams"][stream]["recordings"][name]
            assert every["uncertain"] == []
            assert r["events"] == [e for e in every["events"] if e[2] >= middle]
            assert r["uncertain"] == [e for e in every["events"] if e[2] < middle]
            found = [e[:2] for e in r["events"]]
            assert r["f1"] == metrics.score_recording(r["truth"], found, 10)["f1"]
            split += bool(r["events"] and r["uncertain"])
        assert s["tp"] + s["fp"] == sum(len(r["events"]) for r in s["recordings"].values())
    assert split >= 2
    for flag in ("--protocol=released", "--sweep=1,2"):
        assert "--certain needs --protocol=paper" in fails(files, capsys, "--certain=0.5", flag)
    for value in ("-0.1", "1.1", "nan"):
        assert f"--certain={value} is not in 0…1" in fails(files, capsys, f"--certain={value}")


def test_evaluate_property_calibrations_change_confidences_alone(files):
    recordings = load_recordings(PROCEDURE, files / "labels", files / "asd", files / "temporal")
    settings = Settings(threshold=1.0, window=WINDOW)
    calibrated = {"asd": Calibration(0.5, -1.0, 0.01, 0.9)}
    plain = scoring.evaluate_recordings(PROCEDURE, recordings, settings)["streams"]
    other = scoring.evaluate_recordings(PROCEDURE, recordings, settings, calibrations=calibrated)[
        "streams"
    ]
    assert other["temporal"] == plain["temporal"]
    assert other["asd"]["reliability"]["ece"] > plain["asd"]["reliability"]["ece"] + 0.1
    for name, r in other["asd"]["recordings"].items():
        before = plain["asd"]["recordings"][name].pop("events")
        assert r.pop("events") == [[f, s, calibrated["asd"](c)] for f, s, c in before]
        assert r == plain["asd"]["recordings"][name]
    with pytest.raises(ValueError, match="calibrated in protocol 'paper' alone"):
        scoring.evaluate_recordings(
            PROCEDURE, recordings, settings, protocol="released", calibrations=calibrated
        )


def test_evaluate_property_reports_of_wrong_parts_change_no_other_figure(files, monkeypatch):
    put_wrong(files)
    plain, sweep = run(files, "--sweep=1,2"), batch.sweep
    more = [decoding.Event(frame, 4, 0.5, "asd", {}, "", 0.0) for frame in (3, 9)]
    monkeypatch.setattr(batch, "sweep", lambda *a, **k: [[*more, *e] for e in sweep(*a, **k)])
    reported = run(files, "--sweep=1,2")
    for stream, s in reported["streams"].items():
        assert s.pop("wrong")["false_alarms"] == 6
        assert plain["streams"][stream].pop("wrong")["false_alarms"] == 0
        # Their confidences count for reliability.
        judged = [x.pop("reliability")["bins"] for x in (s, plain["streams"][stream])]
        more_events = sum(b["events"] for b in judged[0]) - sum(b["events"] for b in judged[1])
        assert more_events == 6
        before = plain["streams"][stream].pop("recordings")
        for name, row in s.pop("recordings").items():
            events = [event for event in row.pop("events") if event[1] != 4]
            assert len(events) == len(before[name].pop("events")) > 0
            assert row.pop("wrong") != before[name].pop("wrong")
            assert row == before[name]
    assert reported == plain
    # Where the truth has the incorrect installations, such a report is an event like others.
    for name in ("01_assy_a", "02_assy_b", "07_main_c"):
        folder = files / "labels" / name
        steps = labels.read_steps(folder / "PSR_labels.csv", PROCEDURE)
        labels.write_steps(folder / "PSR_labels_with_errors.csv", [*steps, (2, 4)], PROCEDURE)
    scored = run(files, "--with_errors")["streams"]["asd"]
    assert scored["tp"] == plain["streams"]["asd"]["tp"] + 3
    assert scored["fp"] == plain["streams"]["asd"]["fp"] + 3


def test_evaluate_property_nothing_is_known_of_wrong_parts_without_states(files, capsys):
    for path in files.glob("labels/*/PSR_labels_raw.csv"):
        path.unlink()
    stream = run(files)["streams"]["asd"]
    assert stream["wrong"] is None
    assert all(r["wrong"] is None for r in stream["recordings"].values())
    assert "sit wrong" not in capsys.readouterr().out


def fails(files, capsys, *flags, **options):
    with pytest.raises(SystemExit) as error:
        evaluate.main(command(files, *flags, **options))
    assert error.value.code == 2
    said = capsys.readouterr().err
    assert re.fullmatch(r"error: [^\n]+\n", said)
    return said


def test_evaluate_errors_are_one_line_with_exit_code_2(files, capsys):
    assert "--threshold" in fails(files, capsys, "--threshold=asd=x")
    assert "--threshold" in fails(files, capsys, "--threshold=depth=1")
    assert "--threshold=-1" in fails(files, capsys, "--threshold=-1")
    assert "--removal" in fails(files, capsys, "--removal=asd=x")
    assert "--removal=-1" in fails(files, capsys, "--removal=-1")
    assert "no --removal" in fails(files, capsys, "--decoder=naive", "--removal=1")
    assert "--gate=2" in fails(files, capsys, "--gate=2")
    for flag in ("--removal=1", "--gate=0.8"):
        said = fails(files, capsys, "--protocol=released", flag)
        assert "--removal and --gate need --protocol=paper" in said
    assert "--decay=nan" in fails(files, capsys, "--decay=nan")
    assert "--fps=0" in fails(files, capsys, "--fps=0")
    assert "no predictions" in fails(files, capsys, streams=())
    assert "'nobody'" in fails(files, capsys, "--procedure=nobody")
    assert "is not a folder; --labels" in fails(files, capsys, "--labels=/nowhere")
    assert "/nowhere/out.json" in fails(files, capsys, "--out=/nowhere/out.json")
    assert "invalid choice" in fails(files, capsys, "--decoder=best")


def test_evaluate_errors_leave_no_recording_out(files, capsys):
    gone = files / "temporal" / "02_assy_b_results_pred.csv"
    content = gone.read_bytes()
    gone.unlink()
    assert "02_assy_b" in fails(files, capsys)
    gone.mkdir()
    assert "02_assy_b_results_pred.csv: cannot be read" in fails(files, capsys)
    gone.rmdir()
    gone.write_bytes(content + b"x,y\n")
    assert re.search(r"02_assy_b_results_pred\.csv: line \d+: framenr", fails(files, capsys))
    gone.write_bytes(content)
    (files / "asd" / "03_assy_z_results_pred.csv").write_text("name,frame,class,conf,x,y,w,h\n")
    assert "03_assy_z" in fails(files, capsys)
    (files / "labels" / "03_assy_z").mkdir()
    assert "03_assy_z: holds no labels" in fails(files, capsys, streams=("asd",))


def test_evaluate_property_same_result_from_python(files):
    settings = Settings(threshold=1.0, window=WINDOW)
    result = evaluate.evaluate(
        PROCEDURE, files / "labels", files / "asd", files / "temporal", settings=settings
    )
    text = json.dumps(result)
    assert json.loads(text) == run(files, "--threshold=1")
    with pytest.raises(ValueError, match="--protocol=other"):
        evaluate.evaluate(
            PROCEDURE, files / "labels", files / "asd", settings=settings, protocol="other"
        )


def test_evaluate_property_runs_without_jax(files):
    script = (
        "import sys\n"
        "blocked = ('jax', 'jaxlib', 'flax', 'grain', 'optax', 'orbax', 'tensorflow_datasets')\n"
        "sys.modules.update(dict.fromkeys(blocked))\n"  # None makes an import fail
        "import pkgutil, importlib, stormpsr_jax.psr\n"
        "for m in pkgutil.iter_modules(stormpsr_jax.psr.__path__, 'stormpsr_jax.psr.'):\n"
        "    importlib.import_module(m.name)\n"
        "from stormpsr_jax import evaluate\n"
        "evaluate.main(sys.argv[1:])\n"
    )
    # Protocol `paper` runs without JAX in the test of the report.
    arguments = command(files, "--protocol=released")
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "storm" in done.stdout


def test_evaluate_property_imports_no_jax(files):
    script = (
        "import sys, runpy\n"
        "sys.argv = ['evaluate', *sys.argv[1:]]\n"
        "runpy.run_module('stormpsr_jax.evaluate', run_name='__main__')\n"
        "heavy = {'jax', 'flax', 'grain', 'tensorflow_datasets', 'matplotlib'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *command(files)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_report_property_is_written_where_jax_cannot_be_imported(files):
    script = (
        "import sys\n"
        "blocked = ('jax', 'jaxlib', 'flax', 'grain', 'optax', 'orbax', 'tensorflow_datasets')\n"
        "sys.modules.update(dict.fromkeys(blocked))\n"
        "from stormpsr_jax import evaluate\n"
        "evaluate.main(sys.argv[1:])\n"
    )
    page = files / "report.html"
    flags = [f"--visibility={files / 'visibility'}", "--sweep=1,2", f"--report={page}"]
    done = subprocess.run(
        [sys.executable, "-c", script, *command(files, *flags)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    text = page.read_text(encoding="utf-8")
    for title in ("Delay", "F1 by tolerated delay", "Occlusion", "Outcome by step", "Threshold"):
        assert f"<h3>{title}</h3>" in text
    assert "Timeline of recording 07_main_c" in text
    assert (files / "out.json").exists()


def test_report_errors_are_one_line(files, capsys, monkeypatch):
    (files / "visibility" / "01_assy_a.csv").write_text("frame,visible\n")  # nothing is known
    visibility = f"--visibility={files / 'visibility'}"
    said = fails(files, capsys, visibility, "--report=/nowhere/report.html", streams=("asd",))
    assert "/nowhere/report.html: cannot be written" in said
    monkeypatch.setitem(sys.modules, "matplotlib.style", None)
    said = fails(files, capsys, f"--report={files / 'report.html'}")
    assert "needs matplotlib and jinja2" in said


def test_out_property_is_replaced_whole_or_not_at_all(files, capsys, monkeypatch):
    whole = run(files)
    assert not list(files.glob("*.part"))
    write = pathlib.Path.write_text

    def full_disk(path, text, **options):
        write(path, text[: len(text) // 2], **options)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pathlib.Path, "write_text", full_disk)
    assert "out.json: cannot be written (No space left" in fails(files, capsys, "--fps=5")
    assert json.loads((files / "out.json").read_text()) == whole
    assert not list(files.glob("*.part"))
    monkeypatch.undo()
    (files / "folder").mkdir()
    assert "folder: cannot be written" in fails(files, capsys, out="folder")


def show(capsys, *arguments):
    evaluate.main(list(map(str, arguments)))
    return capsys.readouterr().out


def test_tables_property_all_of_them_in_every_format(files, capsys):
    result = run(files, f"--visibility={files / 'visibility'}", "--sweep=0.5,1,2,8")
    capsys.readouterr()
    rows = result["streams"]["storm"]["sweep"]
    assert [row["threshold"] for row in rows] == [0.5, 1, 2, 8]
    assert rows[1]["f1"] == result["streams"]["storm"]["f1"]
    text = show(capsys, "tables", files / "out.json")
    for name in (
        *("summary", "recordings", "steps", "delays", "tolerance", "occlusion", "sweep"),
        "reliability",
    ):
        assert f"\n{name}\nstream " in text
        for form in ("text", "csv", "markdown", "latex"):
            table = show(
                capsys, "tables", files / "out.json", f"--table={name}", f"--format={form}"
            )
            assert table.count("storm") >= 1
    assert "Install front chassis" in text
    recordings = result["streams"]["asd"]["recordings"]
    for r in recordings.values():
        assert len(r["visible"]) == len(r["truth"])
        assert all(0 <= v <= 1 for v in r["visible"])


def test_compare_property_streams_and_files(files, capsys):
    run(files)
    late = files / "late.json"
    evaluate.main([*command(files, "--threshold=3"), f"--out={late}"])
    capsys.readouterr()
    text = show(capsys, "compare", files / "out.json", late, "--samples=200")
    assert text.count("common_delay_s") == 3
    text = show(capsys, "compare", late, late, "--streams=asd,storm", "--format=csv")
    row = dict(
        zip(
            text.splitlines()[0].split(","),
            next(x for x in text.splitlines() if ",delay_s," in x).split(","),
            strict=True,
        )
    )
    assert float(row["difference"]) < 0
    for arguments, message in [
        (["compare", files / "out.json"], "required: b"),
        (["compare", files / "out.json", files / "nothing.json"], "nothing.json: cannot be read"),
        (["compare", late, late, "--streams=asd"], "--streams=asd does not name two"),
        (["tables", files / "labels"], "cannot be read"),
    ]:
        with pytest.raises(SystemExit) as error:
            evaluate.main(list(map(str, arguments)))
        assert error.value.code == 2
        said = capsys.readouterr().err
        assert message in said
        assert said.count("\n") == 1


def test_sweep_errors(files, capsys):
    assert "--threshold=-1" in fails(files, capsys, "--sweep=1,-1")
    assert "'1,x'" in fails(files, capsys, "--sweep=1,x")
    assert "--sweep needs" in fails(files, capsys, "--sweep=1", "--protocol=released")


# --- The learned fusion ---------------------------------------------------------------------------


@pytest.fixture
def scored(tmp_path):
    """Labels, predictions and scores of made-up recordings."""
    for kind in ("labels", "asd", "temporal", "scores"):
        (tmp_path / kind).mkdir()
    for seed in range(2):
        r = simulate(seed)
        (tmp_path / "labels" / r.name).mkdir()
        path = tmp_path / "labels" / r.name / "PSR_labels_raw.csv"
        labels.write_states(path, r.frames, r.states)
        scores.write_scores(tmp_path / "scores" / f"{r.name}.npz", r.scores)
        predictions.write_detections(
            tmp_path / "asd" / f"{r.name}_results_pred.csv",
            r.name,
            predictions.Detections(
                r.scores.frames,
                r.scores.states.argmax(1) + 1,
                np.exp(r.scores.states.max(1)) / (1 + np.exp(-r.scores.objectness)),
                np.zeros((len(r.scores.frames), 4)),
            ),
        )
        changed = 1 / (1 + np.exp(-r.scores.temporal[:, :11]))
        whole = np.zeros(changed.shape, int)
        predictions.write_temporal(
            tmp_path / "temporal" / f"{r.name}_results_pred.csv",
            r.name,
            predictions.TemporalPredictions(r.scores.frames, whole, whole, changed),
        )
    return tmp_path


def learned_run(folder, *flags, streams=("asd", "temporal")):
    evaluate.main(
        [
            "--procedure=synthetic",
            f"--labels={folder / 'labels'}",
            *(f"--{s}={folder / s}" for s in streams),
            f"--out={folder / 'out.json'}",
            *flags,
        ]
    )
    return json.loads((folder / "out.json").read_text())["streams"]


def test_learned_property_scores_add_a_stream_and_change_no_other(scored):
    before = learned_run(scored)
    after = learned_run(scored, f"--scores={scored / 'scores'}")
    assert list(after) == ["asd", "temporal", "storm", "learned"]
    assert {s: after[s] for s in before} == before
    assert after["learned"]["f1"] > 0.8
    assert after["learned"]["settings"] == {
        **{"install": 2.0, "wrong": 2.0, "remove": -4.0},
        "rho": 0.1,
    }
    alone = learned_run(scored, f"--scores={scored / 'scores'}", streams=())
    assert alone == {"learned": after["learned"]}


def test_learned_property_events_are_those_of_decode_and_threshold_is_install(scored):
    found = learned_run(scored, f"--scores={scored / 'scores'}", "--threshold=learned=6")
    settings = learned.Settings(install=6.0)
    assert found["learned"]["settings"]["install"] == 6.0
    for seed in range(2):
        r = simulate(seed)
        said = scores.read_scores(scored / "scores" / f"{r.name}.npz", SYNTHETIC)
        weights = learned_weights.default_weights("scores")
        events = learned.decode(SYNTHETIC, r.variant, said, settings, weights)
        got = found["learned"]["recordings"][r.name]["events"]
        assert got == [[e.frame, e.step_id, e.confidence] for e in events]


def test_learned_property_without_scores_it_reads_the_predictions_if_asked(scored):
    found = learned_run(scored, "--fusion=default", f"--report={scored / 'report.html'}")
    assert found["learned"]["f1"] > 0.5
    assert "Beliefs of the learned fusion" in (scored / "report.html").read_text()
    arrays = learned_weights.default_weights("csv").to_json()
    arrays["arrays"]["offset"] = [-900.0, 0.0]  # nothing is ever there
    (scored / "w.json").write_text(json.dumps(arrays))
    found = learned_run(scored, f"--fusion={scored / 'w.json'}")
    assert found["learned"]["tp"] == 0


def test_learned_errors_options_that_do_not_fit_and_files(scored, capsys):
    folder = f"--scores={scored / 'scores'}"
    for flags, what in (
        ((folder, "--protocol=released"), "--protocol=paper"),
        ((folder, "--decoder=confidence"), "--decoder=expected"),
        ((f"--scores={scored / 'none'}",), "--scores takes one"),
        ((f"--fusion={scored / 'none'}",), "cannot be read"),
        ((folder, "--gate=learned=1"), "--gate: stream learned has none"),
    ):
        with pytest.raises(SystemExit):
            learned_run(scored, *flags)
        assert what in capsys.readouterr().err
    with pytest.raises(SystemExit):
        learned_run(scored, "--fusion=default", streams=("asd",))
    assert "--fusion needs --scores, or --asd and --temporal" in capsys.readouterr().err
    (scored / "scores" / "r0.npz").write_bytes(b"nothing")
    (scored / "scores" / "r1.npz").unlink()
    with pytest.raises(SystemExit):
        learned_run(scored, folder)
    assert "no r1.npz for the recording r1" in capsys.readouterr().err
