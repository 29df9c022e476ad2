import hashlib
import json
import re
import shutil

import jax
import numpy as np
import pytest
import safetensors.numpy
import simplejpeg
import yaml

from stormpsr_jax.base import files
from stormpsr_jax.psr import learned_stream
from stormpsr_jax.psr.learned_beliefs import default_weights
from stormpsr_jax.serving import content
from stormpsr_jax.serving.folder import load_model, read_model
from stormpsr_jax.serving.functions import Network
from stormpsr_jax.serving.writing import copy_model
from stormpsr_jax.weights import parameters
from tests.support.model_data import DETECTOR, NETWORKS, network, write

MODEL, WEIGHTS = "model.json", "weights.safetensors"
CALIBRATION = {"slope": 0.5, "intercept": 1.0, "low": 0.1, "high": 0.9}


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sound")
    write(folder, ("asd", "temporal", "storm", "learned"))
    return folder


@pytest.fixture
def folder(sound, tmp_path):
    """A copy to damage, without the checksum, as somebody who means the change would leave it."""
    folder = shutil.copytree(sound, tmp_path / "model")
    change(folder, "checksum", value=del_)
    return folder


def refusal(folder, name: str) -> str:
    """The message of `read_model`, which has one line and begins with the file."""
    with pytest.raises(ValueError) as caught:
        read_model(folder)
    message = str(caught.value)
    assert message.isprintable(), message
    assert len(message) < 1000
    assert message.startswith(str(folder / name)), message
    return message.removeprefix(str(folder / name))


def change(folder, *path, value):
    """Sets one field of model.json; the value `del` removes it."""
    data = files.read_json(folder / MODEL)
    place = data
    for key in path[:-1]:
        place = place[key]
    if value is del_:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    (folder / MODEL).write_text(json.dumps(data))


def del_():
    """Stands for a field that is not there."""


def rewrite(folder, arrays: dict | None = None, content: bytes | None = None) -> None:
    """Replaces the weights and the checksum with them, as somebody with bad intentions would."""
    content = safetensors.numpy.save(arrays) if content is None else content
    (folder / WEIGHTS).write_bytes(content)
    declared = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
    for key, value in declared.items():
        change(folder, "weights", key, value=value)


def test_write_model_an_older_model_is_replaced_or_left_whole(folder, monkeypatch):
    before = (folder / MODEL).read_bytes()
    other = {"networks": NETWORKS | {"detector": network(DETECTOR, (1, 32, 32, 3), 9)}}
    with monkeypatch.context() as patch:
        patch.setattr(parameters.safetensors.numpy, "save", interrupted)
        with pytest.raises(KeyboardInterrupt):
            write(folder, **other)
    read_model(folder)
    with monkeypatch.context() as patch:
        patch.setattr(files, "write_json", interrupted)
        with pytest.raises(KeyboardInterrupt):
            write(folder, **other)
    assert (folder / MODEL).read_bytes() == before
    message = refusal(folder, WEIGHTS)
    assert "is not the file whose checksum model.json names" in message
    assert "run the same command again" in message
    write(folder, **other)
    found = read_model(folder).networks.of["detector"].variables["params"]["logits"]["bias"]
    wanted = other["networks"]["detector"].variables["params"]["logits"]["bias"]
    np.testing.assert_array_equal(found, wanted)


def interrupted(*_, **__):
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"origin": {"a": object()}}, "model.json: not plain values for JSON"),
        (
            {"networks": NETWORKS | {"detector": Network(DETECTOR, {"params": {}})}},
            r"model.json: the names do not fit the model; missing: detector/",
        ),
    ],
)
def test_write_model_errors_before_anything_is_written(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        write(tmp_path / "model", **changes)
    assert not (tmp_path / "model").exists()


def test_part_pictures_are_kept_by_a_copy_and_nothing_but_jpegs(tmp_path):
    jpeg = simplejpeg.encode_jpeg(np.zeros((8, 8, 3), np.uint8))
    write(tmp_path, part_pictures=[jpeg, None, jpeg])
    assert read_model(tmp_path).part_pictures == (jpeg, None, jpeg)
    copy_model(tmp_path, tmp_path / "half")
    assert read_model(tmp_path / "half").part_pictures == (jpeg, None, jpeg)
    with pytest.raises(ValueError, match=r"part_pictures: are not 3, one for each component"):
        write(tmp_path, part_pictures=[jpeg])
    with pytest.raises(ValueError, match=r"part_pictures\[1\]: is no JPEG file"):
        write(tmp_path, part_pictures=[None, b"<svg>", None])


def test_read_model_errors_arrays_that_do_not_fit(folder):
    arrays = safetensors.numpy.load_file(folder / WEIGHTS)
    name = "temporal/params/head/bias"
    rest = {n: a for n, a in arrays.items() if n != name}
    padding = {"detector/params/x\ny": np.zeros(100, np.float32)}
    for changed, expected in (
        (rest | padding, f"missing: {name}; unexpected: 'detector/params/x"),
        (arrays | padding, "missing: none; unexpected: 'detector/params/x"),
        (arrays | {name: np.zeros(4, np.float32)}, f"{name} is float32 (4,), the network needs"),
        (arrays | {name: np.zeros(3, np.float64)}, f"{name} is float64 (3,), the network needs"),
        (arrays | {name: np.zeros(6, np.int16)}, f"{name} is int16 (6,), the network needs"),
        (arrays | {name: np.full(3, np.nan, np.float32)}, f"{name} holds numbers that are not fin"),
    ):
        rewrite(folder, changed)
        assert expected in refusal(folder, WEIGHTS)
    content = safetensors.numpy.save(arrays).replace(b'"F32","shape":[3]', b'"I32","shape":[3]')
    rewrite(folder, content=content)
    assert "is int32 (3,)" in refusal(folder, WEIGHTS)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["format"], 99, "is of format 99, this version .* knows 3 and 4; update the package"),
        (["format"], 2, "is of format 2, this version .* knows 3 and 4; make the model again"),
        (["format"], del_, "format: is missing"),
        (["fps"], "10", "fps: expected float, got str"),
        (["a\nb"], 1, r"'a\\nb': is no field that is known"),
        (["exported"], {}, "exported: is no field of format 3"),
        (["procedure", "variants", "x\ny"], {}, r"procedure: variants: 'x\\ny' has control char"),
        (["pictures", "detector_size"], [30, 32], "networks.detector: the fields .*multiples of 4"),
        (["pictures", "aspect"], "zoom", "pictures: .*zoom is not one of stretch, pad"),
        (["window", "frames"], 40_000, "window: a clip has over 4,096 rows"),
        (["window", "frames"], 13, "window: frames: 13 is no multiple of 4"),
        (["networks", "encoder"], del_, "networks: 'detector' is needed, or"),
        (["networks", "encoder", "architecture"], "os.system", "'os.system' is not one of Spat"),
        (["networks", "encoder", "depth"], 10**6, "networks.encoder: depth: expected int <= 64"),
        (["networks", "temporal", "num_frames"], 3, "networks.temporal: .*clip of 4 frames"),
        (["networks", "temporal", "num_components"], 4, "num_components: 4, the procedure has 3"),
        (["streams"], {}, "streams: there is none"),
        (["streams", "storm", "settings", "decoder"], "naive", "settings: .*has no stream storm"),
        (["streams", "asd", "settings", "decay"], 2, "settings: .*decay=2.0 is not in 0…1"),
        (["product_share"], 1.5, "product_share: expected float <= 1.0"),
        (["streams", "asd", "calibration"], CALIBRATION | {"high": 1}, "low 0.1 and high 1.0 are"),
        (["weights", "sha256"], "../x", "weights: sha256: expected str matching"),
        (["weights", "file"], "../../etc/passwd", "weights: 'file': is no field"),
        (["fusion"], None, "fusion: is there exactly if streams has 'learned'"),
        (["fusion", "arrays", "bias"], [], "fusion: arrays: bias: "),
    ],
)
def test_read_model_errors_fields(folder, path, value, message):
    change(folder, *path, value=value)
    refused = refusal(folder, MODEL)
    assert re.search(message, refused), refused


def test_read_model_a_changed_field_is_noticed_unless_the_checksum_is_deleted(folder, sound):
    change(folder, "checksum", value=files.read_json(sound / MODEL)["checksum"])
    change(folder, "fps", value=12)
    assert "was damaged or changed: it differs from its checksum" in refusal(folder, MODEL)
    change(folder, "checksum", value=del_)
    assert read_model(folder).fps == 12


def test_copy_model_rounds_parameters_to_half_precision_and_nothing_else(sound, tmp_path):
    half = tmp_path / "half"
    copy_model(sound, half)
    before, after = read_model(sound), read_model(half)
    assert (before.networks.dtype, after.networks.dtype) == ("float32", "float16")
    changed = 0
    for role, old in before.networks.of.items():
        old, new = old.variables, after.networks.of[role].variables
        for one, other in zip(*map(jax.tree.leaves, (old["params"], new["params"])), strict=True):
            assert other.dtype == np.float32
            np.testing.assert_allclose(other, one, rtol=2**-11, atol=2**-25)
            changed += (other != one).sum()
        jax.tree.map(np.testing.assert_array_equal, old.get("batch_stats"), new.get("batch_stats"))
    assert changed > 1000
    one, other = (files.read_json(folder / MODEL) for folder in (sound, half))
    assert one | {"weights": 0, "checksum": 0} == other | {"weights": 0, "checksum": 0}
    ratio = (half / WEIGHTS).stat().st_size / (sound / WEIGHTS).stat().st_size
    assert ratio < 0.7  # of so small networks, the names are a good part
    assert after.fusion.checksum == default_weights("csv").checksum
    assert after.streams["learned"].settings == learned_stream.LearnedSettings(install=0.5)


# --- The model card -------------------------------------------------------------------------------


CONFIG = {"seed": 7, "init_from": "/home/anna/weights/vit.safetensors"}
DATA = {"rendered": True, "recordings": {"train": 40, "val": 2}, "untested": True}


def test_card_says_what_the_model_is_and_which_world_its_figures_are_from(tmp_path):
    """Nothing of folders, and its code runs."""
    write(tmp_path, origin={"config": CONFIG, "data": DATA})
    text = (tmp_path / "README.md").read_text("utf-8")
    _, head, body = text.split("---\n", 2)
    assert yaml.safe_load(head)["library_name"] == "stormpsr_jax"
    for words in ("parts alone:\nseal, cover, screw.", "**rendered** world", "**Never tested on"):
        assert words in body
    assert "| `storm` | 0.500 | 0.500 | – | – | 3 | – | – |\n" in body
    assert "encoder (5,672 parameters)" in body
    assert "anna" not in text
    (code,) = re.findall("```python\n(.*?)```", body, re.S)
    code = code.replace("FOLDER", str(tmp_path)).replace('"video.mp4"', "pictures")
    pictures = np.zeros((3, 40, 40, 3), np.uint8)
    exec(compile(code, "card", "exec"), {"pictures": pictures})


def test_card_and_model_say_which_stream_recognises_and_what_validation_says_of_others(tmp_path):
    write(tmp_path, default="asd", origin={"data": DATA})
    assert "It recognises by asd.\n" in (tmp_path / "README.md").read_text("utf-8")
    data = files.read_json(tmp_path / "model.json")
    del data["checksum"]
    data["streams"]["temporal"]["validation"]["f1"] = 0.86
    files.write_json(tmp_path / "model.json", data)
    said = "asd; on 2 validation recordings temporal has F1 0.86, asd 0.75: --stream=temporal"
    assert load_model(tmp_path).recognises_by == said
    learned = data["streams"]["storm"] | {"validation": {"f1": 0.5, "seen_f1": 0.84}}
    data["streams"] |= {"learned": learned}
    assert content.recognises_by(data | {"default": None}) == "learned"
    learned["validation"]["f1"], learned["settings"] = 0.0, {"sure": 4.5}
    said = content.recognises_by(data | {"default": None})
    assert (
        "none was right: no part's own evidence passed the threshold of 4.5. So a station" in said
    )
    assert content.recognises_by(data | {"default": "storm"}).startswith(
        "storm, as its networks were not trained to tell right from incorrect"
    )
