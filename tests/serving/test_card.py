import re
from pathlib import Path

import pytest
import yaml

from stormpsr_jax.base import files
from stormpsr_jax.psr.calibration import Calibration
from stormpsr_jax.serving import card, model
from tests.support.model_data import NETWORKS, write

SNAPSHOTS = Path(__file__).parents[1] / "snapshots"
FEW = {"recordings": {"val": 2}}
CONFIG = {
    "seed": 7,
    "stages": ["data", "pretrain", "temporal"],
    "init_from": "/home/anna/weights/vit.safetensors",
    "data.dir": "/home/anna/secret",
    "dtype": "bfloat16",
    "pretrain.steps": 12,
    "finetune.steps": 99,
}
SCENE = {"seed": 4, "occlusion": "heavy", "world": "bench"}
DATA = {"rendered": True, "scene": SCENE, "recordings": {"train": 40, "test": 5}, "untested": True}


def read(folder):
    text = (folder / "README.md").read_text("utf-8")
    return text.split("---\n", 2)[1:]  # the head in YAML, and the body


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rendered")
    calibration = Calibration(slope=1.0, intercept=0.0, low=0.1, high=0.9)
    write(folder, origin={"config": CONFIG, "data": DATA}, calibration=calibration)
    return folder


def test_card_says_what_the_model_is_how_it_decodes_and_which_world_its_figures_are_from(rendered):
    """Nothing of heads that stay behind, of a stage that was not run, or of folders."""
    data, text = files.read_json(rendered / "model.json"), (rendered / "README.md").read_text()
    for known in (data["weights"]["sha256"], data["created"], data["package_version"]):
        text = text.replace(card._text(known), "…")
    assert text == (SNAPSHOTS / "card.txt").read_text()
    assert yaml.safe_load(read(rendered)[0])["library_name"] == "stormpsr_jax"


def test_card_and_model_say_which_stream_recognises_and_what_validation_says_of_others(tmp_path):
    write(tmp_path, default="asd", origin={"data": FEW})
    content = files.read_json(tmp_path / "model.json")
    del content["checksum"]
    assert "It recognises by asd.\n" in read(tmp_path)[1]
    content["streams"]["temporal"]["validation"]["f1"] = 0.86
    said = "asd; on 2 validation recordings temporal has F1 0.86, asd 0.75: --stream=temporal"
    assert f"It recognises by {said}.\n" in card.card(content, dict.fromkeys(NETWORKS, 1))
    files.write_json(tmp_path / "model.json", content)
    assert model.load_model(tmp_path).recognises_by == said
    storm = content["streams"]["storm"]
    learned = storm | {"validation": {"f1": 0.5, "seen_f1": 0.84}}
    content["streams"] |= {"learned": learned}
    assert card.recognises_by(content | {"default": None}) == "learned"
    own = content | {"default": None, "origin": {"data": FEW, "fused": 12}}
    learned["validation"]["f1"], learned["settings"] = 0.0, {"sure": 4.5}
    body = card.card(own, dict.fromkeys(NETWORKS, 1))
    assert "by a fusion fitted on 12 validation recordings (not in the paper) |" in body
    assert "none was right: no part's own evidence passed the bar of 4.5. So a station" in body
    assert card.recognises_by(content | {"default": "storm"}).startswith(
        "storm, as its networks were not trained to tell right from incorrect"
    )


def test_code_on_the_card_runs(rendered):
    (code,) = re.findall("```python\n(.*?)```", read(rendered)[1], re.S)
    code = code.replace("FOLDER", str(rendered)).replace('"video.mp4"', "pictures")
    pictures = model.np.zeros((3, 40, 40, 3), model.np.uint8)
    exec(compile(code, "card", "exec"), {"pictures": pictures})
