"""Stage `pretrain`: what the encoder starts from."""

from tiny import tiny

from stormpsr_jax import weights
from stormpsr_jax.stages import pretrain
from stormpsr_jax.stages.context import Context
from stormpsr_jax.training.sharding import make_mesh


def test_starting_point_property_says_whether_it_starts_from_random_weights(tmp_path, capsys):
    context = Context(tiny(), tmp_path, make_mesh(1, 1))
    params, _ = pretrain.starting_point(context, (32, 32))
    assert "init_from is '', so the encoder starts from random weights" in capsys.readouterr().out
    path = tmp_path / "encoder.safetensors"
    weights.save_params(path, params["encoder"])
    started = Context(tiny(init_from=str(path)), tmp_path, make_mesh(1, 1))
    pretrain.starting_point(started, (32, 32))
    said = capsys.readouterr().out
    assert "random" not in said
    assert f"arrays from {path}" in said
