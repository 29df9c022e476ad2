from types import SimpleNamespace

from data_prep import synthetic as rendering
from stormpsr_jax.configs import synthetic
from stormpsr_jax.stages import data


def test_run_renders_what_the_config_says(tmp_path, monkeypatch):
    told = {}
    monkeypatch.setattr(rendering, "make_dataset", lambda out, **options: told.update(options))
    config = synthetic.get_config()
    numbers = {"cad_per_state": 3, "cad_wrong": 5, "rehearsals": 7, "seed": 11, "size": 24}
    numbers["rehearsal_step"] = 2
    for name, value in numbers.items():
        config.data.synthetic[name] = value
    data.run(SimpleNamespace(config=config, data_dir=tmp_path))
    assert {name: told[name] for name in numbers} == numbers
    of_objects = {"objects", "frames_per_object"}
    of_product = {"meshes", "poses", "up", "product_seed"}
    fields = set(config.data.synthetic) - of_objects - of_product
    assert told.keys() == fields | {"of"}
    assert told["of"] is None  # the toy
