import io
import json
import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_prep import check, industreal_cad
from stormpsr_jax.data.clips import ClipSource
from stormpsr_jax.media.framing import Framing
from stormpsr_jax.recordings.procedure import load_procedure

PROCEDURE = load_procedure("industreal")
NAMES = ["background", *("".join(map(str, s)) for s in PROCEDURE.states.tolist()), "error_state"]
# ASD/create_dataset_synthetic.py of IndustReal, lines 39-64: class of the Unity scene -> class.
UNITY = {
    **{0: 0, 1: 15, 2: 12, 3: 2, 4: 19, 5: 22, 6: 14, 7: 20, 8: 3, 9: 11, 10: 8, 11: 4},
    **{12: 10, 13: 18, 14: 1, 15: 7, 16: 9, 17: 21, 18: 13, 19: 5, 20: 6, 21: 17, 22: 16, 23: 23},
}
HEIGHT, WIDTH = 18, 32


def make(data, out, framing):
    industreal_cad.make_dataset(out, data=data, framing=framing)


def source(out):
    return ClipSource(out, "cad", PROCEDURE)


def png(level: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (WIDTH, HEIGHT), (level,) * 3).save(file, "PNG")
    return file.getvalue()


def content() -> dict:
    """A picture of each class of the scene but background, two of none, one more of class 14."""
    rng = random.Random(0)
    shown = [*range(1, 24), 14, None, None]
    rng.shuffle(shown)
    images, annotations = [], []
    for i, unity in enumerate(shown):
        name = f"{rng.choice(('train', 'val', 'add2'))}_SynthImage{i}.png"
        images.append({"id": i, "file_name": name, "width": WIDTH, "height": HEIGHT})
        if unity is not None:
            box = [rng.randrange(8), rng.randrange(4), rng.randrange(4, 20), rng.randrange(4, 12)]
            annotation = {"image_id": i, "category_id": unity, "bbox": box, "iscrowd": 0}
            annotations.append({"id": len(annotations), **annotation})
    rng.shuffle(annotations)
    categories = [{"id": u, "name": NAMES[c], "supercategory": ""} for u, c in UNITY.items()]
    return {"images": images, "annotations": annotations, "categories": categories}


def write(folder: Path, data: dict) -> Path:
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for image in data["images"]:
        (folder / "images" / image["file_name"]).write_bytes(png(9 * image["id"]))
    (folder / "labels_coco.json").write_text(json.dumps(data))
    return folder


def make_data(folder: Path) -> Path:
    return write(folder, content())


def expected(data: dict) -> dict:
    result = {}
    for a in data["annotations"]:
        x, y, w, h = a["bbox"]
        box = ((x + w / 2) / WIDTH, (y + h / 2) / HEIGHT, w / WIDTH, h / HEIGHT)
        name = data["images"][a["image_id"]]["file_name"]
        result[name] = UNITY[a["category_id"]], pytest.approx(box)
    return result


def test_recordings_have_the_pictures_of_their_state_and_their_boxes(tmp_path, caplog):
    caplog.set_level("INFO", logger="absl")
    data = content()
    write(tmp_path / "data" / "synthetic_data", data)  # a folder above it is given
    (tmp_path / "data" / "synthetic_data" / "images" / "more.png").write_bytes(png(0))
    make(tmp_path / "data", tmp_path / "out", Framing((16, 16)))
    assert "pictures that are left out: 1 of 27" in caplog.text
    assert "23 pictures of 22 states are taken" in caplog.text
    found = source(tmp_path / "out")
    assert list(found.recordings) == [f"cad_{state:02d}" for state in range(1, 23)]
    truth = expected(data)
    for name, recording in found.recordings.items():
        state = int(name[-2:])
        of_state = sorted(picture for picture in truth if truth[picture][0] == state)
        levels = [9 * int(picture.split("Image")[1][:-4]) for picture in of_state]
        rows = found.rows(name, np.arange(len(levels)))
        np.testing.assert_allclose(rows.mean(axis=(1, 2, 3)), levels, atol=2)
        assert recording.classes.tolist() == [state] * len(levels)
        for row, picture in enumerate(of_state):
            box = truth[picture][1].expected
            assert tuple(recording.boxes[row]) == pytest.approx(box, abs=1e-6)
    assert check.check(tmp_path / "out") == 0


def test_a_crop_moves_boxes_and_loses_some_and_what_is_missing_is_told(tmp_path, caplog):
    data = content()
    data["annotations"] = [a for a in data["annotations"] if UNITY[a["category_id"]] != 5]
    data["annotations"].append(data["annotations"][0] | {"id": 99})
    truth = expected(data)
    lower = Framing((8, 8), region=(0, 0.5, 1, 1))
    make(write(tmp_path / "few", data), tmp_path / "cropped", lower)
    assert "has no picture for cad_05" in caplog.text
    assert "pictures with more than one box are left out: 1" in caplog.text
    lost = set()
    for name, recording in source(tmp_path / "cropped").recordings.items():
        boxes = [box.expected for label, box in truth.values() if label == int(name[-2:])]
        outside = [box[1] + box[3] / 2 <= 0.5 for box in boxes]
        lost |= {*outside}
        assert (recording.classes[np.isnan(recording.boxes[:, 0])] == -2).all()
        assert not all(outside) or (recording.classes == -2).all()
    assert lost == {True, False}
    for image in data["images"]:
        image["width"] = 64
    with pytest.raises(ValueError, match=r"is 18x32 \(HxW\), labels_coco.json says 18x64"):
        make(write(tmp_path / "other", data), tmp_path / "none", lower)
