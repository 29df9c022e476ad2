import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

import stormpsr_jax
from stormpsr_jax import load_model, main
from stormpsr_jax.data.clips import ClipSource
from stormpsr_jax.data.folder import EMPTY, NOT_ANNOTATED
from stormpsr_jax.psr.learned_stream import LEARNED
from stormpsr_jax.recordings import predictions, scores
from stormpsr_jax.recordings.evaluation_set import LabelledPredictions
from stormpsr_jax.recordings.procedure import load_procedure
from stormpsr_jax.training import losses
from stormpsr_jax.training.checkpoint import load_best
from stormpsr_jax.weights import parameters
from tests.support.tiny import tiny, tiny_run


def test_a_run_says_that_it_starts_from_random_weights(tmp_path, capsys):
    run, stages = tiny_run(tmp_path)
    stages["pretrain"].starting_point(run, (32, 32))
    assert "init_from is '', so the encoder starts from random weights" in capsys.readouterr().out


def flat(tree):
    return traverse_util.flatten_dict(tree, sep="/")


def test_a_run_without_kfs_goes_on_with_the_weights_that_it_starts_from(finished, tmp_path, capsys):
    start, _ = parameters.load_params(finished / "pretrain" / "best.safetensors")
    path, run = tmp_path / "published.safetensors", tmp_path / "run"
    parameters.save_params(path, start["encoder"])
    stages = ("pretrain", "embed", "temporal", "finetune", "predict", "evaluate")
    fields = {"stages": stages, "data.dir": str(finished / "data"), "pretrain.steps": 0}
    fields |= {"finetune.steps": 2, "finetune.eval_every": 2, "temporal.steps": 4}
    config = tiny(**fields, **{"temporal.sampling": "uniform", "init_from": str(path)})
    main.run(config, run)
    said = capsys.readouterr().out
    assert f"arrays from {path}" in said
    assert "random" not in said
    params, batch_stats = parameters.load_params(run / "pretrain" / "best.safetensors")
    found, expected = flat(params["encoder"]), flat(start["encoder"])
    assert found.keys() == expected.keys()
    for name in found:
        np.testing.assert_array_equal(found[name], expected[name])
    np.testing.assert_array_equal(batch_stats["first_head"]["norm"]["mean"], 0)
    kernel = params["first_head"]["dense"]["kernel"]
    assert (kernel != start["first_head"]["dense"]["kernel"]).all()  # before its training
    tuned, _ = parameters.load_params(run / "finetune" / "best.safetensors")
    assert stormpsr_jax.load_model(run / "model").streams == ("temporal",)
    assert tuned["spatial"].keys() == params.keys()
    assert json.loads((run / "metrics.json").read_text())["streams"].keys() == {"temporal"}
    assert (run / "report.html").is_file()
    before = (run / "pretrain" / "record.json").stat().st_mtime_ns
    main.run(config, run)
    assert "pretrain: done before" in capsys.readouterr().out
    assert (run / "pretrain" / "record.json").stat().st_mtime_ns == before


@pytest.mark.parametrize("batch_norm", ["train", "frozen"])
def test_batch_norm_of_the_encoder_goes_on_or_keeps_its_statistics(finished, batch_norm):
    """The loss of a step against layer 1 written out: by the batch, or by the statistics kept."""
    fields = {"finetune.batch_norm": batch_norm, "finetune.batch": 2, "augment.occluders": 0.0}
    run, stages = tiny_run(finished, **fields)
    stage = stages["finetune"].build(run)
    params, before = stage.init()
    batches = stage.data(0)
    batch = next(batches)
    batches.close()
    loss = jax.jit(stage.loss_fn)
    _, (_, after) = loss(params, before, batch, jax.random.key(0))
    assert jax.tree.structure(after) == jax.tree.structure(dict(before))
    kept = before["first_head"]["norm"], after["first_head"]["norm"]
    moved = np.abs(kept[0]["mean"] - kept[1]["mean"]).max()
    assert (moved > 1e-4) == (batch_norm == "train")
    np.testing.assert_array_equal(
        before["second_head"]["norm"]["mean"], after["second_head"]["norm"]["mean"]
    )
    # Other statistics than those kept change the loss only where they are what normalises.
    other = jax.tree.map(lambda a: a + 0.5, before)
    losses = [float(loss(params, s, batch, jax.random.key(0))[0]) for s in (before, other)]
    assert (abs(losses[0] - losses[1]) > 1e-6) == (batch_norm == "frozen")


K = load_procedure("synthetic").num_components


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_clip_loss_is_that_of_changes_and_a_share_of_that_of_conditions(weight, tmp_path):
    rng = np.random.default_rng(0)
    logits = jnp.asarray(rng.normal(size=(5, (3 if weight else 1) * K)), jnp.float32)
    batch = {
        "label": jnp.asarray(rng.integers(0, 2, (5, K)), jnp.float32),
        "state": jnp.asarray(rng.integers(-1, 2, (5, K)), jnp.int8),
    }
    run, stages = tiny_run(tmp_path, **{"temporal.state_loss": weight})
    loss, (metrics, kept) = stages["temporal"].loss(run, 5)(logits, batch, {"some": 1})
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
    run, stages = tiny_run(rendered)
    stage = stages["detector"].build(run)
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
    model, (run, stages) = load_model(finished / "model"), tiny_run(finished)
    network, (params, _) = stages["temporal"].network(run), load_best(finished / "finetune")
    shape = 3, network.num_frames, stages["pretrain"].encoder.hidden
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    logits = network.apply({"params": params["temporal"]}, x)
    assert logits.shape == (3, 3 * K)
    np.testing.assert_allclose(model.temporal(x), jax.nn.sigmoid(logits[:, :K]), atol=1e-5)
    path = finished / "predictions" / "test" / "temporal" / "test_000_results_pred.csv"
    assert predictions.read_temporal(path, model.procedure).confidences.shape[1] == K


def test_a_run_without_a_detector_says_right_wrong_and_not_sure_live_as_in_files(
    finished, tmp_path, capsys
):
    stages = tuple(stage for stage in tiny().stages if stage != "detector")
    config = tiny(**{"stages": stages, "data.dir": str(finished / "data"), "evaluate.risk": 0.4})
    for stage in ("pretrain", "embed", "temporal", "finetune"):
        shutil.copytree(finished / stage, tmp_path / "run" / stage)
    main.run(config, tmp_path / "run")
    assert f"data: {finished / 'data'} is trained on as it is" in capsys.readouterr().out
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
        for i, picture in enumerate(np.concatenate([*source.chunks(name, 50)])):
            live.update(picture, i / model.fps)
        path = tmp_path / "run/predictions/test/scores" / f"{name}.npz"
        variant = model.procedure.variant_for(name)
        recording = LabelledPredictions(name, variant, [], np.zeros((0, K), np.int8))
        recording.scores = scores.read_scores(path, model.procedure)
        found = LEARNED.beliefs(model.procedure.at(model.fps), recording, at, weights)
        np.testing.assert_array_equal(live.decoder.belief.right, found.right[-1])
