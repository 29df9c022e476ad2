"""The encoder and the detector that runs start from: where they came from, and that they fit."""

import json
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from safetensors import safe_open

import stormpsr_jax
from data_prep import synthetic as rendering
from stormpsr_jax import main
from stormpsr_jax.configs import general_detector, general_encoder, synthetic
from stormpsr_jax.stages import detector, general, networks
from stormpsr_jax.stages.context import Context
from stormpsr_jax.stages.pretrain import packaged_or_path
from stormpsr_jax.training.sharding import make_mesh
from stormpsr_jax.weights.parameters import initialise_from

FILE = Path(stormpsr_jax.__file__).parent / "pretrained" / "general_encoder.safetensors"


def test_pretrained_its_seeds_and_those_of_runs_are_disjoint(tmp_path):
    """It was trained on objects of seeds that no run can have, and no object seed is a run's."""
    with safe_open(FILE, "numpy") as file:
        trained_on = json.loads(file.metadata()["data_seed"])
    assert trained_on == general_encoder.get_config().data.synthetic.seed
    assert trained_on >= rendering.FIRST_OBJECT_SEED
    assert synthetic.get_config().data.synthetic.seed < rendering.FIRST_OBJECT_SEED
    with pytest.raises(ValueError, match=str(trained_on)):
        rendering.make_dataset(tmp_path / "a", seed=trained_on)
    with pytest.raises(ValueError, match="is below"):
        rendering.make_objects(tmp_path / "b", seed=7, objects={"train": 1})


@pytest.mark.usefixtures("system")
def test_pretrained_is_small_and_is_what_synthetic_starts_from(tmp_path):
    assert FILE.stat().st_size <= 5_000_000
    assert FILE.with_suffix(".txt").exists(), "provenance"
    config = synthetic.get_config()
    assert packaged_or_path(config.init_from) == FILE
    assert packaged_or_path("some/where.safetensors") == Path("some/where.safetensors")
    context = Context(config, tmp_path, make_mesh(1, 1))
    size = config.data.synthetic.size
    images = np.zeros((2, size, size, 3), np.float32)
    variables = networks.spatial_encoder(context).init(jax.random.key(0), images, train=False)
    params, _, number = initialise_from(FILE, variables["params"], variables["batch_stats"])
    taken = jax.tree.leaves(params["encoder"])
    fresh = jax.tree.leaves(variables["params"]["encoder"])
    assert number == len(taken)
    assert all(a.shape == b.shape for a, b in zip(taken, fresh, strict=True))
    assert any(not np.allclose(a, b) for a, b in zip(taken, fresh, strict=True))


def test_general_hosts_make_the_rows_of_one_batch(monkeypatch):
    states = np.random.default_rng(0).integers(0, 2, (30, 3))

    def rows(name, indices):
        return np.stack([np.full((2, 2, 3), 100 * int(name) + i, np.int32) for i in indices])

    recording = SimpleNamespace(states=states)
    source = SimpleNamespace(recordings={str(i): recording for i in range(5)}, rows=rows)

    def batch(host, hosts):
        monkeypatch.setattr(jax, "process_index", lambda: host)
        monkeypatch.setattr(jax, "process_count", lambda: hosts)
        element = general._ObjectBatch(source, objects=3, states=2, views=4)
        return element(0, np.random.default_rng(7))

    whole = batch(0, 1)
    assert len(whole["label"]) == 24
    assert len(set(whole["label"].tolist())) == 6
    for image, owner, state in zip(whole["image"], whole["object"], whole["state"], strict=True):
        frame = image[0, 0, 0] - 100 * owner
        np.testing.assert_array_equal(states[frame], state)
    parts = [batch(host, 3) for host in range(3)]
    for field, array in whole.items():
        np.testing.assert_array_equal(np.concatenate([part[field] for part in parts]), array)


def fresh_detector(config, folder, side):
    context = Context(config, folder, make_mesh(1, 1))
    init = networks.detector(context).init
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


@pytest.mark.usefixtures("system")
def test_general_detector_its_export_is_a_starting_point(tmp_path):
    config = general_detector.get_config()
    tiny = {"data.synthetic.objects.train": 3, "data.synthetic.objects.val": 1}
    tiny |= {"data.synthetic.frames_per_object": 30, "data.synthetic.size": 32}
    tiny |= {"detector.width": 8, "detector.grid": 4, "general_detector.batch": 4}
    tiny |= {"general_detector.steps": 2, "general_detector.eval_every": 2}
    config.update_from_flattened_dict(tiny | {"general_detector.log_every": 1})
    main.run(config, tmp_path)
    exported = tmp_path / "general_detector" / "detector.safetensors"
    with safe_open(exported, "numpy") as file:
        about = {key: json.loads(file.metadata()[key]) for key in ("objects", "steps", "metrics")}
    assert (about["objects"], about["steps"]) == (4, 2)
    assert 0 <= about["metrics"]["iou"] <= 1
    assert detector.started(exported, fresh_detector(config, tmp_path, 32))


@pytest.mark.usefixtures("system")
def test_general_its_export_is_a_starting_point(tmp_path):
    """The stage on three tiny objects: what it exports can be started from, and says its origin."""
    config = general_encoder.get_config()
    tiny = {"data.synthetic.size": 32, "data.synthetic.objects.train": 2}
    tiny |= {"data.synthetic.workers": 1}
    tiny |= {"data.synthetic.objects.val": 1, "data.synthetic.frames_per_object": 30}
    tiny |= {"encoder.width": 16, "encoder.depth": 1, "encoder.num_heads": 2, "encoder.stem": (8,)}
    tiny |= {"general.objects": 2, "general.states": 2, "general.views": 2, "general.steps": 2}
    tiny |= {"general.eval_every": 2, "general.checkpoint_every": 2, "general.log_every": 1}
    config.update_from_flattened_dict(tiny)
    main.run(config, tmp_path)
    exported = tmp_path / "general" / "encoder.safetensors"
    with safe_open(exported, "numpy") as file:
        keys = ("data_seed", "objects", "steps", "precision_at_1")
        about = {key: json.loads(file.metadata()[key]) for key in keys}
        names = set(file.keys())
    assert (about["data_seed"], about["objects"], about["steps"]) == (1_000_000_000, 3, 2)
    assert 0 <= about["precision_at_1"]["precision_at_1"] <= 1
    context = Context(config, tmp_path, make_mesh(1, 1))
    images = np.zeros((2, 32, 32, 3), np.float32)
    variables = networks.spatial_encoder(context).init(jax.random.key(0), images, train=False)
    _, _, number = initialise_from(exported, variables["params"], variables["batch_stats"])
    assert number == len(names)
