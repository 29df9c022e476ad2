"""A stage describes itself: another one is a file of its own and a line in the list."""

import pytest

from stormpsr_jax import main
from stormpsr_jax.base import files, results
from stormpsr_jax.stages import order
from stormpsr_jax.stages.stage import Reads, Stage
from tests.support.tiny import tiny


def count_frames(context):
    """A stage that writes how many frames each split has, and the seed."""
    counts = {
        split: sum(r.num_frames for r in context.source(split).recordings.values())
        for split in ("train", "test")
    }
    folder = context.workdir / "count"
    files.write_json(folder / "counts.json", {**counts, "seed": context.config.seed})
    return {"splits": len(counts)}


def too_high(context):
    seed = context.config.seed
    return [f"--config.seed={seed}: is too high to count"] if seed > 100 else []


COUNT = Stage(
    name="count",
    run=count_frames,
    fields=("seed",),
    reads=lambda _: [Reads(("states",), ("train", "test"))],
    results=("count/counts.json",),
    check=too_high,
    show=lambda context: print((context.workdir / "count" / "counts.json").read_text()),
)
LATER = Stage(
    name="later",
    run=lambda _: {},
    fields=(),
    after=lambda _: (COUNT,),
)


@pytest.fixture
def run(finished, tmp_path, monkeypatch, capsys):
    """Runs the new stages on finished pictures; returns what they say."""
    monkeypatch.setattr(order, "STAGES", (*order.STAGES, COUNT, LATER))

    def run(stages=("count", "later"), **changes):
        config = tiny(**{"stages": stages, "data.dir": str(finished / "data"), **changes})
        main.run(config, tmp_path / "run")
        return capsys.readouterr()

    run.folder = tmp_path / "run"
    return run


def test_a_finished_folder_that_is_given_is_trained_on_as_it_is(run, finished):
    said = run(("data", "count"), **{"data.synthetic.seed": 7}).out
    assert f"data: {finished / 'data'} is trained on as it is" in said
    assert "data …" not in said
    assert results.read(run.folder / "count").facts == {"splits": 2}


def test_a_new_stage_is_made_once_and_again_after_a_change(run):
    said = run()
    assert "count …" in said.out
    assert '"test"' in said.out  # what it shows
    record = results.read(run.folder / "count")
    assert record.facts == {"splits": 2}
    assert record.made_from["config"] == {"seed": 0}
    assert record.made_from["data"].keys() == {"states of split train", "states of split test"}
    assert record.results.keys() == {"count/counts.json"}
    made = run().out
    assert "count: done before" in made
    assert "later: done before" in made
    said = run(seed=7)
    assert "count: made again (seed 0 → 7)" in said.out
    assert "later: made again (another result of count)" in said.out
    assert files.read_json(run.folder / "count" / "counts.json")["seed"] == 7


def test_a_new_stage_s_errors_are_told_before_it_runs(run, monkeypatch):
    with pytest.raises(ValueError, match=r"^--config\.seed=101: is too high to count$"):
        run(seed=101)
    with pytest.raises(ValueError, match="stage 'later' takes the result of 'count'"):
        run(stages=("later",))
    with pytest.raises(ValueError, match="out of order, or given twice; write count, later"):
        run(stages=("later", "count"))
    monkeypatch.undo()
    with pytest.raises(
        ValueError, match=r"names \['count', 'later'\]; known are data, .*evaluate$"
    ):
        run()
