import re

import jax
import pytest
import yaml

from stormpsr_jax.base import files
from stormpsr_jax.psr.calibration import Calibration
from stormpsr_jax.serving import card, model
from tests.support.model_data import NETWORKS, SETTINGS, write

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
    start, head, body = text.split("---\n", 2)
    assert start == ""
    return yaml.safe_load(head), body


def count(network):
    return sum(a.size for a in jax.tree.leaves(network.variables["params"]))


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rendered")
    calibration = Calibration(slope=1.0, intercept=0.0, low=0.1, high=0.9)
    write(folder, origin={"config": CONFIG, "data": DATA}, calibration=calibration)
    return folder


def test_card_says_what_the_model_is_how_it_decodes_and_which_world_its_figures_are_from(rendered):
    head, body = read(rendered)
    assert head["library_name"] == "stormpsr_jax"
    assert [h for h in re.findall("^## (.*)$", body, re.M)] == [
        *("How to use it", "Product", "Figures", "Decoding", "Networks", "Limits", "Provenance")
    ]
    assert "components: seal, cover, screw" in body
    assert "variant disassembly: begins as `111`, 3 expected steps" in body
    assert "Of 5 recordings of split test of a **rendered** world" in body
    assert "**Never tested on an incorrect installation: these recordings show none.**" in body
    assert "(`data_prep.synthetic`, seed 4, occlusion heavy, world bench)" in body
    row = next(line for line in body.splitlines() if line.startswith("| `asd`"))
    assert [cell.strip() for cell in row.split("|")[3:5]] == ["0.500", "0.500"]
    assert f"* `asd`: decoder {SETTINGS.decoder}, threshold 1.0" in body
    assert body.count("confidences are calibrated probabilities") == 3
    parameters = count(NETWORKS["temporal"])
    assert f"* temporal: TemporalTransformer, depth 1, {parameters:,} parameters" in body
    assert f" {count(NETWORKS['encoder']):,} param" not in body  # heads stay behind
    assert "* encoder: SpatialEncoder, width 16, depth 1, " in body
    for line in ("`seed`: 7", "`dtype`: bfloat16", "`pretrain.steps`: 12", "recordings: 40 train"):
        assert f"* {line}" in body
    assert "finetune.steps" not in body  # of a stage that was not run
    assert "and its variants. It cannot tell whether pictures show this product." in body
    data = files.read_json(rendered / "model.json")
    assert data["weights"]["sha256"] in body
    assert f"by stormpsr_jax {data['package_version']}" in body


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
    for fused, by in ((None, "a fusion"), (0, "the fusion that ships with the package")):
        own = content | {"default": None, "origin": {"data": FEW, "fused": fused}}
        body = card.card(own, dict.fromkeys(NETWORKS, 1))
        assert f"| `learned` | all networks, by {by} (not in the paper) |" in body
    own["origin"]["fused"] = 12
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
