import json
import shutil
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from ml_collections import ConfigDict
from safetensors.numpy import load_file

from stormpsr_jax import load_model, main
from stormpsr_jax.data.annotation import EMPTY, NOT_ANNOTATED
from stormpsr_jax.data.clips import ClipSource
from stormpsr_jax.networks.temporal import TemporalTransformer
from stormpsr_jax.psr.learned_stream import LEARNED
from stormpsr_jax.recordings import predictions, scores
from stormpsr_jax.recordings.evaluation_set import LabelledPredictions
from stormpsr_jax.recordings.procedure import load_procedure
from stormpsr_jax.stages import detector
from stormpsr_jax.stages.context import Context
from stormpsr_jax.stages.temporal import clip_loss
from stormpsr_jax.training import losses
from stormpsr_jax.training.sharding import make_mesh
from tests.support.tiny import tiny

K = load_procedure("synthetic").num_components


def context(weight, num_components=K):
    """What `clip_loss` reads of a context."""
    return types.SimpleNamespace(
        procedure=types.SimpleNamespace(num_components=num_components),
        config=ConfigDict({"temporal": {"state_loss": weight}}),
    )


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_clip_loss_is_that_of_changes_and_a_share_of_that_of_conditions(weight):
    rng = np.random.default_rng(0)
    logits = jnp.asarray(rng.normal(size=(5, (3 if weight else 1) * K)), jnp.float32)
    batch = {
        "label": jnp.asarray(rng.integers(0, 2, (5, K)), jnp.float32),
        "state": jnp.asarray(rng.integers(-1, 2, (5, K)), jnp.int8),
    }
    loss, (metrics, kept) = clip_loss(context(weight), logits, batch, {"some": 1})
    changes = losses.multilabel_bce(logits[:, :K], batch["label"]).mean()
    assert kept == {"some": 1}
    if not weight:
        assert metrics == {}
        assert loss == changes
        return
    conditions, expected = losses.condition_bce(logits[:, K:], batch["state"])
    np.testing.assert_allclose(loss, changes + weight * conditions, rtol=1e-6)
    assert metrics == expected


@pytest.mark.usefixtures("system")  # costly
def test_detector_right_and_wrong_are_learnt_from_renders_and_frames_anywhere(rendered):
    stage = detector.build(Context(tiny(), rendered, make_mesh(1, 1)))
    params, stats = stage.init()
    loss_fn = jax.jit(stage.loss_fn)  # op by op takes much longer
    batches = stage.data(0)
    batch = next(batches)
    batches.close()

    def right(kind, cad):
        changes = {
            "class": np.full_like(batch["class"], kind),
            "cad": np.full_like(batch["cad"], cad),
        }
        changes["state"] = np.ones_like(batch["state"])
        _, (metrics, _) = loss_fn(params, stats, batch | changes, jax.random.key(0))
        return metrics["right"]

    _, (metrics, _) = loss_fn(params, stats, batch, jax.random.key(0))
    known = np.isfinite(batch["pose"]).all(axis=1)
    np.testing.assert_array_equal(known, batch["cad"])
    assert metrics["pose"] > 0
    assert right(EMPTY, False) == 0
    assert right(EMPTY, True) > 0
    assert right(NOT_ANNOTATED, False) > 0


def test_model_of_three_outputs_recognition_reads_the_changes(finished):
    """Files and the loaded model hold K probabilities: the first K outputs of the network."""
    model = load_model(finished / "model")
    weights = load_file(finished / "model" / "weights.safetensors")
    assert weights["temporal/params/head/bias"].shape == (3 * K,)
    assert weights["detector/params/parts/bias"].shape == (2 * K,)
    described = json.loads((finished / "model" / "model.json").read_text())["networks"]["temporal"]
    assert (described["num_components"], described["outputs"]) == (K, 3)
    config = tiny()
    frames = config.window.frames // config.window.stride + 1
    x = np.random.default_rng(0).normal(size=(3, frames, config.encoder.hidden)).astype(np.float32)
    found = model.temporal(x)
    assert found.shape == (3, K)
    flat = {tuple(name.split("/")[2:]): array for name, array in weights.items()
            if name.startswith("temporal/params/")}  # fmt: skip
    params = traverse_util.unflatten_dict(flat)
    params["head"] = {name: array[..., :K] for name, array in params["head"].items()}
    one = TemporalTransformer(
        K, frames, depth=1, num_heads=2, dim_head=8, mlp_dim=32, head=described["head"]
    )
    expected = jax.nn.sigmoid(one.apply({"params": params}, x))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    path = finished / "predictions" / "test" / "temporal" / "test_000_results_pred.csv"
    assert predictions.read_temporal(path, model.procedure).confidences.shape[1] == K


def test_a_run_without_a_detector_says_right_wrong_and_not_sure_live_as_in_files(
    finished, tmp_path
):
    stages = tuple(stage for stage in tiny().stages if stage != "detector")
    config = tiny(**{"stages": stages, "data.dir": str(finished / "data"), "evaluate.risk": 0.4})
    for stage in ("pretrain", "embed", "temporal", "finetune"):
        shutil.copytree(finished / stage, tmp_path / "run" / stage)
    main.run(config, tmp_path / "run")
    metrics = json.loads((tmp_path / "run/metrics.json").read_text())
    model = load_model(tmp_path / "run/model")
    assert (model.default_stream, set(model.streams)) == ("learned", {"temporal", "learned"})
    assert metrics["streams"]["learned"]["settings"]["sure"] is not None
    # Networks that are hardly trained see no step, so beliefs are compared.
    source = ClipSource(finished / "data", "test", model.procedure)
    at, weights = model.settings(), model._content.fusion
    assert weights.kind == "clips"
    for name in source.recordings:
        live = model.live(recording=name)
        for i, picture in enumerate(np.concatenate([p for _, p in source.chunks(name, 50)])):
            live.update(picture, i / model.fps)
        path = tmp_path / "run/predictions/test/scores" / f"{name}.npz"
        variant = model.procedure.variant_for(name)
        recording = LabelledPredictions(name, variant, [], np.zeros((0, K), np.int8))
        recording.scores = scores.read_scores(path, model.procedure)
        found = LEARNED.beliefs(model.procedure.at(model.fps), recording, at, weights)
        np.testing.assert_array_equal(live.decoder.belief.right, found.right[-1])
