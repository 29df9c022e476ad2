import re

import numpy as np
import yaml

from stormpsr_jax.base import files
from stormpsr_jax.serving import content, folder
from tests.support.model_data import write

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
    assert folder.load_model(tmp_path).recognises_by == said
    learned = data["streams"]["storm"] | {"validation": {"f1": 0.5, "seen_f1": 0.84}}
    data["streams"] |= {"learned": learned}
    assert content.recognises_by(data | {"default": None}) == "learned"
    learned["validation"]["f1"], learned["settings"] = 0.0, {"sure": 4.5}
    said = content.recognises_by(data | {"default": None})
    assert "none was right: no part's own evidence passed the bar of 4.5. So a station" in said
    assert content.recognises_by(data | {"default": "storm"}).startswith(
        "storm, as its networks were not trained to tell right from incorrect"
    )
