"""A GPU or TPU that JAX does not use is told, by what drivers and systems put on a machine."""

import pytest

from stormpsr_jax.base import hardware

COMMANDS = {"an NVIDIA GPU": "pip install '.[cuda]'", "a TPU": "pip install '.[tpu]'"}


@pytest.mark.parametrize(
    ("path", "name", "platform"),
    [
        ("dev/nvidia0", "an NVIDIA GPU", "gpu"),
        ("proc/driver/nvidia/version", "an NVIDIA GPU", "gpu"),
        ("bin/nvidia-smi", "an NVIDIA GPU", "gpu"),
        ("dev/accel0", "a TPU", "tpu"),
    ],
)
def test_a_device_that_jax_does_not_see_is_told_with_the_command_that_installs_it(
    tmp_path, monkeypatch, path, name, platform
):
    """With an empty folder in place of the root folder, in which PATH is `bin`."""
    kinds = [
        kind._replace(paths=tuple(tmp_path / path.relative_to("/") for path in kind.paths))
        for kind in hardware.KINDS
    ]
    monkeypatch.setattr(hardware, "KINDS", kinds)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    assert hardware.unused({"cpu"}) == []
    (tmp_path / path).parent.mkdir(parents=True)
    (tmp_path / path).touch(0o755)
    (text,) = hardware.unused({"cpu"})
    assert text.startswith(f"this machine has {name} (")
    assert COMMANDS[name] in text
    assert "\n" not in text
    assert hardware.unused({"cpu", platform}) == []
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")  # the CPU is meant
    assert hardware.unused({"cpu"}) == []
