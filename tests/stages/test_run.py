from types import SimpleNamespace

import jax
import pytest

from data_prep import stage as data
from data_prep import synthetic as rendering
from stormpsr_jax.configs import synthetic
from stormpsr_jax.stages import run

COMMANDS = {"an NVIDIA GPU": "pip install '.[cuda]'", "a TPU": "pip install '.[tpu]'"}


@pytest.mark.parametrize(
    ("path", "name", "platform"),
    [
        ("dev/nvidia0", "an NVIDIA GPU", "gpu"),
        ("bin/nvidia-smi", "an NVIDIA GPU", "gpu"),
        ("dev/accel0", "a TPU", "tpu"),
    ],
)
def test_a_device_that_jax_does_not_see_is_told_with_the_command_that_installs_it(
    tmp_path, monkeypatch, path, name, platform
):
    """With an empty folder in place of the root folder, in which PATH is `bin`."""
    monkeypatch.setattr(run, "NVIDIA", tmp_path / "dev/nvidia0")
    monkeypatch.setattr(run, "TPU", tmp_path / "dev/accel0")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    assert run.unused_devices({"cpu"}) == []
    (tmp_path / path).parent.mkdir(parents=True)
    (tmp_path / path).touch(0o755)
    (text,) = run.unused_devices({"cpu"})
    assert text.startswith(f"this machine has {name}, which JAX does not see")
    assert COMMANDS[name] in text
    assert run.unused_devices({"cpu", platform}) == []
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")  # the CPU is meant
    assert run.unused_devices({"cpu"}) == []


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
