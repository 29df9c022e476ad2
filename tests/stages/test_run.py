"""A GPU or TPU that JAX does not use is told, by what drivers and systems put on a machine."""

import pytest

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
