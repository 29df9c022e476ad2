import numpy as np
import pytest
import safetensors.numpy

from stormpsr_jax.weights import forward, torch_layout
from stormpsr_jax.weights.command import main
from tests.support.commands import refused
from tests.support.golden import SHARED, SHIPPED, needs_shared, under
from tests.support.weights_data import command, random_state


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
    whole = forward.run("storm", params, stats, x, 2, 2)["logits"]
    assert whole.shape == (3, 3)
    parts = forward.run("storm", params, stats, x, 2, 2, chunk=8)["logits"]
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
