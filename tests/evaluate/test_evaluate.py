"""The command: files in, metrics.json out; wrong input; no JAX."""

import json
import pathlib
import re
import sys

import pytest

from stormpsr_jax import evaluate
from stormpsr_jax.psr.streams.rules import Settings
from tests.support.evaluate_data import PROCEDURE, WINDOW, command, fails, make_files, run
from tests.support.processes import finish, start


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
    assert "storm" in capsys.readouterr().out


def test_evaluate_thresholds_per_stream_and_fps_and_variant(files):
    slow = run(files, "--fps=5")
    fast = run(files)
    for stream in fast["streams"]:
        assert slow["streams"][stream]["delay_s"] == 2 * fast["streams"][stream]["delay_s"]
    with pytest.raises(SystemExit):
        run(files, "--variant=nothing")
    assert run(files, "--variant=assembly")["streams"]["asd"]["fn"] > fast["streams"]["asd"]["fn"]


def test_evaluate_removals_and_gate_per_stream(files):
    plain = run(files, "--decoder=confidence")
    flags = ("--removal=asd=1.5,temporal=1,storm=1", "--gate=0.5")
    same = run(files, "--decoder=confidence", *flags)
    flags = ("--decoder=confidence", "--removal=asd=1e6", "--gate=temporal=0.95")
    # What the procedure expects needs no more evidence than before.
    expected = run(files, *flags)["streams"]["asd"]
    assert expected["recordings"] == plain["streams"]["asd"]["recordings"]
    without = PROCEDURE.to_json()
    variant = without["variants"]["maintenance"]
    variant["expected"] = [step for step in variant["expected"] if step % 3 == 0]
    (files / "without.json").write_text(json.dumps(without))
    never = run(files, *flags, f"--procedure={files / 'without.json'}")
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


def test_evaluate_a_decay_of_frames_that_show_nothing(files):
    plain, kept = run(files), run(files, "--unseen_decay=1")
    assert "unseen_decay" not in plain["streams"]["asd"]["settings"]
    assert kept["streams"]["asd"]["settings"]["unseen_decay"] == 1
    # Every other frame has a detection, and T is 1.5.
    assert kept["streams"]["asd"]["delay_s"] < plain["streams"]["asd"]["delay_s"]
    assert kept["streams"]["temporal"]["recordings"] == plain["streams"]["temporal"]["recordings"]


def test_evaluate_absent_streams_are_said(files, capsys):
    assert list(run(files, streams=("asd",))["streams"]) == ["asd"]
    said = capsys.readouterr().err
    assert "no temporal stream: --temporal is not given" in said
    assert "no storm stream" in said
    assert list(run(files, "--decoder=naive")["streams"]) == ["asd", "temporal"]
    assert "no storm stream: the naive decoder has no fused one" in capsys.readouterr().err


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


def test_evaluate_released_names_a_recording_without_steps_once(files, capsys):
    (files / "labels" / "02_assy_b" / "PSR_labels.csv").write_text("")
    said = fails(files, capsys, "--protocol=released")
    assert said == (
        "error: recording '02_assy_b': no ground-truth steps in PSR_labels.csv: take "
        "--protocol=paper"
    )


def test_evaluate_order_of_recordings_changes_nothing(tmp_path):
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
    said = fails(files, capsys, "--protocol=released", "--unseen_decay=1")
    assert "--unseen_decay needs --protocol=paper" in said
    assert "has no --unseen_decay" in fails(files, capsys, "--decoder=naive", "--unseen_decay=1")
    assert "--decay=nan" in fails(files, capsys, "--decay=nan")
    assert "--fps=0" in fails(files, capsys, "--fps=0")
    assert "no predictions" in fails(files, capsys, streams=())
    assert "'nobody'" in fails(files, capsys, "--procedure=nobody")
    assert "is not a folder; --labels takes one, or a zip file" in fails(
        files, capsys, "--labels=/nowhere"
    )
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


def test_evaluate_same_result_from_python(files):
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


def test_evaluate_runs_without_jax(files):
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
    (said,) = finish(start([sys.executable, "-c", script, *arguments]))
    assert "storm" in said


def test_evaluate_imports_no_jax(files):
    script = (
        "import sys, runpy\n"
        "sys.argv = ['evaluate', *sys.argv[1:]]\n"
        "runpy.run_module('stormpsr_jax.evaluate', run_name='__main__')\n"
        "heavy = {'jax', 'flax', 'grain', 'tensorflow_datasets', 'matplotlib'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)\n"
    )
    finish(start([sys.executable, "-c", script, *command(files)]))


def test_out_is_replaced_whole_or_not_at_all(files, capsys, monkeypatch):
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
