from types import SimpleNamespace

from data_prep import stage as data
from data_prep import synthetic as rendering
from data_prep.worlds import worlds
from stormpsr_jax.configs import synthetic


def test_run_renders_what_the_config_says(tmp_path, monkeypatch):
    told = {}
    monkeypatch.setattr(rendering, "make_dataset", lambda out, **options: told.update(options))
    config = synthetic.get_config()
    numbers = {"cad_per_state": 3, "cad_wrong": 5, "error_recordings": 7, "seed": 11, "size": 24}
    for name, value in numbers.items():
        config.data.synthetic[name] = value
    data.run(SimpleNamespace(config=config, data_dir=tmp_path))
    assert {name: told[name] for name in numbers} == numbers
    of_product = {"meshes", "poses", "up", "product_seed"}
    fields = set(config.data.synthetic) - of_product
    assert told.keys() == fields | {"of", "workers"}
    assert told["recordings"] == {"train": 40, "val": 12, "test": 12}
    assert told["of"] is None  # the toy
    assert told["world"] == worlds.TOY
    config.data.synthetic.world = "bench"
    data.run(SimpleNamespace(config=config, data_dir=tmp_path))
    assert told["world"] == worlds.BENCH
