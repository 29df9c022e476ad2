import jax
import pytest

from stormpsr_jax import main
from stormpsr_jax.base import files, results
from stormpsr_jax.stages import order, run
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


COUNT = Stage(
    name="count",
    run=count_frames,
    fields=("seed",),
    reads=lambda _: [Reads(("states",), ("train", "test"))],
    results=("count/counts.json",),
    show=lambda context: print((context.workdir / "count" / "counts.json").read_text()),
)
LATER = Stage(
    name="later",
    run=lambda _: {},
    fields=(),
    after=lambda _: (COUNT,),
)


def test_a_new_stage_is_made_once_and_again_after_a_change(finished, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(order, "STAGES", (*order.STAGES, COUNT, LATER))

    def run(**changes):
        stages = ("data", "count", "later")
        config = tiny(**{"stages": stages, "data.dir": str(finished / "data"), **changes})
        main.run(config, tmp_path / "run")
        return capsys.readouterr().out

    said = run(**{"data.synthetic.seed": 7})
    assert f"data: {finished / 'data'} is trained on as it is" in said
    assert "data …" not in said
    assert "count …" in said
    assert '"test"' in said  # what it shows
    record = results.read(tmp_path / "run" / "count")
    assert record.facts == {"splits": 2}
    assert record.made_from["config"] == {"seed": 0}
    assert record.made_from["data"].keys() == {"states of split train", "states of split test"}
    assert record.results.keys() == {"count/counts.json"}
    made = run()
    assert "count: done before" in made
    assert "later: done before" in made
    said = run(seed=7)
    assert "count: made again (seed 0 → 7)" in said
    assert "later: made again (another result of count)" in said
    assert files.read_json(tmp_path / "run" / "count" / "counts.json")["seed"] == 7
    with pytest.raises(ValueError, match="stage 'later' takes the result of 'count'"):
        main.run(tiny(stages=("later",), **{"data.dir": str(finished / "data")}), tmp_path / "b")


def test_compiled_programs_are_kept_for_the_user_unless_jax_was_told_where(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    before = jax.config.jax_compilation_cache_dir
    try:
        for told, kept in (("mine", "mine"), (None, str(tmp_path / "stormpsr_jax/compiled"))):
            jax.config.update("jax_compilation_cache_dir", told)
            run._keep_compiled()
            assert jax.config.jax_compilation_cache_dir == kept
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
