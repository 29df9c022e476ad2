import dataclasses
import json
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from stormpsr_jax import load_model, main
from stormpsr_jax.data.clips import ClipSource
from stormpsr_jax.psr.events import reports
from stormpsr_jax.stages import evaluate as evaluate_stage
from tests.support import run_table
from tests.support.digests import digests
from tests.support.processes import finish, start
from tests.support.tiny import TRAINED, command, tiny


def test_run_everything_promised_is_there(finished):
    metrics = json.loads((finished / "metrics.json").read_text())
    assert metrics["protocol"] == "paper"
    assert metrics["code"].keys() == {"version", "digest"}
    assert {"Python", "jax", "flax", "numpy", "device", "commit"} <= metrics["environment"].keys()
    model = json.loads((finished / "model" / "model.json").read_text())
    assert model["origin"]["code"] == metrics["code"]
    assert set(metrics["streams"]) == {"asd", "temporal", "storm", "learned"}
    for name, stream in metrics["streams"].items():
        assert set(stream["recordings"]) == {"test_000", "test_001"}
        fields = {"threshold", "confidence", "weight"} if name != "learned" else {"install", "rho"}
        assert fields <= stream["settings"].keys()
    assert set(metrics["validation"]) == set(metrics["streams"])
    assert metrics["validation"]["learned"]["recordings"].keys() == {"val_000", "val_001"}
    report = (finished / "report.html").read_text()
    assert "<svg" in report
    detections = json.loads((finished / "detections.json").read_text())
    assert detections["recordings"] == ["test_000", "test_001"]
    assert sum(row["boxes"] for row in detections["classes"]) == detections["boxes"] > 0
    assert 0 <= detections["map_all"] <= detections["map"] <= 1
    rows = np.array(detections["confusion"]).sum(axis=1)
    assert rows[1:].tolist() == [row["boxes"] for row in detections["classes"]]
    assert "Detections, frame by frame" in report
    done = json.loads((finished / "evaluate" / "record.json").read_text())
    assert "boxes of split test" in done["made_from"]["data"]  # other boxes score anew
    assert "detections.json" in " ".join(done["results"])
    for split in ("val", "test"):
        for stream in ("asd", "temporal"):
            names = sorted(p.name for p in (finished / "predictions" / split / stream).iterdir())
            assert names == [f"{split}_00{i}_results_pred.csv" for i in range(2)]
        names = sorted(p.name for p in (finished / "predictions" / split / "scores").iterdir())
        assert names == [f"{split}_00{i}.npz" for i in range(2)]
        visibility = (
            finished / "predictions" / split / "visibility" / f"{split}_000.csv"
        ).read_text()
        assert visibility.startswith("frame,visible\n")


def test_run_again_changes_nothing(finished, capsys):
    before = digests(finished)
    start = time.monotonic()
    main.run(tiny(), finished)
    assert time.monotonic() - start < 30
    assert digests(finished) == before
    assert "storm" in capsys.readouterr().out  # the table


def test_live_recognises_exactly_what_metrics_json_says(finished):
    """Picture by picture, and where it goes on from a saved state, at twenty random frames.

    That whole recordings have the same events, tests/serving/test_live.py shows.
    """
    model = load_model(finished / "model")
    metrics = json.loads((finished / "metrics.json").read_text())
    source = ClipSource(finished / "data", "test", model.procedure)
    rng, events, cuts = np.random.default_rng(0), 0, 0
    assert set(model.streams) == set(metrics["streams"])
    for stream, found in metrics["streams"].items():
        assert model.figures[stream]["test"]["f1"] == found["f1"]
        for name, recording in found["recordings"].items():
            pictures = np.concatenate([*source.chunks(name, 50)])
            first, count = source.recordings[name].first_frame, len(pictures)
            cut_at = {0, *rng.integers(1, count, 4).tolist()}
            live, told = model.live(stream=stream, recording=name), []
            for i, picture in enumerate(pictures):
                if i in cut_at:
                    state = json.loads(json.dumps(live.state()))
                    live = model.live(stream=stream, recording=name)
                    live.restore(state)
                    cuts += 1
                told += reports(live.update(picture, i / model.fps))
            told = [[first + e.frame, e.step_id, e.confidence] for e in told]
            assert told == recording["events"]
            events += len(told)
    assert events > 10
    assert cuts >= 20
    assert model.origin["config"]["temporal.steps"] == 12
    assert model.origin["made_from"]["predict"]["stages"].keys() == {
        *("detector", "finetune"),
    }


def test_recognise_gives_what_the_table_says(finished, tmp_path):
    run_table.check(finished, finished / "data", tmp_path)


def test_training_never_reads_the_test_split(finished):
    hidden = finished / "hidden"
    for stage in TRAINED:
        assert (finished / stage / "record.json").stat().st_mtime_ns < hidden.stat().st_mtime_ns
    assert list((finished / "data").glob("clips-test*"))


def test_thresholds_come_from_validation_alone_and_the_papers_are_told_beside(
    finished, tmp_path, monkeypatch
):
    seen = set()
    select = evaluate_stage.select

    def spy(procedure, recordings, base, choose, *rest):
        seen.update(recordings)
        found = select(procedure, recordings, base, choose, *rest)
        if choose == "validation":  # two recordings are too few to choose anything else
            settings = dataclasses.replace(found["asd"].settings, threshold=0.5)
            found["asd"] = dataclasses.replace(found["asd"], settings=settings)
        return found

    monkeypatch.setattr(evaluate_stage, "select", spy)
    shutil.copytree(finished, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "evaluate")
    main.run(tiny(**{"evaluate.risk": 0.2}), tmp_path / "run")
    assert seen == {"val_000", "val_001"}
    report = (tmp_path / "run/report.html").read_text()
    for text in (report, (tmp_path / "run/model/README.md").read_text()):
        assert "so a risk of 0.2 is not guaranteed for this product" in text
    result = json.loads((tmp_path / "run/metrics.json").read_text())
    before = json.loads((finished / "metrics.json").read_text())
    assert result["streams"]["asd"]["settings"]["threshold"] == 0.5
    # Of the others nothing but the paper's can be chosen.
    assert list(result["paper_settings"]) == ["asd"]
    assert result["paper_settings"]["asd"]["settings"].get("unseen_decay") is None
    assert before["streams"]["asd"]["settings"]["unseen_decay"] == 1
    assert before["paper_settings"] == result["paper_settings"]


def test_killed_in_stages_of_every_kind_same_result(finished, tmp_path):
    stages = ("data", "pretrain", "embed", "temporal", "predict")
    words, env = command(tmp_path / "run")
    marks = {
        "data": "data/clips-*",
        "embed": "embed/*/*",
        "predict": "predictions/*/*/*",
        **{stage: f"{stage}/checkpoints/[0-9]*" for stage in ("pretrain", "temporal")},
    }
    killed = set()
    for _ in range(len(stages)):
        options = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
        process = start(words, env=env, **options)
        while process.poll() is None and len(killed) < len(stages):
            begun = {s for s in stages if next((tmp_path / "run").glob(marks[s]), None)}
            if begun - killed:
                process.send_signal(signal.SIGKILL)
                killed |= begun
            time.sleep(0.02)
        _, errors = process.communicate()
        assert process.returncode in (0, -signal.SIGKILL), errors[-3000:]
    finish(start(words, env=env))
    assert len(killed) == len(stages)
    ours, theirs = (
        json.loads((f / "metrics.json").read_text()) for f in (tmp_path / "run", finished)
    )
    assert ours == theirs


def test_a_stage_that_was_stopped_and_starved_comes_to_the_same_bytes(finished, tmp_path):
    run, best = tmp_path / "run", "temporal/best.safetensors"
    for name in ("data", "pretrain", "embed"):
        shutil.copytree(finished / name, run / name)
    words, env = command(run, {"stages": ("data", "pretrain", "embed", "temporal")})
    for sent, status in ((signal.SIGTERM, 75), (signal.SIGINT, 130)):
        process = start(words, env=env)
        assert "temporal …\n" in iter(process.stdout.readline, "")
        process.send_signal(sent)
        said = process.communicate(timeout=100)[0]
        assert process.returncode == status, said
        assert "Traceback" not in said
    process = start(["bash", "-c", 'ulimit -f 16; exec "$@"', "-", *words], env=env)
    said = process.communicate(timeout=100)[0]
    assert process.returncode == 1, said
    assert "Traceback" not in said
    assert "error: " in said
    finish(start(words, env=env))
    assert (run / best).read_bytes() == (finished / best).read_bytes()


def test_cad_folder_is_used_and_must_fit(finished, tmp_path):
    """Clean renders of another folder train the encoder as those beside the recordings do."""
    without = tmp_path / "without"
    shutil.copytree(finished / "data", without)
    for path in [*without.glob("clips-cad*"), without / "labels" / "cad.npz"]:
        path.unlink()
    settings = json.loads((without / "settings.json").read_text())
    del settings["splits"]["cad"]
    (without / "settings.json").write_text(json.dumps(settings))
    changes = {"data.dir": str(without), "stages": ("pretrain",)}
    with pytest.raises(ValueError, match="has no split 'cad'"):
        main.run(tiny(**changes), tmp_path / "a")
    main.run(tiny(**changes, **{"data.cad_dir": str(finished / "data")}), tmp_path / "b")
    best = Path("pretrain") / "best.safetensors"
    assert (tmp_path / "b" / best).read_bytes() == (finished / best).read_bytes()
