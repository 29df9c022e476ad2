import jax
import numpy as np
import pytest
import safetensors.numpy

from stormpsr_jax.networks import spatial, temporal, vit
from stormpsr_jax.weights import parameters, torch_layout
from stormpsr_jax.weights.command import build_spatial, build_temporal, main, run
from tests.support.golden import SHARED, SHIPPED, needs_shared, under
from tests.support.processes import refused
from tests.support.weights_data import command, random_state

ENCODER = spatial.SpatialEncoder(
    vit.ViT(patch_size=8, width=12, depth=1, num_heads=3, stem=(4, 6)), hidden=6, num_components=5
)
TRANSFORMER = temporal.TemporalTransformer(
    num_components=3, num_frames=4, depth=1, num_heads=2, dim_head=5, mlp_dim=7, head="mlp"
)


def test_load_params_errors_a_flipped_bit_is_named(tmp_path):
    path = tmp_path / "weights.safetensors"
    parameters.save_params(path, {"a": np.ones((3, 2), np.float32)}, {"b": np.zeros(4)})
    content = path.read_bytes()
    for byte in (-1, -30):
        flipped = bytearray(content)
        flipped[byte] ^= 1
        path.write_bytes(flipped)
        with pytest.raises(ValueError, match=r"weights.safetensors is damaged: its arrays differ"):
            parameters.load_params(path)


def test_weights_that_are_not_finite_start_no_training(tmp_path):
    path, fresh = tmp_path / "weights.safetensors", {"a": np.ones((3, 2), np.float32)}
    parameters.save_params(path, {"a": np.array([[1, 2], [np.nan, 4], [5, 6]], np.float32)})
    with pytest.raises(ValueError, match=r"weights.safetensors: params/a holds numbers that are n"):
        parameters.initialise_from(path, fresh, {})


def test_import_layout_of_our_file(tmp_path):
    state = random_state("spatial")
    params, stats = torch_layout.from_state_dict(state, "spatial")
    parameters.save_params(tmp_path / "a.safetensors", params, stats, {"steps": 3, "source": "x"})
    with safetensors.safe_open(tmp_path / "a.safetensors", framework="numpy") as file:
        own = {k: v for k, v in file.metadata().items() if k not in ("format", "sha256")}
        assert own == {"steps": "3", "source": '"x"'}
        kernel = file.get_tensor("params/encoder/block_1/attn/qkv/kernel")
        variance = file.get_tensor("batch_stats/first_head/norm/var")
    np.testing.assert_array_equal(kernel, state["encoder.blocks.1.attn.qkv.weight"].T)
    np.testing.assert_array_equal(variance, state["first_head.1.running_var"])
    loaded = parameters.load_params(tmp_path / "a.safetensors")
    jax.tree.map(np.testing.assert_array_equal, loaded, (params, stats))


@pytest.mark.parametrize("kind", parameters.KINDS)
def test_import_then_export_gives_the_state_dict_back_and_names_that_do_not_fit(tmp_path, kind):
    state, ours = random_state(kind), tmp_path / "ours.safetensors"
    np.savez(tmp_path / "in.npz", **state)
    back = tmp_path / f"back.{'npz' if kind == 'vit' else 'safetensors'}"
    assert command("import", kind=kind, checkpoint=tmp_path / "in.npz", out=ours) == 0
    assert command("export", kind=kind, checkpoint=ours, out=back) == 0
    again = np.load(back) if kind == "vit" else safetensors.numpy.load_file(back)
    assert set(again) == set(state)
    for name, value in state.items():
        np.testing.assert_array_equal(again[name], value)
    gone = [sorted(state)[0], sorted(state)[-1]]
    for name in gone:
        del state[name]
    state["blocks.0.gamma"] = state["extra.weight"] = np.zeros(1, np.float32)
    with pytest.raises(ValueError, match="do not fit") as error:
        torch_layout.from_state_dict(state, kind, "FILE")
    missing, unexpected = str(error.value).split("; unexpected: ")
    assert all(name in missing for name in gone)
    assert unexpected == "blocks.0.gamma, extra.weight"


def test_builders_models_of_every_option_are_rebuilt_from_their_parameters():
    images, encoder = np.zeros((2, 16, 16, 3), np.float32), ENCODER.clone(projection=4)
    fresh = jax.eval_shape(encoder.init, jax.random.key(0), images)
    rebuilt = build_spatial(fresh["params"], 3)
    assert jax.eval_shape(rebuilt.init, jax.random.key(0), images) == fresh
    clips = np.zeros((1, 4, 6), np.float32)
    fresh = jax.eval_shape(TRANSFORMER.init, jax.random.key(0), clips)
    rebuilt = build_temporal(fresh["params"], 2)
    assert jax.eval_shape(rebuilt.init, jax.random.key(0), clips) == fresh


def test_import_our_own_additions_pass_whole_and_are_missed_in_part(tmp_path, capsys):
    key = jax.random.key(0)
    shapes = {
        "spatial": jax.eval_shape(ENCODER.init, key, np.zeros((2, 16, 16, 3))),
        "temporal": jax.eval_shape(TRANSFORMER.init, key, np.zeros((1, 4, 6))),
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
        parameters.save_params(files["checkpoint"], params, stats)
        assert command("import", kind=kind, **files) == 0, capsys.readouterr().err
        whole = safetensors.numpy.load_file(files["checkpoint"])
        again = safetensors.numpy.load_file(files["out"])
        assert set(again) == set(whole)
        for gone in (n for n in whole if "stem_" in n or "state_head" in n or "hidden" in n):
            part = {n: v for n, v in whole.items() if n != gone}
            safetensors.numpy.save_file(part, files["checkpoint"], {"format": parameters.FORMAT})
            assert command("import", kind=kind, **files) == 2
            assert f"missing: {gone}; unexpected: none" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("file", "kind", "heads", "outputs", "ending"),
    [
        (SHIPPED / "temporal", "temporal", {"temporal_heads": 2}, {"logits": "logits"}, "npz"),
        pytest.param(
            *(SHARED / "contrastive_tiny", "vit"),
            *({"heads": 3}, {"features": "eval/encoder"}, "npz"),
            marks=needs_shared,
        ),
        pytest.param(
            *(SHARED / "contrastive_tiny", "spatial", {"heads": 3}),
            *({"embedding": "eval/embedding", "projection": "eval/projection"}, "safetensors"),
            marks=needs_shared,
        ),
        pytest.param(
            *(SHARED / "storm_tiny", "storm"),
            *({"heads": 3, "temporal_heads": 2}, {"logits": "logits"}, "ours"),
            marks=needs_shared,
        ),
    ],
)
def test_run_golden_outputs(tmp_path, file, kind, heads, outputs, ending):
    golden = np.load(file.with_suffix(".npz"))
    state = under(golden, "sd/encoder." if kind == "vit" else "sd/")
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


def test_run_chunks_do_not_change_the_outputs():
    params, stats = torch_layout.from_state_dict(random_state("storm"), "storm")
    x = np.random.default_rng(0).normal(size=(3, 4, 12, 12, 3))
    whole = run("storm", params, stats, x, 2, 2)["logits"]
    assert whole.shape == (3, 3)
    parts = run("storm", params, stats, x, 2, 2, chunk=8)["logits"]
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
def test_run_errors_are_one_line_and_exit_2(tmp_path, capsys, flags, shape, message):
    np.savez(tmp_path / "vit.npz", **random_state("vit"))
    np.savez(tmp_path / "in.npz", x=np.zeros(shape, np.float32))
    files = {"checkpoint": "vit.npz", "inputs": "in.npz", "out": "out.npz"}
    given = {k: tmp_path / flags.get(k, name) for k, name in files.items()}
    assert command("run", kind="vit", **(flags | given)) == 2
    error = capsys.readouterr().err
    assert message in error


def test_a_wrong_flag_is_one_line_too(capsys):
    said = refused(capsys, main, ["import", "--kind=resnet"])
    assert said.startswith("error: argument --kind: invalid choice: 'resnet'")
