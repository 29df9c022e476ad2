"""Backbones by name, and published ViTs against what timm and transformers compute."""

import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from stormpsr_jax import weights
from stormpsr_jax.configs import default
from stormpsr_jax.models import backbones, vit

FIXTURES = Path(__file__).parent / "backbones"  # of benchmarks/backbone_fixtures.py
CASES = sorted(path.stem for path in FIXTURES.glob("*.npz"))


def published(name, folder):
    """(path of the case's file as published, its arrays)."""
    arrays = dict(np.load(FIXTURES / f"{name}.npz"))
    state = {
        key.removeprefix("state/"): np.float32(value)
        for key, value in arrays.items()
        if key.startswith("state/")
    }
    path = folder / f"{name}.safetensors"
    safetensors.numpy.save_file(state, path)
    return path, arrays


def command(name, **flags):
    return weights.main([name, *(f"--{flag}={value}" for flag, value in flags.items())])


def run(path, arrays, i, folder, heads):
    np.savez(folder / "x.npz", x=np.float32(arrays[f"x{i}"]))
    files = {"checkpoint": path, "inputs": folder / "x.npz", "out": folder / "y.npz"}
    assert command("run", kind="vit", heads=heads, **files) == 0
    return np.load(folder / "y.npz")["features"]


def test_fixtures_are_of_both_libraries():
    assert len([name for name in CASES if name.startswith("timm_")]) == 8
    assert len([name for name in CASES if name.startswith("transformers_")]) == 6


@pytest.mark.parametrize("name", CASES)
def test_run_matches_the_library_at_every_size(name, tmp_path):
    """At the model's own size, a smaller or oblong one and a larger one; imported, too."""
    path, arrays = published(name, tmp_path)
    ours = tmp_path / "ours.safetensors"
    assert command("import", kind="vit", checkpoint=path, out=ours) == 0
    for i, file in enumerate((path, ours, ours)):
        found = run(file, arrays, i, tmp_path, arrays["heads"])
        np.testing.assert_allclose(found, arrays[f"y{i}"], atol=1e-4)
        assert np.abs(arrays[f"y{i}"]).max() > 0.3
