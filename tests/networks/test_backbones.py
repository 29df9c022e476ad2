"""Backbones by name, and published ViTs against what timm and transformers compute."""

import json

import numpy as np
import pytest
import safetensors.numpy

from stormpsr_jax.configs import default
from stormpsr_jax.networks import backbones, vit
from stormpsr_jax.weights import parameters
from stormpsr_jax.weights.backbones import fields_of
from tests.support.weights_data import FIXTURES, command, published

CASES = sorted(path.stem for path in FIXTURES.glob("*.npz"))


def run(path, arrays, i, folder):
    np.savez(folder / "x.npz", x=np.float32(arrays[f"x{i}"]))
    files = {"checkpoint": path, "inputs": folder / "x.npz", "out": folder / "y.npz"}
    assert command("run", kind="vit", heads=arrays["heads"], **files) == 0
    return np.load(folder / "y.npz")["features"]


@pytest.mark.parametrize("name", CASES)
def test_run_matches_the_library_at_every_size(name, tmp_path):
    """At the model's own size as published, and at another one as imported."""
    path, arrays = published(name, tmp_path)
    ours = tmp_path / "ours.safetensors"
    assert command("import", kind="vit", checkpoint=path, out=ours) == 0
    for i, file in enumerate((path, ours)):
        found = run(file, arrays, i, tmp_path)
        np.testing.assert_allclose(found, arrays[f"y{i}"], atol=1e-4)
        assert np.abs(arrays[f"y{i}"]).max() > 0.3


def test_backbones_match_the_models_that_timm_builds():
    """Read off timm's own models by the maker of the fixtures, among them widths of SwiGLU."""
    table = json.loads((FIXTURES / "timm.json").read_text())
    assert set(table) == {name for name in backbones.VITS if "/" not in name}
    for name, row in table.items():
        module = vit.ViT(**backbones.VITS[name])
        found = {key: getattr(module, key) for key in row}
        assert json.loads(json.dumps(found)) == row, name  # tuples are lists there


def test_the_largest_dinov3_has_no_bias_of_queries_and_values():
    """In neither library; all other DINOv3 of transformers do."""
    names = [name for name in backbones.VITS if name.startswith("facebook/dinov3-")]
    without = {name for name in names if backbones.VITS[name]["bias"] == "none"}
    assert without == {f"facebook/dinov3-vit7b16-pretrain-{of}" for of in ("lvd1689m", "sat493m")}
    assert backbones.VITS["vit_7b_patch16_dinov3"]["bias"] == "none"


def test_fields_numbers_of_the_config_replace_the_backbones():
    encoder = default.get_config().encoder
    assert backbones.build(encoder) == vit.ViT()  # the paper's ViT-S/16
    encoder.backbone, encoder.width, encoder.depth = "vit_giant_patch14_dinov2", 48, 2
    found = backbones.build(encoder)
    assert (found.width, found.depth, found.mlp_dim) == (48, 2, 128)
    assert (found.num_heads, found.patch_size, found.mlp) == (24, 14, "swiglu")


@pytest.mark.parametrize("name", CASES)
def test_fields_of_epsilon_follows_the_family_and_the_library(name, tmp_path):
    """It moves features by less than the comparison with the libraries notices."""
    path, _ = published(name, tmp_path)
    params, _, library = parameters.load_any(path, "vit")
    assert library == name.split("_")[0]
    small = {"transformers_vit": 1e-12, "timm_clip": 1e-5}.get(name, 1e-6)
    expected = 1e-5 if "dinov3" in name else small
    assert fields_of(params, 2, library)["norm_eps"] == expected


@pytest.mark.parametrize("name", [name for name in CASES if name.startswith("timm_")])
def test_export_gives_timms_file_back(name, tmp_path):
    path, _arrays = published(name, tmp_path)
    ours, back = tmp_path / "ours.safetensors", tmp_path / "back.safetensors"
    assert command("import", kind="vit", checkpoint=path, out=ours) == 0
    assert command("export", kind="vit", checkpoint=ours, out=back) == 0
    state, again = (safetensors.numpy.load_file(file) for file in (path, back))
    if name == "timm_clip":  # its patches have no bias, ours one of 0
        assert not again.pop("patch_embed.proj.bias").any()
    if name == "timm_all_positions":  # positions of tokens that are no patches are in the tokens
        positions = state["pos_embed"]
        state["cls_token"] = state["cls_token"] + positions[:, :1]
        state["reg_token"] = state["reg_token"] + positions[:, 1:3]
        state["pos_embed"] = positions[:, 3:]
    assert set(again) == set(state)
    for key, value in state.items():
        np.testing.assert_array_equal(again[key], value)


def test_export_of_transformers_files_is_in_timms_names(tmp_path):
    """Of what timm can hold, too: a DINOv3 with its biases is timm's `_qkvb`."""
    path, _arrays = published("transformers_dinov3_plus", tmp_path)
    ours, back = tmp_path / "ours.safetensors", tmp_path / "back.safetensors"
    assert command("import", kind="vit", checkpoint=path, out=ours) == 0
    assert command("export", kind="vit", checkpoint=ours, out=back) == 0
    theirs, _ = published("timm_dinov3_qkvb_plus", tmp_path)
    exported, known = safetensors.numpy.load_file(back), safetensors.numpy.load_file(theirs)
    assert set(exported) == set(known)


def test_run_takes_the_names_that_transformers_has_in_memory_and_in_classifiers(tmp_path):
    path, arrays = published("transformers_dinov3", tmp_path)
    state = safetensors.numpy.load_file(path)
    renamed = {
        f"dinov3_vit.{key.replace('layer.', 'model.layer.', 1)}": v for key, v in state.items()
    }
    assert any(key.startswith("dinov3_vit.model.layer.0.") for key in renamed)
    renamed["classifier.weight"] = np.zeros((3, 16), np.float32)
    safetensors.numpy.save_file(renamed, path)
    found = run(path, arrays, 0, tmp_path)
    np.testing.assert_allclose(found, arrays["y0"], atol=1e-4)


KEYS, CUT = "layer.0.attention.k_proj.weight", np.zeros((15, 16), np.float32)
# Of a DINOv3's state dict which array is another one, or gone, and what the error says.
DAMAGED = {
    "a block lacks its gain": ("layer.1.layer_scale1.lambda1", None, "missing: blocks.1.ls1"),
    "no keys": (KEYS, None, "blocks.0.attn.qkv.weight"),
    "keys narrow": (KEYS, CUT.T, "parts of blocks.0 do not fit"),
    "twice": ("model.layer.0.norm1.bias", CUT[0], "both mean blocks.0.norm1.bias"),
    "more": ("layer.0.attention.q_norm.weight", CUT[0], "unexpected: blocks.0.attention.q_n"),
    "gate alone": ("layer.0.mlp.up_proj.weight", None, "missing: blocks.0.mlp.fc1.weight"),
    "registers flat": ("embeddings.register_tokens", CUT, "reg_token (15, 16) should have 3"),
}


@pytest.mark.parametrize("how", DAMAGED)
def test_import_errors_name_the_file_and_what_is_wrong(how, tmp_path, capsys):
    name, array, message = DAMAGED[how]
    path, _ = published("transformers_dinov3_plus", tmp_path)
    state = safetensors.numpy.load_file(path) | {name: array}
    safetensors.numpy.save_file({k: v for k, v in state.items() if v is not None}, path)
    out = tmp_path / "out.safetensors"
    assert command("import", kind="vit", checkpoint=path, out=out) == 2
    error = capsys.readouterr().err
    assert str(path) in error
    assert message in error
    assert error.count("\n") == 1
    assert not out.exists()
