"""Weights that a run starts from: `initialise_from`, and position embeddings of another grid."""

from unittest import mock

import numpy as np
import pytest
import safetensors.numpy
from PIL import Image

from stormpsr_jax.networks import positions
from stormpsr_jax.stages import pretrain
from stormpsr_jax.weights import parameters, torch_layout
from tests.support.weights_data import random_state, tiny_encoder

# --- Position embeddings --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ((14, 14), (18, 32)),  # larger, and not square
        ((14, 14), (9, 16)),  # one side smaller, one larger
        ((14, 14), (7, 5)),  # smaller
        ((5, 9), (10, 3)),
        ((3, 3), (12, 1)),
    ],
)
def test_resize_position_embedding_matches_pillow_on_random_fields(old, new):
    # Pillow, too, has Keys's kernel with a = -1/2, antialiases and renormalises at the border.
    pos = np.random.default_rng(0).normal(size=(1, 1 + old[0] * old[1], 4)).astype(np.float32)
    out = positions.resize_position_embedding(pos, new, old)
    np.testing.assert_array_equal(out[:, 0], pos[:, 0])
    for channel in range(4):
        field = Image.fromarray(pos[0, 1:, channel].reshape(old))
        assert field.mode == "F"
        expected = np.asarray(field.resize(new[::-1], Image.Resampling.BICUBIC))
        np.testing.assert_allclose(out[0, 1:, channel].reshape(new), expected, atol=1e-5)


def test_resize_position_embedding_same_grid_is_the_identity_and_oblong_is_asked_for():
    pos = np.random.default_rng(0).normal(size=(1, 13, 2)).astype(np.float32)
    same = positions.resize_position_embedding(pos, (3, 4), (3, 4))
    np.testing.assert_allclose(same, pos, atol=1e-6)
    with pytest.raises(ValueError, match="12 patches make no square grid"):
        positions.resize_position_embedding(pos, (3, 4))


# --- initialise_from ------------------------------------------------------------------------------


def test_initialise_from_position_embedding_is_resized(tmp_path):
    state = random_state("spatial")
    small = torch_layout.from_state_dict(state, "spatial")
    parameters.save_params(tmp_path / "small.safetensors", *small)
    params = tiny_encoder()[0]
    params = params | {"encoder": params["encoder"] | {"pos_embed": np.zeros((1, 26, 8))}}
    got, *_ = parameters.initialise_from(tmp_path / "small.safetensors", params, tiny_encoder()[1])
    expected = positions.resize_position_embedding(state["encoder.pos_embed"], (5, 5))
    np.testing.assert_allclose(got["encoder"]["pos_embed"], expected, atol=1e-6)


def test_initialise_from_pictures_need_not_be_square(tmp_path, monkeypatch):
    """A square ViT is fitted to a run's oblong pictures; the grid follows from their size."""
    path = tmp_path / "vit.safetensors"
    state = random_state("vit")
    parameters.save_params(path, *torch_layout.from_state_dict(state, "vit"))
    params, stats = tiny_encoder()
    params = params | {"encoder": params["encoder"] | {"pos_embed": np.zeros((1, 11, 8))}}
    model = mock.Mock(patch_size=4)
    variables = {"params": params, "batch_stats": stats}
    monkeypatch.setattr(pretrain.networks, "spatial_encoder", lambda context: model)
    monkeypatch.setattr(pretrain.networks, "fresh", lambda *_: variables)
    context = mock.Mock(**{"config.init_from": str(path)})
    got, _ = pretrain.starting_point(context, (8, 20))
    expected = positions.resize_position_embedding(state["pos_embed"], (2, 5))
    np.testing.assert_allclose(got["encoder"]["pos_embed"], expected, atol=1e-6)
    # A file of oblong pictures does not tell its grid.
    oblong = random_state("vit") | {"pos_embed": np.zeros((1, 13, 8), np.float32)}
    parameters.save_params(path, *torch_layout.from_state_dict(oblong, "vit"))
    with pytest.raises(ValueError, match="12 patches make no square grid; only that of square"):
        pretrain.starting_point(context, (8, 20))


def test_initialise_from_what_does_not_fit_is_named(tmp_path):
    params, stats = torch_layout.from_state_dict(random_state("spatial"), "spatial")
    path = tmp_path / "a.safetensors"
    with_head = params | {"state_head": {"bias": np.zeros(3, np.float32)}}
    parameters.save_params(path, with_head, stats)
    with pytest.raises(ValueError, match="unexpected: params/state_head/bias"):
        parameters.initialise_from(path, *tiny_encoder())
    without = {name: value for name, value in params.items() if name != "second_head"}
    parameters.save_params(path, without, stats)
    with pytest.raises(ValueError, match=r"missing: params/second_head/dense/bias, .*; unex"):
        parameters.initialise_from(path, *tiny_encoder())
    parameters.save_params(
        path,
        params
        | {
            "projection_head": {
                "kernel": np.zeros((7, 4), np.float32),
                "bias": np.zeros(5, np.float32),
            }
        },
        stats,
    )
    with pytest.raises(ValueError, match=r"projection_head/kernel has shape \(7, 4\).*\(7, 5\)"):
        parameters.initialise_from(path, *tiny_encoder())
    safetensors.numpy.save_file(random_state("spatial"), path)
    with pytest.raises(ValueError, match="weights import"):
        parameters.initialise_from(path, *tiny_encoder())
