import numpy as np
import pytest
import safetensors.numpy
from PIL import Image

from stormpsr_jax.weights import parameters, torch_layout
from stormpsr_jax.weights.backbones import resize_position_embedding
from tests.support.weights_data import random_state, tiny_encoder


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (14, (18, 32)),  # larger, and not square
        (14, (9, 16)),  # one side smaller, one larger
        (14, (7, 5)),  # smaller
        (3, (12, 1)),
        (3, (3, 3)),
    ],
)
def test_resize_position_embedding_matches_pillow_on_random_fields(old, new):
    # Pillow, too, has Keys's kernel with a = -1/2, antialiases and renormalises at the border.
    pos = np.random.default_rng(0).normal(size=(1, 1 + old * old, 4)).astype(np.float32)
    out = resize_position_embedding(pos, new)
    np.testing.assert_array_equal(out[:, 0], pos[:, 0])
    for channel in range(4):
        field = Image.fromarray(pos[0, 1:, channel].reshape(old, old))
        assert field.mode == "F"
        expected = np.asarray(field.resize(new[::-1], Image.Resampling.BICUBIC))
        np.testing.assert_allclose(out[0, 1:, channel].reshape(new), expected, atol=1e-5)


def of(*shape):
    return np.zeros(shape, np.float32)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"state_head": {"bias": of(3)}}, "unexpected: params/state_head/bias"),
        ({"second_head": None}, r"missing: params/second_head/dense/bias, .*; unex"),
        (
            {"projection_head": {"kernel": of(7, 4), "bias": of(5)}},
            r"projection_head/kernel has shape \(7, 4\).*\(7, 5\)",
        ),
        # A file of oblong pictures does not tell its grid.
        ({"encoder": {"pos_embed": of(1, 13, 8)}}, "12 patches make no square grid; only that of"),
        (None, "weights import"),  # a state dict as it is published
    ],
)
def test_initialise_from_what_does_not_fit_is_named(tmp_path, changes, message):
    path, state = tmp_path / "a.safetensors", random_state("spatial")
    if changes is None:
        safetensors.numpy.save_file(state, path)
    else:
        params, stats = torch_layout.from_state_dict(state, "spatial")
        if "encoder" in changes:
            changes = {"encoder": params["encoder"] | changes["encoder"]}
        params = {name: value for name, value in (params | changes).items() if value is not None}
        parameters.save_params(path, params, stats)
    with pytest.raises(ValueError, match=message):
        parameters.initialise_from(path, *tiny_encoder())
