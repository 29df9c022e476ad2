import contextlib
import json
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors import safe_open

import stormpsr_jax
from data_prep import synthetic as rendering
from stormpsr_jax.configs import synthetic
from stormpsr_jax.stages import detector
from stormpsr_jax.stages.stage import packaged_or_path
from stormpsr_jax.weights.parameters import initialise_from
from tests.support.drawn import random_variables
from tests.support.tiny import opened

FILE = Path(stormpsr_jax.__file__).parent / "pretrained" / "general_encoder.safetensors"


def test_pretrained_its_seeds_and_those_of_runs_are_disjoint(tmp_path):
    """It was trained on objects of seeds that no run can have, and no object seed is a run's."""
    with safe_open(FILE, "numpy") as file:
        trained_on = json.loads(file.metadata()["data_seed"])
    assert trained_on == rendering.FIRST_OBJECT_SEED
    assert synthetic.get_config().data.synthetic.seed < rendering.FIRST_OBJECT_SEED
    with pytest.raises(ValueError, match=str(trained_on)):
        rendering.make_dataset(tmp_path / "a", seed=trained_on)


@pytest.mark.usefixtures("system")
def test_pretrained_is_small_and_is_what_synthetic_starts_from(tmp_path):
    assert FILE.stat().st_size <= 5_000_000
    assert FILE.with_suffix(".txt").exists(), "provenance"
    config = synthetic.get_config()
    assert packaged_or_path(config.init_from) == FILE
    assert packaged_or_path("some/where.safetensors") == Path("some/where.safetensors")
    run, stages = opened(config, tmp_path)
    side = config.data.synthetic.size
    images = np.zeros((2, side, side, 3), np.float32)
    variables = random_variables(stages["pretrain"].network(run), images)
    params, _, number = initialise_from(FILE, variables["params"], variables["batch_stats"])
    taken = jax.tree.leaves(params["encoder"])
    fresh = jax.tree.leaves(variables["params"]["encoder"])
    assert number == len(taken)
    assert all(a.shape == b.shape for a, b in zip(taken, fresh, strict=True))
    assert any(not np.allclose(a, b) for a, b in zip(taken, fresh, strict=True))


def test_photos_are_found_or_the_line_says_what_to_install(monkeypatch):
    with contextlib.suppress(ValueError):
        assert packaged_or_path("photos").is_file()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"^init_from='photos' needs .*pip install '\.\[photos\]'"):
        packaged_or_path("photos")


def fresh_detector(config, folder, side):
    run, stages = opened(config, folder)
    init = stages["detector"].network(run).init
    fresh = jax.eval_shape(init, jax.random.key(0), np.zeros((1, side, side, 3), np.float32))
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), dict(fresh["params"]))


def test_pretrained_detector_has_what_finds_a_product(tmp_path):
    config = synthetic.get_config()
    path = packaged_or_path(config.detector.init_from)
    assert path.stat().st_size <= 5_000_000
    assert path.with_suffix(".txt").exists(), "provenance"
    params = detector.started(path, fresh_detector(config, tmp_path, config.data.synthetic.size))
    zero = {name for name, part in params.items() if not any(map(np.any, jax.tree.leaves(part)))}
    reading = {"upright_stem", "state_half_down", "state_quarter", "state_hidden"}
    assert zero == reading | {"logits", "parts"}
    config.detector.width = 16
    with pytest.raises(ValueError, match=r"general_detector.safetensors: .* has shape"):
        detector.started(path, fresh_detector(config, tmp_path, 64))
