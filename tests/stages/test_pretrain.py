import json

import jax
import numpy as np
from flax import traverse_util

import stormpsr_jax
from stormpsr_jax import main
from stormpsr_jax.data import augment
from stormpsr_jax.stages import pretrain
from stormpsr_jax.stages.context import Context
from stormpsr_jax.training.sharding import make_mesh
from stormpsr_jax.weights import parameters
from tests.support.tiny import tiny


def test_starting_point_says_whether_it_starts_from_random_weights(tmp_path, capsys):
    context = Context(tiny(), tmp_path, make_mesh(1, 1))
    params, _ = pretrain.starting_point(context, (32, 32))
    assert "init_from is '', so the encoder starts from random weights" in capsys.readouterr().out
    path = tmp_path / "encoder.safetensors"
    parameters.save_params(path, params["encoder"])
    started = Context(tiny(init_from=str(path)), tmp_path, make_mesh(1, 1))
    pretrain.starting_point(started, (32, 32))
    said = capsys.readouterr().out
    assert "random" not in said
    assert f"arrays from {path}" in said


def without_kfs(finished, **changes):
    stages = ("pretrain", "embed", "temporal", "finetune", "predict", "evaluate")
    fields = {"stages": stages, "data.dir": str(finished / "data"), "pretrain.steps": 0}
    fields |= {"finetune.steps": 2, "finetune.eval_every": 2, "temporal.steps": 4}
    return tiny(**fields | {"temporal.sampling": "uniform"} | changes)


def flat(tree):
    return traverse_util.flatten_dict(tree, sep="/")


def test_a_run_without_kfs_goes_on_with_the_weights_that_it_starts_from(finished, tmp_path, capsys):
    start, _ = parameters.load_params(finished / "pretrain" / "best.safetensors")
    path, run = tmp_path / "published.safetensors", tmp_path / "run"
    parameters.save_params(path, start["encoder"])
    config = without_kfs(finished, init_from=str(path))
    main.run(config, run)
    said = capsys.readouterr().out
    assert f"arrays from {path}" in said
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


def test_no_limbs_are_computed_where_renders_get_none(rendered, tmp_path, monkeypatch):
    config = tiny(**{"augment.occluders": 0.0, "data.dir": str(rendered / "data")})
    definition = pretrain.build(Context(config, tmp_path, make_mesh(1, 1)))
    data = definition.data(0)
    arguments = *definition.init(), next(data), jax.random.key(0)
    data.close()
    monkeypatch.delattr(augment, "_limbs")
    jax.eval_shape(definition.loss_fn, *arguments)
