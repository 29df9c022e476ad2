import dataclasses
import hashlib
import itertools
import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

import stormpsr_jax
from stormpsr_jax import demo
from stormpsr_jax import export as command
from stormpsr_jax.media import sources
from stormpsr_jax.media.pictures import read_upright
from stormpsr_jax.networks.detector import Detector
from stormpsr_jax.networks.temporal import TemporalLSTM, TemporalMLP, TemporalTCN
from stormpsr_jax.serving.content import with_checksum
from stormpsr_jax.serving.exporting import export_model
from stormpsr_jax.training import locator
from tests.support.made_once import made_once
from tests.support.model_data import NETWORKS, PICTURES, SIZE, network, video, with_temporal, write

pytest.importorskip("jax2onnx", reason="pip install --no-deps jax2onnx (docs/recognise.md)")
IMAGES = video(20, *SIZE)


def declare(folder: Path, *roles: str) -> None:
    """Makes model.json name the files that are there, as whoever means harm would."""
    path = folder / "model.json"
    data = json.loads(path.read_text())
    for role in roles or data["networks"]:
        content = (folder / f"{role}.onnx").read_bytes()
        named = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
        data["networks"][role] |= named
    path.write_text(json.dumps(with_checksum(data)))


@pytest.fixture(scope="module")
def sound(tmp_path_factory, system):
    return made_once(tmp_path_factory, "pump", write)


@pytest.fixture(scope="module")
def made(sound, tmp_path_factory):
    return made_once(tmp_path_factory, "pump_onnx", lambda folder: export_model(sound, folder))


@pytest.fixture
def copied(made, tmp_path):
    return shutil.copytree(made, tmp_path / "onnx")


def refusal(folder):
    with pytest.raises(ValueError) as caught:
        stormpsr_jax.load_model(folder)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 700
    assert message.startswith(str(folder))
    return message


def outputs(model, images):
    """All outputs on some rows, a row alone, and none."""
    found = []
    for rows in (images, images[:1], images[:0]):
        embeddings = model.encode(rows)
        clips = embeddings[:, None].repeat(model.window.num_frames, axis=1)
        found += [embeddings, model.temporal(clips), *model.detect(rows)]
        found += jax.tree.leaves(model._function("detect")(rows)[3])
    return found


def test_outputs_of_the_demo_are_those_of_the_model_within_1e_5(system, tmp_path):
    """Of logits, which can be tens, within that share of the largest."""
    ours = stormpsr_jax.load_model("demo")
    export_model("demo", tmp_path / "onnx")
    theirs = stormpsr_jax.load_model(tmp_path / "onnx")
    opened = sources.open_source(demo.VIDEO).open(ours.fps)
    film = itertools.islice(read_upright(opened), 0, 200, 20)
    images = np.stack([ours.preprocess(picture) for picture in film])
    for one, other in zip(outputs(ours, images), outputs(theirs, images), strict=True):
        assert (one.shape, one.dtype) == (other.shape, other.dtype)
        limit = 1e-5 * max(1.0, float(np.abs(one).max(initial=0)))
        np.testing.assert_allclose(one, other, rtol=0, atol=limit)


def test_events_are_those_of_the_model_whole_live_and_from_the_other_ones_state(sound, made):
    ours, theirs = (stormpsr_jax.load_model(f) for f in (sound, made))
    assert ours.streams == theirs.streams
    told = [[(e.frame, e.step_id) for e in m.recognise(IMAGES, variant="assembly")]
            for m in (ours, theirs)]  # fmt: skip
    assert told[0] == told[1] != []
    before, after = ours.live("assembly"), theirs.live("assembly")
    events = [e for i in range(7) for e in before.update(IMAGES[i], i / 10)]
    after.restore(json.loads(json.dumps(before.state())))
    events += [e for i in range(7, 20) for e in after.update(IMAGES[i], i / 10)]
    assert [(e.frame, e.step_id) for e in events] == told[0]


@pytest.mark.parametrize("kind", [TemporalMLP, TemporalTCN, TemporalLSTM])
def test_every_temporal_network_can_be_exported(system, tmp_path, kind):
    depth = {"depth": 2} if kind is TemporalTCN else {}
    with_temporal(tmp_path / "model", kind(num_components=3, width=8, context_frames=3, **depth))
    export_model(tmp_path / "model", tmp_path / "out")
    clips = np.random.default_rng(0).normal(size=(5, 4, 16)).astype(np.float32)
    ours, theirs = (stormpsr_jax.load_model(tmp_path / f) for f in ("model", "out"))
    np.testing.assert_allclose(ours.temporal(clips), theirs.temporal(clips), atol=1e-4)


def test_the_detector_that_turns_pictures_upright_can_be_exported(system, tmp_path):
    module = Detector(num_classes=5, width=4, grid=4, levels=2, num_components=3, upright=True)
    detector = network(module, (1, *SIZE, 3), 3)
    write(tmp_path / "model", networks=NETWORKS | {"detector": detector})
    export_model(tmp_path / "model", tmp_path / "out")
    ours, theirs = (
        jax.tree.leaves(stormpsr_jax.load_model(tmp_path / f)._function("detect")(IMAGES))
        for f in ("model", "out")
    )
    assert len(ours) == len(theirs) == 6
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-3)


def test_a_damaged_program_is_refused(copied):
    path = copied / "temporal.onnx"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert "is not the file whose checksum model.json names" in refusal(copied)
    path.write_bytes(whole + b"x")
    assert f"has {len(whole) + 1:,} bytes, model.json says {len(whole):,}" in refusal(copied)
    for cut in (0, 1, len(whole) // 2):
        path.write_bytes(whole[:cut])
        if cut:
            declare(copied, "temporal")
        assert "temporal.onnx" in refusal(copied)
    path.unlink()
    assert "is missing" in refusal(copied)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda d: d["exported"].update(program="stablehlo"),
            "program: 'stablehlo' is not read; export the model again with --format=onnx",
        ),
        (lambda d: d["networks"]["encoder"].update(rows=10**6), "rows: expected int <= 64"),
        (lambda d: d["networks"]["temporal"].update(width=4), "4, the procedure has 3"),
        (lambda d: d.update(weights={}), "weights: is no field of format 4"),
    ],
)
def test_model_json_of_an_export_is_checked(copied, change, message):
    path = copied / "model.json"
    data = json.loads(path.read_text())
    data.pop("checksum")
    change(data)
    path.write_text(json.dumps(data))
    assert message in refusal(copied)


def test_command_says_what_differs_and_leaves_nothing_after_an_error(sound, tmp_path, capsys):
    words = [f"--model={sound}", "--format=onnx", f"--out={tmp_path / 'new' / 'out'}"]
    assert command.main([*words[:2], "--int8", f"--out={tmp_path / 'int8'}"]) == 0
    less = stormpsr_jax.load_model(tmp_path / "int8").encode(IMAGES)
    whole = stormpsr_jax.load_model(sound).encode(IMAGES)
    assert 0 < np.abs(less - whole).max() < 0.2 * np.abs(whole).max()
    assert command.main(words) == 0
    assert "embeddings differs by " in capsys.readouterr().out
    assert {p.name for p in (tmp_path / "new" / "out").iterdir()} == {
        "README.md", "model.json", "encoder.onnx", "temporal.onnx", "detector.onnx",
    }  # fmt: skip
    assert "exported as onnx: encoder (" in (tmp_path / "new" / "out" / "README.md").read_text()
    for out, model, message in (
        (tmp_path / "new" / "out", sound, "exists already"),
        (tmp_path / "other", tmp_path / "new" / "out", "was exported and has no weights"),
        (tmp_path / "other", tmp_path / "nowhere", "there is no such folder"),
    ):
        with pytest.raises(SystemExit) as ended:
            command.main([f"--model={model}", "--format=onnx", f"--out={out}"])
        assert ended.value.code == 2
        said = capsys.readouterr().err
        assert message in said
        assert said.count("\n") == 1
    assert not [p for p in tmp_path.rglob("*.part")]
    assert not (tmp_path / "other").exists()
    with pytest.raises(SystemExit):
        command.main([words[0], "--format=stablehlo", words[2]])
    assert "--format: invalid choice: 'stablehlo'" in capsys.readouterr().err


def test_an_export_finds_the_product_as_its_model_does(system, tmp_path):
    found = network(locator.network(), (1, 40, 32, 3), 5)
    params = found.variables["params"]
    params["objectness"]["bias"] += 60  # it is sure, and finds something small
    params["sides"]["kernel"] *= 0.01
    params["sides"]["bias"] *= 0
    pictures = dataclasses.replace(PICTURES, locator_size=(40, 32), aspect="pad")
    write(tmp_path / "model", networks=NETWORKS | {"locator": found}, pictures=pictures)
    export_model(tmp_path / "model", tmp_path / "onnx")
    views = []
    for form in ("model", "onnx"):
        prepare = stormpsr_jax.load_model(tmp_path / form).preparing()
        views.append([prepare(picture) for picture in video(6, 80, 60)])
    assert len({view.region.tobytes() for view in views[0]}) > 1  # it moves
    for ours, theirs in zip(*views, strict=True):
        np.testing.assert_allclose(ours.region, theirs.region, atol=1e-4)
