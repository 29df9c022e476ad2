import numpy as np
import pytest

from stormpsr_jax.stages.stage import packaged_or_path
from stormpsr_jax.weights import torch_files
from tests.support.weights_data import command

# Of each block: channels, kernel, stride.
BLOCKS = [(16, 3, 1), (24, 3, 2), (24, 3, 1), (40, 5, 2), (40, 5, 1), (80, 3, 2), (80, 3, 1)]
BLOCKS += [(80, 3, 1), (112, 5, 1), (112, 5, 1), (112, 5, 1), (192, 5, 2), (192, 5, 1)]
BLOCKS += [(192, 5, 1), (192, 5, 1), (320, 3, 1)]


def random_state():
    """As published: with norms, their counters and a classifier."""
    rng, state = np.random.default_rng(0), {}

    def layer(conv, norm, out, fan_in, size):
        scale = np.sqrt(2 / (fan_in * size * size))
        state[f"{conv}.weight"] = scale * rng.normal(size=(out, fan_in, size, size))
        for leaf in ("weight", "running_var"):
            state[f"{norm}.{leaf}"] = rng.uniform(0.5, 1.5, out)
        for leaf in ("bias", "running_mean"):
            state[f"{norm}.{leaf}"] = rng.normal(size=out) / 10
        state[f"{norm}.num_batches_tracked"] = np.array(0)

    layer("_conv_stem", "_bn0", 32, 3, 3)
    before = 32
    for i, (out, kernel, _) in enumerate(BLOCKS):
        at, wide = f"_blocks.{i}.", 6 * before if i else before
        if i:
            layer(f"{at}_expand_conv", f"{at}_bn0", wide, before, 1)
        layer(f"{at}_depthwise_conv", f"{at}_bn1", wide, 1, kernel)
        layer(f"{at}_project_conv", f"{at}_bn2", out, wide, 1)
        before = out
    layer("_conv_head", "_bn1", 1280, 320, 1)
    state |= {"_fc.weight": np.zeros((1000, 1280)), "_fc.bias": np.zeros(1000)}
    return {name: np.float32(value) for name, value in state.items()}


def reference(state, x):
    """Features of x (B, 3, H, W) in float64, written from the definitions."""

    def layer(x, conv, norm, stride=1, relu=True):
        w = np.float64(state[f"{conv}.weight"])
        size, (H, W) = w.shape[2], x.shape[2:]
        h, v = -(-H // stride), -(-W // stride)
        sides = [max((n - 1) * stride + size - of, 0) for n, of in ((h, H), (v, W))]
        x = np.pad(x, [(0, 0), (0, 0), *((n // 2, n - n // 2) for n in sides)])
        y = 0.0
        for i in range(size):
            for j in range(size):
                part = x[:, :, i : i + (h - 1) * stride + 1 : stride]
                part = part[:, :, :, j : j + (v - 1) * stride + 1 : stride]
                if "depthwise" in conv:
                    y = y + part * w[:, 0, i, j, None, None]
                else:
                    y = y + np.einsum("bchw,oc->bohw", part, w[:, :, i, j])
        gain, bias, mean, var = (
            np.float64(state[f"{norm}.{leaf}"])[:, None, None]
            for leaf in ("weight", "bias", "running_mean", "running_var")
        )
        y = (y - mean) / np.sqrt(var + 1e-3) * gain + bias
        return np.clip(y, 0, 6) if relu else y

    x = layer(x, "_conv_stem", "_bn0", 2)
    for i, (_, _, stride) in enumerate(BLOCKS):
        at = f"_blocks.{i}."
        y = layer(x, f"{at}_expand_conv", f"{at}_bn0") if i else x
        y = layer(y, f"{at}_depthwise_conv", f"{at}_bn1", stride)
        y = layer(y, f"{at}_project_conv", f"{at}_bn2", relu=False)
        x = x + y if x.shape == y.shape else y
    return layer(x, "_conv_head", "_bn1").mean((2, 3))


@pytest.mark.parametrize("weights", ["random", "photos"])
def test_features_are_those_of_numpy(weights, tmp_path):
    path = tmp_path / "lite0.npz"
    if weights == "random":
        np.savez(path, **random_state())
    else:
        try:
            path = packaged_or_path("photos")
        except ValueError:
            pytest.skip("the extra photos is not installed")
    state = torch_files.read_state_dict(path)
    x = np.float32(np.random.default_rng(1).normal(size=(2, 64, 96, 3)))
    ours, given, out = (tmp_path / name for name in ("o.safetensors", "x.npz", "y.npz"))
    np.savez(given, x=x)
    assert command("import", kind="efficientnet", checkpoint=path, out=ours) == 0
    assert command("run", kind="efficientnet", checkpoint=ours, inputs=given, out=out) == 0
    expected, found = reference(state, x.transpose(0, 3, 1, 2)), np.load(out)["features"]
    assert found.shape == (2, 1280)
    assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()


def test_import_says_which_norm_does_not_fit(tmp_path, capsys):
    path = tmp_path / "lite0.npz"
    np.savez(path, **random_state() | {"_blocks.3._bn1.running_var": np.ones(7, np.float32)})
    assert (
        command(
            "import", kind="efficientnet", checkpoint=path, out=path.with_suffix(".safetensors")
        )
        == 2
    )
    assert "_blocks.3._bn1.* does not fit _blocks.3._depthwise_conv" in capsys.readouterr().err
