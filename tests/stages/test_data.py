from types import SimpleNamespace

from data_prep import stage as data
from data_prep import synthetic as rendering
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
    assert told.keys() == set(config.data.synthetic) | {"procedure", "workers"}
    assert told["recordings"] == {"train": 40, "val": 12, "test": 12}
    assert (told["meshes"], told["product_seed"]) == ("", None)  # the toy
    assert told["world"] == "toy"
