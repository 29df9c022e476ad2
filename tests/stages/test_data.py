from types import SimpleNamespace

from data_prep import stage as data
from data_prep import synthetic as rendering
from data_prep.worlds import worlds
from stormpsr_jax.base import results
from stormpsr_jax.configs import synthetic
from stormpsr_jax.stages import provenance
from stormpsr_jax.stages.context import Context


def test_run_renders_what_the_config_says(tmp_path, monkeypatch):
    told = {}
    monkeypatch.setattr(rendering, "make_dataset", lambda out, **options: told.update(options))
    config = synthetic.get_config()
    numbers = {"cad_per_state": 3, "cad_wrong": 5, "error_recordings": 7, "seed": 11, "size": 24}
    numbers["error_recordings_step"] = 2
    for name, value in numbers.items():
        config.data.synthetic[name] = value
    data.run(SimpleNamespace(config=config, data_dir=tmp_path))
    assert {name: told[name] for name in numbers} == numbers
    of_product = {"meshes", "poses", "up", "product_seed"}
    of_world = {"looks", "views", "backgrounds"}
    fields = set(config.data.synthetic) - of_product - of_world
    assert told.keys() == fields | {"of"}
    assert told["of"] is None  # the toy
    assert told["world"] == worlds.TOY
    config.data.synthetic.world = "bench"
    config.data.synthetic.looks = "upper"
    config.data.synthetic.views = ("overhead",)
    data.run(SimpleNamespace(config=config, data_dir=tmp_path))
    expected = worlds.chosen("bench", looks="upper", views=["overhead"])
    assert told["world"] == expected


def test_record_has_what_is_in_the_folders_that_are_named(tmp_path):
    labels, bench = tmp_path / "labels/train/x/PSR_labels_raw.csv", tmp_path / "bench/a.jpg"
    for path in (labels, bench):
        path.parent.mkdir(parents=True)
        path.write_text("1")
    config = synthetic.get_config()
    context = Context(config, tmp_path / "run", mesh=None)
    assert provenance.made_from(context, data.STAGE)["files"] == {}
    config.data.synthetic.timelines = str(tmp_path / "labels")
    config.data.synthetic.backgrounds = str(tmp_path / "bench")
    before = provenance.made_from(context, data.STAGE)
    assert results.differences(before, provenance.made_from(context, data.STAGE)) == []
    bench.write_text("22")
    labels.rename(labels.parent / "more.csv")
    now = provenance.made_from(context, data.STAGE)
    assert results.differences(before, now) == ["other backgrounds", "other timelines"]
