"""Trained stages go on from their old weights when the data have changed: --remake=continue."""

import contextlib
import io
import json
import os
import shutil
from types import SimpleNamespace

import numpy as np
import pytest

from stormpsr_jax import main
from stormpsr_jax.base import results
from stormpsr_jax.base.results import Record, Training
from stormpsr_jax.stages import order, pretrain, remaking
from stormpsr_jax.stages.context import Context
from stormpsr_jax.training.checkpoint import BEST, save_best
from stormpsr_jax.training.sharding import make_mesh
from tests.support import shards_data
from tests.support.arrays import rewrite
from tests.support.digests import digests
from tests.support.tiny import tiny

STAGES = ("data", "pretrain", "embed", "temporal", "predict", "evaluate")
TRAINED = ("pretrain", "temporal")


@pytest.fixture
def changed(finished, tmp_path):
    """A copy of a finished run in whose data a label has been corrected."""
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)

    def corrected(states):
        states[5, 0] = 1 - states[5, 0]
        return states

    rewrite(folder / "data" / "labels" / "train.npz", states=corrected)
    return folder


def run(folder, remake="continue", **changes) -> str:
    with contextlib.redirect_stdout(io.StringIO()) as said:
        main.run(tiny(**changes), folder, remake=remake)
    return said.getvalue()


def test_stages_go_on_from_their_weights_and_say_what_these_saw(changed):
    before = {stage: (changed / stage / BEST).read_bytes() for stage in TRAINED}
    with pytest.raises(ValueError, match="throw the weights") as caught:
        run(changed, remake="", stages=STAGES)
    then = "then embed, predict, evaluate would be made again; give --remake=continue"
    assert then in str(caught.value)
    said = run(changed, stages=STAGES)
    seen = {
        split: [f"{split}_{i:03d}" for i in range(n)] for split, n in [("train", 3), ("val", 2)]
    }
    for stage in TRAINED:
        assert f"{stage}: goes on from its weights for 4 steps (" in said
        assert (changed / stage / remaking.START).read_bytes() == before[stage]
        record = results.read(changed / stage)
        assert record.facts["steps"] == 4
        last = record.trained[-1]
        assert last.steps == record.facts["best_step"] in (0, 2, 4)  # of the weights handed on
        assert len(record.trained) == 2
        for one in record.trained:
            assert {split: one.recordings[split] for split in seen} == seen
        first = json.loads((changed / stage / "metrics.jsonl").read_text().splitlines()[0])
        assert first["step"] == 0  # the old weights, judged by the new data
    model = json.loads((changed / "model/model.json").read_text())
    assert model["origin"]["trained"].keys() == set(TRAINED)
    steps = [one.steps for one in results.read(changed / "temporal").trained]
    assert (
        f"* temporal was trained {steps[0]} steps on 5 recordings, then {steps[1]} steps on 5"
        in (changed / "model/README.md").read_text()
    )
    # A damaged result is made again in the same way, and an interrupted training goes on in it.
    made = (changed / "temporal" / BEST).read_bytes()
    (changed / "temporal" / BEST).write_bytes(b"")
    said = run(changed, remake="", stages=STAGES)
    assert "temporal: goes on from its weights for 4 steps (temporal/best" in said
    assert "predict: done before" in said
    assert (changed / "temporal" / BEST).read_bytes() == made


def test_stages_do_not_go_on_where_more_has_changed_or_test_recordings_were_seen(changed):
    record = results.read(changed / "temporal")
    record.trained[0].recordings["train"] += ["test_001"]
    record.trained[0].recordings["train"][0] = "bench_01"
    results.write(changed / "temporal", record)
    before = digests(changed)
    with pytest.raises(ValueError, match="throw the weights") as caught:
        run(changed, remake="")
    text = str(caught.value)
    assert "new in split train: train_000; gone in split train: bench_01, test_001" in text
    assert text.count("bench_01") == 1  # the other stages saw what there is
    with pytest.raises(ValueError, match="--remake=continue") as caught:
        run(changed, **{"pretrain.t_f": 9.0})
    pretraining, scored = str(caught.value).splitlines()
    assert "'pretrain' has other things changed than its data (pretrain.t_f 10.0 →" in pretraining
    assert "of stage 'temporal' saw test_001 in split train, and now it is in test" in scored
    assert digests(changed) == before


def stage_folder(folder):
    """The folder of a finished stage, and the record of its next training."""
    (folder / "checkpoints/12").mkdir(parents=True)
    for name in (BEST, "metrics.jsonl", "checkpoints/12/state"):
        (folder / name).write_text(name)
    trained = [Training(12, {})]
    results.write(folder, Record({"data": {"a": "1"}}, trained, {}))
    return Record({"data": {"a": "2"}}, trained * 2)


def test_old_weights_are_not_lost_wherever_the_change_is_stopped(tmp_path, monkeypatch):
    calls = [None] * 99  # nothing stops yet

    def stopping(operation):
        def call(*args, **kwargs):
            calls.append(args)
            if len(calls) == number + 1:
                raise KeyboardInterrupt
            return operation(*args, **kwargs)

        return call

    paths = SimpleNamespace(rmtree=stopping(shutil.rmtree), copyfile=stopping(shutil.copyfile))
    monkeypatch.setattr(remaking, "shutil", paths)
    monkeypatch.setattr(os, "unlink", stopping(os.unlink))
    monkeypatch.setattr(os, "replace", stopping(os.replace))
    ended, number = False, 0
    while not ended:
        folder = tmp_path / str(number)
        now = stage_folder(folder)
        calls.clear()
        try:
            remaking.begin(folder, folder / BEST, now)
            ended = True
        except KeyboardInterrupt:
            pass
        calls.extend([None] * 99)  # nothing else stops
        read = results.read(folder)
        if read.results is not None:
            assert read.made_from["data"] == {"a": "1"}
            assert (folder / BEST).read_text() == BEST
            remaking.begin(folder, folder / BEST, now)
        assert results.read(folder).made_from == now.made_from
        assert (folder / remaking.START).read_text() == BEST
        assert not (folder / "checkpoints").exists()
        number += 1
    assert number > 5


@pytest.mark.parametrize("remake", ["", "continue"])
def test_kept_weights_are_not_scored_on_what_an_earlier_training_saw(tmp_path, remake):
    def context(number, stages=("pretrain", "embed"), **splits):
        data = tmp_path / str(number)
        if not data.exists():
            shards_data.build(data, splits=splits)
        fields = {"procedure": "", "data.dir": str(data), "stages": stages}
        config = tiny(**fields, **{"pretrain.cad_per_state": 0})
        return Context(config, tmp_path / "run", make_mesh(1, 1))

    def check(context, remake):
        remaking.check(context, order.chosen(context), remake)

    stage = pretrain.STAGE
    finish(context(1, train=["a", "b"], val=["c"], test=["d"]), stage, remake)
    now = context(2, train=["b"], val=["c"], test=["d"])
    finish(now, stage, "continue")
    assert len(results.read(tmp_path / "run" / "pretrain").trained) == 2
    check(now, remake)
    back = context(3, train=["b"], val=["c"], test=["a", "d"])
    saw = "weights of stage 'pretrain' saw a in split train, and now it is in test; give --remake"
    for stages in (("pretrain", "embed"), ("embed",)):
        with pytest.raises(ValueError, match=saw):
            check(context(3, stages), remake)
    with pytest.raises(ValueError, match=saw):
        remaking.prepare(back, stage, remake, ())
    with pytest.raises(ValueError, match=saw):  # of a stage that is left out and kept
        check(context(3, ("embed",)), "anew")
    check(back, "anew")
    assert not remaking.prepare(back, stage, "anew", ())
    assert len(results.read(tmp_path / "run" / "pretrain").trained) == 1


def finish(context, stage, remake):
    """Makes a stage as a run does, but for its training."""
    context.workdir.mkdir(exist_ok=True)
    assert not remaking.prepare(context, stage, remake, ())
    save_best(context.workdir / stage.name, {"w": np.zeros(2)}, {})
    remaking.finish(context, stage, {"best_step": 12})
