import jax
import pytest

from stormpsr_jax import main
from stormpsr_jax.configs import synthetic
from stormpsr_jax.stages import run
from tests.support import lantern
from tests.support.tiny import opened


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


def test_the_command_that_renders_says_what_the_config_says(tmp_path):
    config = synthetic.get_config()
    numbers = {"cad_per_state": 3, "cad_wrong": 5, "error_recordings": 7, "seed": 11, "size": 24}
    for name, value in numbers.items():
        config.data.synthetic[name] = value
    toy = opened(config, tmp_path)[1]["data"].words(tmp_path / "data")
    others = {"out": tmp_path / "data", "train": 40, "val": 12, "test": 12, "world": "toy"}
    for name, value in {**numbers, **others}.items():
        assert f"--{name}={value}" in toy
    assert not [word for word in toy if word.startswith(("--meshes", "--product_seed"))]
    config.data.synthetic.product_seed = 7
    assert "--product_seed=7" in opened(config, tmp_path)[1]["data"].words(tmp_path)
    config.data.synthetic.update(product_seed=-1, meshes="parts", poses="poses.json")
    config.procedure = "pump.json"
    own = opened(config, tmp_path)[1]["data"].words(tmp_path)
    assert {"--meshes=parts", "--poses=poses.json", "--procedure=pump.json"} <= set(own)


@pytest.mark.usefixtures("system")
def test_what_is_wrong_with_what_is_to_be_rendered_ends_the_run_with_its_status(tmp_path, capfd):
    procedure = lantern.write(tmp_path)[1]
    (tmp_path / "empty").mkdir()
    words = ["--config=cad", f"--config.procedure={procedure}", f"--workdir={tmp_path / 'run'}"]
    with pytest.raises(SystemExit) as end:
        main.main([*words, f"--config.data.synthetic.meshes={tmp_path / 'empty'}"])
    assert end.value.code == 2
    assert f"error: {tmp_path / 'empty'}: no mesh for " in capfd.readouterr().err
