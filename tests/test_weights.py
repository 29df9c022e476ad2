"""Import, export, run and initialise_from, on golden checkpoints and on tiny random ones."""

import errno
import os
import subprocess
import sys
from pathlib import Path
from unittest import mock

import jax
import numpy as np
import pytest
import safetensors.numpy
from PIL import Image

from stormpsr_jax import torch_layout, weights
from stormpsr_jax.models import spatial, temporal, temporal_baselines, vit
from stormpsr_jax.stages import pretrain

GOLDEN = Path(__file__).parents[1] / "../shared/golden/parity"
needs_golden = pytest.mark.skipif(not GOLDEN.exists(), reason="needs ../shared/golden")


def random_state(kind: str, seed: int = 0, depth: int = 2) -> dict[str, np.ndarray]:
    """A state dict in the released layout, written out by hand: width 8, patch 4, 3x3 patches."""
    shapes: dict[str, tuple[int, ...]] = {}

    def linear(name, fan_out, fan_in, bias=True):
        shapes[f"{name}.weight"] = (fan_out, fan_in)
        if bias:
            shapes[f"{name}.bias"] = (fan_out,)

    def norm(name, width, running=False):
        for leaf in ("weight", "bias", *(("running_mean", "running_var") if running else ())):
            shapes[f"{name}.{leaf}"] = (width,)

    def encoder(p):
        shapes[f"{p}cls_token"] = (1, 1, 8)
        shapes[f"{p}pos_embed"] = (1, 10, 8)
        shapes[f"{p}patch_embed.proj.weight"] = (8, 3, 4, 4)
        shapes[f"{p}patch_embed.proj.bias"] = (8,)
        for i in range(depth):
            norm(f"{p}blocks.{i}.norm1", 8)
            linear(f"{p}blocks.{i}.attn.qkv", 24, 8)
            linear(f"{p}blocks.{i}.attn.proj", 8, 8)
            norm(f"{p}blocks.{i}.norm2", 8)
            linear(f"{p}blocks.{i}.mlp.fc1", 20, 8)
            linear(f"{p}blocks.{i}.mlp.fc2", 8, 20)
        norm(f"{p}norm", 8)

    if kind == "vit":
        encoder("")
    if kind in ("spatial", "storm"):
        p = "spatial_enc." if kind == "storm" else ""
        encoder(f"{p}encoder.")
        linear(f"{p}first_head.0", 6, 8)
        norm(f"{p}first_head.1", 6, running=True)
        linear(f"{p}second_head.0", 7, 6)
        norm(f"{p}second_head.1", 7, running=True)
        linear(f"{p}second_head.3", 5, 7)
    if kind in ("temporal", "storm"):
        shapes["temporal_enc.cls_token"] = (1, 1, 6)
        shapes["temporal_enc.pos_embedding"] = (1, 5, 6)
        for i in range(depth):
            p = f"temporal_enc.layers.{i}"
            norm(f"{p}.0.fn.norm", 6)
            linear(f"{p}.0.fn.fn.to_qkv", 24, 6, bias=False)
            linear(f"{p}.0.fn.fn.to_out.0", 6, 8)
            norm(f"{p}.1.fn.norm", 6)
            linear(f"{p}.1.fn.fn.net.0", 9, 6)
            linear(f"{p}.1.fn.fn.net.3", 6, 9)
        norm("mlp_head.0", 6)
        linear("mlp_head.1", 3, 6)
    rng = np.random.default_rng(seed)
    return {
        name: np.abs(rng.normal(size=shape)).astype(np.float32) + 0.1
        if name.endswith("running_var")
        else rng.normal(size=shape).astype(np.float32)
        for name, shape in shapes.items()
    }


def command(name: str, **flags) -> int:
    return weights.main([name, *(f"--{flag}={value}" for flag, value in flags.items())])


@pytest.fixture(scope="module")
def tiny_encoder():
    """A SpatialEncoder of the sizes of random_state("spatial"), freshly initialised."""
    model = spatial.SpatialEncoder(
        patch_size=4,
        width=8,
        depth=2,
        num_heads=2,
        mlp_dim=20,
        hidden=6,
        second_hidden=7,
        projection=5,
    )
    images = np.zeros((2, 12, 12, 3), np.float32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), images)
    # Told apart from random_state by value; compiling init would take seconds.
    variables = jax.tree.map(lambda leaf: np.full(leaf.shape, 0.5, leaf.dtype), shapes)
    return variables["params"], variables["batch_stats"]


# --- run ------------------------------------------------------------------------------------------


@needs_golden
@pytest.mark.parametrize(
    ("file", "kind", "heads", "outputs", "ending"),
    [
        ("contrastive_tiny", "vit", {"heads": 3}, {"features": "eval/encoder"}, "npz"),
        (
            "contrastive_tiny",
            "spatial",
            {"heads": 3},
            {"embedding": "eval/embedding", "projection": "eval/projection"},
            "safetensors",
        ),
        ("vtn_tiny", "temporal", {"temporal_heads": 2}, {"logits": "logits"}, "npz"),
        ("storm_tiny", "storm", {"heads": 3, "temporal_heads": 2}, {"logits": "logits"}, "ours"),
    ],
)
def test_run_golden_outputs(tmp_path, file, kind, heads, outputs, ending):
    golden = np.load(GOLDEN / f"{file}.npz")
    prefix = "sd/encoder." if kind == "vit" else "sd/"
    state = {n.removeprefix(prefix): golden[n] for n in golden.files if n.startswith(prefix)}
    checkpoint = tmp_path / f"checkpoint.{'safetensors' if ending == 'ours' else ending}"
    if ending == "npz":
        np.savez(checkpoint, **state)
    else:
        safetensors.numpy.save_file(state, checkpoint)
    if ending == "ours":
        imported = tmp_path / "ours.safetensors"
        assert command("import", kind=kind, checkpoint=checkpoint, out=imported) == 0
        checkpoint = imported
    x = golden["x"] if kind == "temporal" else np.moveaxis(golden["x"], -3, -1)
    np.savez(tmp_path / "in.npz", x=x)
    files = {"inputs": tmp_path / "in.npz", "out": tmp_path / "out.npz"}
    assert command("run", kind=kind, checkpoint=checkpoint, **files, **heads) == 0
    written = np.load(tmp_path / "out.npz")
    assert set(written.files) == set(outputs)
    for name, expected in outputs.items():
        np.testing.assert_allclose(written[name], golden[expected], atol=1e-5)


def test_run_property_chunks_do_not_change_the_outputs():
    params, stats = torch_layout.from_state_dict(random_state("storm"), "storm")
    x = np.random.default_rng(0).normal(size=(3, 4, 12, 12, 3))
    whole = weights.run("storm", params, stats, x, 2, 2)["logits"]
    assert whole.shape == (3, 3)
    parts = weights.run("storm", params, stats, x, 2, 2, chunk=8)["logits"]
    np.testing.assert_allclose(parts, whole, atol=1e-5)


@pytest.mark.parametrize(
    ("flags", "shape", "message"),
    [
        ({}, (1, 12, 12, 3), "--heads=0 does not divide the width 8; give --heads"),
        ({"heads": 3}, (1, 12, 12, 3), "--heads=3 does not divide"),
        ({"heads": 2}, (1, 3, 12, 12), "--kind=vit takes (N, H, W, 3)"),
        ({"heads": 2}, (1, 12, 13, 3), "12x13 is not a multiple of patch 4"),
        ({"heads": 2, "out": "out.csv"}, (1, 12, 12, 3), "must end in .npz"),
        ({"heads": 2, "inputs": "absent.npz"}, (1, 12, 12, 3), "absent.npz"),
        ({"heads": 2, "checkpoint": "absent.pth"}, (1, 12, 12, 3), "absent.pth"),
    ],
)
def test_run_property_errors_are_one_line_and_exit_2(tmp_path, capsys, flags, shape, message):
    np.savez(tmp_path / "vit.npz", **random_state("vit"))
    np.savez(tmp_path / "in.npz", x=np.zeros(shape, np.float32))
    files = {"checkpoint": "vit.npz", "inputs": "in.npz", "out": "out.npz"}
    given = {k: tmp_path / flags.get(k, name) for k, name in files.items()}
    assert command("run", kind="vit", **(flags | given)) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


# --- import and export ----------------------------------------------------------------------------


def test_load_params_errors_a_flipped_bit_is_named(tmp_path):
    path = tmp_path / "weights.safetensors"
    weights.save_params(path, {"a": np.ones((3, 2), np.float32)}, {"b": np.zeros(4)})
    content = path.read_bytes()
    for byte in (-1, -30):
        flipped = bytearray(content)
        flipped[byte] ^= 1
        path.write_bytes(flipped)
        with pytest.raises(ValueError, match=r"weights.safetensors is damaged: its arrays differ"):
            weights.load_params(path)


@pytest.mark.parametrize("kind", weights.KINDS)
@pytest.mark.parametrize("ending", ["npz", "safetensors"])
def test_import_then_export_property_gives_the_state_dict_back(tmp_path, kind, ending):
    state = random_state(kind)
    np.savez(tmp_path / "in.npz", **state)
    ours, back = tmp_path / "ours.safetensors", tmp_path / f"back.{ending}"
    assert command("import", kind=kind, checkpoint=tmp_path / "in.npz", out=ours) == 0
    assert command("export", kind=kind, checkpoint=ours, out=back) == 0
    again = np.load(back) if ending == "npz" else safetensors.numpy.load_file(back)
    assert set(again) == set(state)
    for name, value in state.items():
        np.testing.assert_array_equal(again[name], value)


def test_import_property_layout_of_our_file(tmp_path):
    state = random_state("spatial")
    params, stats = torch_layout.from_state_dict(state, "spatial")
    weights.save_params(tmp_path / "a.safetensors", params, stats, {"steps": 3, "source": "x"})
    with safetensors.safe_open(tmp_path / "a.safetensors", framework="numpy") as file:
        own = {k: v for k, v in file.metadata().items() if k not in ("format", "sha256")}
        assert own == {"steps": "3", "source": '"x"'}
        kernel = file.get_tensor("params/encoder/block_1/attn/qkv/kernel")
        variance = file.get_tensor("batch_stats/first_head/norm/var")
    np.testing.assert_array_equal(kernel, state["encoder.blocks.1.attn.qkv.weight"].T)
    np.testing.assert_array_equal(variance, state["first_head.1.running_var"])
    loaded = weights.load_params(tmp_path / "a.safetensors")
    jax.tree.map(np.testing.assert_array_equal, loaded, (params, stats))


def test_save_params_property_files_are_whole_and_readable_by_whom_the_umask_lets(
    tmp_path, monkeypatch
):
    path = tmp_path / "a.safetensors"
    before = os.umask(0o027)
    try:
        weights.save_params(path, {"w": np.ones(3, np.float32)})
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o640

    def full(self, content):
        self.touch()
        raise OSError(errno.ENOSPC, "No space left on device", str(self))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left") as caught:
        weights.save_params(path, {"w": np.zeros(3, np.float32)})
    assert caught.value.filename == str(path)
    np.testing.assert_array_equal(weights.load_params(path)[0]["w"], 1)
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]


@pytest.mark.parametrize("kind", weights.KINDS)
def test_import_property_missing_and_unexpected_names_are_all_listed(kind):
    state = random_state(kind)
    gone = [sorted(state)[0], sorted(state)[-1]]
    for name in gone:
        del state[name]
    state["blocks.0.gamma"] = state["extra.weight"] = np.zeros(1, np.float32)
    with pytest.raises(ValueError, match="do not fit") as error:
        torch_layout.from_state_dict(state, kind, "FILE")
    missing, unexpected = str(error.value).split("; unexpected: ")
    assert all(name in missing for name in gone)
    assert unexpected == "blocks.0.gamma, extra.weight"


def test_import_property_a_gap_between_blocks_is_listed():
    state = random_state("vit", depth=3)
    state = {n: v for n, v in state.items() if not n.startswith("blocks.1.")}
    with pytest.raises(ValueError, match=r"missing: blocks\.1\.attn.*unexpected: none"):
        torch_layout.from_state_dict(state, "vit")
    state["blocks.999999999999.norm1.weight"] = np.zeros(8)
    with pytest.raises(ValueError, match=r"unexpected: blocks\.999999999999\.norm1\.weight"):
        torch_layout.from_state_dict(state, "vit")


def test_import_property_counters_and_timms_classifier_are_left_out():
    state = random_state("spatial")
    expected = torch_layout.from_state_dict(state, "spatial")
    state["first_head.1.num_batches_tracked"] = np.array(7)
    got = torch_layout.from_state_dict(state, "spatial")
    jax.tree.map(np.testing.assert_array_equal, got, expected)
    state = random_state("vit") | {"head.weight": np.zeros((9, 8)), "head.bias": np.zeros(9)}
    assert "head" not in torch_layout.from_state_dict(state, "vit")[0]


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("patch_embed.proj.weight", (8, 4, 4, 4), "not (width, 3, p, p)"),
        ("blocks.0.norm1.weight", (8, 1), "should have 1 axes"),
        ("blocks.1.mlp.fc1.weight", (20, 9), "block_1/fc1"),
        ("pos_embed", (1, 10, 9), "pos_embed"),
    ],
)
def test_import_property_shapes_that_do_not_fit_are_named(tmp_path, capsys, name, shape, message):
    state = random_state("vit") | {name: np.zeros(shape, np.float32)}
    np.savez(tmp_path / "vit.npz", **state)
    out = tmp_path / "out.safetensors"
    assert command("import", kind="vit", checkpoint=tmp_path / "vit.npz", out=out) == 2
    assert message in capsys.readouterr().err
    assert not out.exists()


def test_export_property_what_has_no_place_is_listed_except_the_state_head(tiny_encoder):
    params, stats = tiny_encoder
    plain = torch_layout.to_state_dict(params, stats, "spatial")
    assert set(plain) == set(random_state("spatial"))
    with_head = params | {"state_head": {"kernel": np.zeros((6, 3)), "bias": np.zeros(3)}}
    assert set(torch_layout.to_state_dict(with_head, stats, "spatial")) == set(plain)
    model = vit.ViT(patch_size=4, width=8, depth=1, num_heads=2, stem=(4,))
    shapes = jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, 8, 8, 3)))["params"]
    params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    with pytest.raises(ValueError, match=r"unexpected: params/stem_0/bias.*stem_norm_0"):
        torch_layout.to_state_dict(params, {}, "vit")


def test_builders_property_models_of_every_option_are_rebuilt_from_their_parameters():
    images = np.zeros((2, 16, 16, 3), np.float32)
    encoder = spatial.SpatialEncoder(
        patch_size=8,
        width=12,
        depth=1,
        num_heads=3,
        stem=(4, 6),
        hidden=6,
        projection=4,
        num_components=5,
    )
    fresh = jax.eval_shape(encoder.init, jax.random.key(0), images)
    rebuilt = weights.build_spatial(fresh["params"], 3)
    assert jax.eval_shape(rebuilt.init, jax.random.key(0), images) == fresh
    clips = np.zeros((1, 4, 6), np.float32)
    transformer = temporal.TemporalTransformer(
        num_components=3, num_frames=4, depth=1, num_heads=2, dim_head=5, mlp_dim=7, head="mlp"
    )
    fresh = jax.eval_shape(transformer.init, jax.random.key(0), clips)
    rebuilt = weights.build_temporal(fresh["params"], 2)
    assert jax.eval_shape(rebuilt.init, jax.random.key(0), clips) == fresh


def test_commands_property_our_file_of_another_kind_is_an_error(tmp_path, capsys):
    params, stats = torch_layout.from_state_dict(random_state("spatial"), "spatial")
    weights.save_params(tmp_path / "a.safetensors", params, stats)
    out = tmp_path / "b.npz"
    for kind in ("vit", "temporal", "storm"):
        assert command("export", kind=kind, checkpoint=tmp_path / "a.safetensors", out=out) == 2
        assert f"no --kind={kind}: it holds encoder, first_head" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["export", "import"])
@pytest.mark.parametrize("backbone", ["TemporalMLP", "TemporalLSTM", "TemporalTCN"])
def test_commands_property_other_temporal_back_ends_are_an_error(tmp_path, capsys, name, backbone):
    model = getattr(temporal_baselines, backbone)(num_components=3)
    fresh = jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, 4, 6)))["params"]
    params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), fresh)
    weights.save_params(tmp_path / "a.safetensors", params)
    files = {"checkpoint": tmp_path / "a.safetensors", "out": tmp_path / "b.safetensors"}
    assert command(name, kind="temporal", **files) == 2
    error = capsys.readouterr().err
    assert "no --kind=temporal: it holds" in error
    assert "only the transformer" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("name", ["export", "import"])
@pytest.mark.parametrize("kind", weights.KINDS)
def test_commands_property_what_our_truncated_file_lacks_is_listed(tmp_path, capsys, name, kind):
    params, stats = torch_layout.from_state_dict(random_state(kind), kind)
    weights.save_params(tmp_path / "whole.safetensors", params, stats)
    whole = safetensors.numpy.load_file(tmp_path / "whole.safetensors")
    keep = f"params/{weights.LANDMARKS[kind]}"
    files = {"checkpoint": tmp_path / "a.safetensors", "out": tmp_path / "b.safetensors"}
    for gone in sorted(whole):
        part = {n: v for n, v in whole.items() if n != gone}
        if any(n.startswith(keep) for n in part):
            safetensors.numpy.save_file(part, files["checkpoint"], {"format": weights.FORMAT})
            assert command(name, kind=kind, **files) == 2
            error = capsys.readouterr().err
            assert f"a.safetensors: the names do not fit the model; missing: {gone}; unex" in error
    # Cut off in the middle, and with an array of another form.
    part = {n: v for n, v in whole.items() if n.startswith(keep)}
    safetensors.numpy.save_file(part, files["checkpoint"], {"format": weights.FORMAT})
    assert command(name, kind=kind, **files) == 2
    error = capsys.readouterr().err
    missing = error.split("missing: ")[1].split("; unexpected: none")[0].split(", ")
    # Without any block left, nothing says that there were two.
    assert missing == sorted(n for n in whole if n not in part and "/block_1/" not in n)
    for changed in sorted(whole):
        other = whole | {changed: whole[changed][None]}
        safetensors.numpy.save_file(other, files["checkpoint"], {"format": weights.FORMAT})
        assert command(name, kind=kind, **files) == 2
        assert f"a.safetensors: {changed} (1, " in capsys.readouterr().err


def test_import_property_our_own_additions_pass_whole_and_are_missed_in_part(tmp_path, capsys):
    encoder = spatial.SpatialEncoder(
        patch_size=8, width=12, depth=1, num_heads=3, stem=(4, 6), hidden=6, num_components=5
    )
    transformer = temporal.TemporalTransformer(
        num_components=3, num_frames=4, depth=1, num_heads=2, dim_head=5, mlp_dim=7, head="mlp"
    )
    key = jax.random.key(0)
    shapes = {
        "spatial": jax.eval_shape(encoder.init, key, np.zeros((2, 16, 16, 3))),
        "temporal": jax.eval_shape(transformer.init, key, np.zeros((1, 4, 6))),
    }
    fresh = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    parts = {
        "spatial": (fresh["spatial"]["params"], fresh["spatial"]["batch_stats"]),
        "temporal": (fresh["temporal"]["params"], {}),
        "vit": (fresh["spatial"]["params"]["encoder"], {}),
        "storm": (
            {name: part["params"] for name, part in fresh.items()},
            {"spatial": fresh["spatial"]["batch_stats"]},
        ),
    }
    files = {"checkpoint": tmp_path / "a.safetensors", "out": tmp_path / "b.safetensors"}
    for kind, (params, stats) in parts.items():
        weights.save_params(files["checkpoint"], params, stats)
        assert command("import", kind=kind, **files) == 0, capsys.readouterr().err
        whole = safetensors.numpy.load_file(files["checkpoint"])
        again = safetensors.numpy.load_file(files["out"])
        assert set(again) == set(whole)
        for gone in (n for n in whole if "stem_" in n or "state_head" in n or "hidden" in n):
            part = {n: v for n, v in whole.items() if n != gone}
            safetensors.numpy.save_file(part, files["checkpoint"], {"format": weights.FORMAT})
            assert command("import", kind=kind, **files) == 2
            assert f"missing: {gone}; unexpected: none" in capsys.readouterr().err


# --- Position embeddings --------------------------------------------------------------------------


def test_resize_position_embedding_property_smooth_fields_survive():
    # A bicubic kernel reproduces straight lines away from the border.
    rows, columns = np.mgrid[0:8, 0:8] + 0.5
    field = np.stack([rows, columns, 2 * rows - columns], -1).reshape(1, 64, 3)
    pos = np.concatenate([np.full((1, 1, 3), 9.0), field], axis=1).astype(np.float32)
    out = weights.resize_position_embedding(pos, (16, 4))
    assert out.shape == (1, 65, 3)
    np.testing.assert_array_equal(out[:, 0], pos[:, 0])
    grid = out[0, 1:].reshape(16, 4, 3)[4:-4, 1:-1]
    rows, columns = np.mgrid[4:12, 1:3] + 0.5
    expected = np.stack([rows / 2, columns * 2, rows - 2 * columns], -1)
    # Antialiasing widens the kernel fourfold, so columns feel the border a little.
    np.testing.assert_allclose(grid[..., 0], expected[..., 0], atol=1e-4)
    np.testing.assert_allclose(grid, expected, atol=0.1)


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
    out = weights.resize_position_embedding(pos, new, old)
    np.testing.assert_array_equal(out[:, 0], pos[:, 0])
    for channel in range(4):
        field = Image.fromarray(pos[0, 1:, channel].reshape(old))
        assert field.mode == "F"
        expected = np.asarray(field.resize(new[::-1], Image.Resampling.BICUBIC))
        np.testing.assert_allclose(out[0, 1:, channel].reshape(new), expected, atol=1e-5)


def test_resize_position_embedding_property_same_grid_is_the_identity_and_oblong_is_asked_for():
    pos = np.random.default_rng(0).normal(size=(1, 13, 2)).astype(np.float32)
    same = weights.resize_position_embedding(pos, (3, 4), (3, 4))
    np.testing.assert_allclose(same, pos, atol=1e-6)
    with pytest.raises(ValueError, match="12 patches make no square grid"):
        weights.resize_position_embedding(pos, (3, 4))


# --- initialise_from ------------------------------------------------------------------------------


def test_initialise_from_property_takes_everything_of_a_file_of_the_same_model(
    tmp_path, tiny_encoder
):
    path = tmp_path / "a.safetensors"
    loaded = torch_layout.from_state_dict(random_state("spatial"), "spatial")
    weights.save_params(path, *loaded)
    params, stats, report = weights.initialise_from(path, *tiny_encoder)
    jax.tree.map(np.testing.assert_array_equal, (params, stats), loaded)
    assert len(report) == len(jax.tree.leaves(loaded))


def test_initialise_from_property_a_bare_vit_leaves_the_heads_fresh(tmp_path, tiny_encoder):
    fresh_params, fresh_stats = tiny_encoder
    path = tmp_path / "vit.safetensors"
    loaded, _ = torch_layout.from_state_dict(random_state("vit"), "vit")
    weights.save_params(path, loaded)
    params, stats, report = weights.initialise_from(path, fresh_params, fresh_stats)
    jax.tree.map(np.testing.assert_array_equal, params["encoder"], loaded)
    for head in ("first_head", "second_head", "projection_head"):
        jax.tree.map(np.testing.assert_array_equal, params[head], fresh_params[head])
    jax.tree.map(np.testing.assert_array_equal, stats, fresh_stats)
    assert all(line.startswith("params/encoder/") for line in report)


def test_initialise_from_property_position_embedding_is_resized_and_said(tmp_path, tiny_encoder):
    state = random_state("spatial")
    small = torch_layout.from_state_dict(state, "spatial")
    weights.save_params(tmp_path / "small.safetensors", *small)
    params = tiny_encoder[0]
    params = params | {"encoder": params["encoder"] | {"pos_embed": np.zeros((1, 26, 8))}}
    got, _, report = weights.initialise_from(
        tmp_path / "small.safetensors", params, tiny_encoder[1]
    )
    expected = weights.resize_position_embedding(state["encoder.pos_embed"], (5, 5))
    np.testing.assert_allclose(got["encoder"]["pos_embed"], expected, atol=1e-6)
    assert sum("resized from 10 to 26 rows" in line for line in report) == 1


def test_initialise_from_property_pictures_need_not_be_square(tmp_path, tiny_encoder, monkeypatch):
    """A square ViT is fitted to a run's oblong pictures; the grid follows from their size."""
    path = tmp_path / "vit.safetensors"
    state = random_state("vit")
    weights.save_params(path, *torch_layout.from_state_dict(state, "vit"))
    params, stats = tiny_encoder
    params = params | {"encoder": params["encoder"] | {"pos_embed": np.zeros((1, 11, 8))}}
    model = mock.Mock(patch_size=4)
    model.init.return_value = {"params": params, "batch_stats": stats}
    monkeypatch.setattr(pretrain.networks, "spatial_encoder", lambda context: model)
    context = mock.Mock(**{"config.init_from": str(path)})
    got, _ = pretrain.starting_point(context, (8, 20))
    expected = weights.resize_position_embedding(state["pos_embed"], (2, 5))
    np.testing.assert_allclose(got["encoder"]["pos_embed"], expected, atol=1e-6)
    # A file of oblong pictures does not tell its grid.
    oblong = random_state("vit") | {"pos_embed": np.zeros((1, 13, 8), np.float32)}
    weights.save_params(path, *torch_layout.from_state_dict(oblong, "vit"))
    with pytest.raises(ValueError, match="12 patches make no square grid; only that of square"):
        pretrain.starting_point(context, (8, 20))


def test_initialise_from_property_what_does_not_fit_is_named(tmp_path, tiny_encoder):
    params, stats = torch_layout.from_state_dict(random_state("spatial"), "spatial")
    path = tmp_path / "a.safetensors"
    with_head = params | {"state_head": {"bias": np.zeros(3, np.float32)}}
    weights.save_params(path, with_head, stats)
    with pytest.raises(ValueError, match="unexpected: params/state_head/bias"):
        weights.initialise_from(path, *tiny_encoder)
    without = {name: value for name, value in params.items() if name != "second_head"}
    weights.save_params(path, without, stats)
    with pytest.raises(ValueError, match=r"missing: params/second_head/dense/bias, .*; unex"):
        weights.initialise_from(path, *tiny_encoder)
    weights.save_params(
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
        weights.initialise_from(path, *tiny_encoder)
    safetensors.numpy.save_file(random_state("spatial"), path)
    with pytest.raises(ValueError, match="weights import"):
        weights.initialise_from(path, *tiny_encoder)


def test_write_safetensors_property_same_bytes_in_every_process(tmp_path):
    """Runs are compared, and stages found unchanged, by the checksums of such files."""
    code = (
        "import sys, numpy as np\n"
        "from stormpsr_jax.weights import write_safetensors\n"
        "arrays = {'b': np.ones(3, np.float32), 'a': np.arange(4.0)}\n"
        "write_safetensors(sys.argv[1], arrays, dict(format='x', stage='y', z='ü'))\n"
    )
    root = Path(__file__).parents[1]
    for i in range(2):
        subprocess.run([sys.executable, "-c", code, tmp_path / str(i)], cwd=root, check=True)
    assert (tmp_path / "0").read_bytes() == (tmp_path / "1").read_bytes()
    with safetensors.safe_open(tmp_path / "0", framework="numpy") as file:
        assert file.metadata() == {"format": "x", "stage": "y", "z": "ü"}
        np.testing.assert_array_equal(file.get_tensor("a"), np.arange(4.0))
    header = (tmp_path / "0").read_bytes()
    assert header.index(b'"format"') < header.index(b'"stage"') < header.index(b'"z"')
