"""IndustReal's synthetic pictures as downloaded: labels_coco.json beside images/."""

import importlib.util
import io
import json
import random
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_prep import check, industreal_cad
from data_prep.reading import renders
from stormpsr_jax.data.clips import ClipSource
from stormpsr_jax.media.framing import Framing
from stormpsr_jax.media.trees import open_trees
from stormpsr_jax.psr.procedure import load_procedure
from tests.support.pictures_data import as_zip

PROCEDURE = load_procedure("industreal")
NAMES = ["background", *("".join(map(str, s)) for s in PROCEDURE.states.tolist()), "error_state"]
# ASD/create_dataset_synthetic.py of IndustReal, lines 39-64: class of the Unity scene -> class.
UNITY = {
    **{0: 0, 1: 15, 2: 12, 3: 2, 4: 19, 5: 22, 6: 14, 7: 20, 8: 3, 9: 11, 10: 8, 11: 4},
    **{12: 10, 13: 18, 14: 1, 15: 7, 16: 9, 17: 21, 18: 13, 19: 5, 20: 6, 21: 17, 22: 16, 23: 23},
}
HEIGHT, WIDTH = 18, 32
STAND_INS = Path(__file__).parents[2] / "../shared/make_stand_ins.py"


def png(level: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (WIDTH, HEIGHT), (level,) * 3).save(file, "PNG")
    return file.getvalue()


def content(seed: int = 0) -> dict:
    """A picture of each class of the scene but background, two of none, one more of class 14."""
    rng = random.Random(seed)
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


def read(path: Path) -> renders.Renders:
    return renders.read_renders(open_trees(path), "--data")


def shown(found: renders.Renders) -> dict:
    return {render.path.rpartition("/")[2]: (render.label, render.box) for render in found.pictures}


def expected(data: dict) -> dict:
    """{name: (class, box)} of what `content` gives."""
    result = {image["file_name"]: (0, None) for image in data["images"]}
    for a in data["annotations"]:
        x, y, w, h = a["bbox"]
        box = ((x + w / 2) / WIDTH, (y + h / 2) / HEIGHT, w / WIDTH, h / HEIGHT)
        name = data["images"][a["image_id"]]["file_name"]
        result[name] = UNITY[a["category_id"]], pytest.approx(box)
    return result


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("outer", ["", "synthetic_data/"])
def test_a_box_has_the_class_of_its_category_id_in_every_form(tmp_path, seed, outer):
    data = content(seed)
    write(tmp_path / "x" / outer, data)
    folder = tmp_path / "x"
    packed = as_zip(folder).read_bytes()
    (tmp_path / "parts").mkdir()
    half = len(packed) // 2
    (tmp_path / "parts/x.zip.001").write_bytes(packed[:half])
    (tmp_path / "parts/x.zip.002").write_bytes(packed[half:])
    for path in (folder, tmp_path / "x.zip", tmp_path / "parts", tmp_path / "parts/x.zip.002"):
        assert shown(read(path)) == expected(data)


def test_recordings_have_the_pictures_of_their_state_and_their_boxes(tmp_path, caplog):
    caplog.set_level("INFO", logger="absl")
    data = content()
    write(tmp_path / "data", data)
    industreal_cad.make_dataset(tmp_path / "out", data=tmp_path / "data", framing=Framing((16, 16)))
    assert "24 of 24 names of categories say the same state as their ids" in caplog.text
    assert "23 pictures of 22 states; 3 of no catalogued state are left out" in caplog.text
    source = ClipSource(tmp_path / "out", "cad", PROCEDURE)
    assert list(source.recordings) == [f"cad_{state:02d}" for state in range(1, 23)]
    truth = expected(data)
    for name, recording in source.recordings.items():
        state = int(name[-2:])
        of_state = sorted(picture for picture in truth if truth[picture][0] == state)
        levels = [9 * int(picture.split("Image")[1][:-4]) for picture in of_state]
        rows = source.rows(name, np.arange(len(levels)))
        np.testing.assert_allclose(rows.mean(axis=(1, 2, 3)), levels, atol=2)
        assert recording.classes.tolist() == [state] * len(levels)
        for row, picture in enumerate(of_state):
            assert tuple(recording.boxes[row]) == pytest.approx(
                truth[picture][1].expected, abs=1e-6
            )
    assert check.check(tmp_path / "out") == 0


def test_all_downloads_in_one_folder_have_the_synthetic_set_in_parts(tmp_path):
    data = content()
    path = as_zip(write(tmp_path / "x", data)).read_bytes()
    downloads = tmp_path / "downloads"
    downloads.mkdir()
    name = "assembly_state_detection_synthetic_data.zip"
    (downloads / f"{name}.001").write_bytes(path[:700])
    (downloads / f"{name}.002").write_bytes(path[700:])
    (downloads / "README.md").write_text("# IndustReal\n")
    for other, members in (
        ("train_p1.zip", ["01_assy_0_1/rgb/000000.jpg", "01_assy_0_1/OD_labels.json"]),
        ("all_rgb_videos.zip", ["01_assy_0_1.mp4"]),
        ("part_geometries.zip", ["state1.fbx"]),
    ):
        with zipfile.ZipFile(downloads / other, "w") as file:
            for member in members:
                file.writestr(member, b"")
    assert shown(read(downloads)) == expected(data)


@pytest.mark.parametrize("there", [True, False])
def test_categories_that_tell_no_state_leave_the_ids(tmp_path, caplog, there):
    """Also a file without a table of them."""
    caplog.set_level("INFO", logger="absl")
    data = content()
    for category in data["categories"]:
        category["name"] = f"Assembly {category['id']}"
    truth = expected(data)
    if not there:
        del data["categories"]
    assert shown(read(write(tmp_path, data))) == truth
    assert "ids of categories are taken for classes of the Unity scene" in caplog.text


def test_other_downloads_that_are_not_whole_are_left_out_with_a_line(tmp_path, caplog):
    as_zip(write(tmp_path / "x", content()))
    (tmp_path / "train_p1.zip").write_bytes(b"PK cut off")
    shutil.rmtree(tmp_path / "x")
    industreal_cad.make_dataset(tmp_path / "out", data=tmp_path, framing=Framing((16, 16)))
    assert list(ClipSource(tmp_path / "out", "cad", PROCEDURE).recordings) == [
        f"cad_{state:02d}" for state in range(1, 23)
    ]
    (line,) = [line for line in caplog.messages if line.startswith("left out: ")]
    assert line.startswith(f"left out: --data: {tmp_path}/train_p1.zip: not a whole zip file")


def test_half_of_the_synthetic_set_is_named_where_nothing_else_has_pictures(tmp_path):
    packed = as_zip(write(tmp_path / "x", content())).read_bytes()
    folder = tmp_path / "downloads"
    folder.mkdir()
    name = "assembly_state_detection_synthetic_data.zip"
    for part, content_of_part, message in (
        (f"{name}.001", packed[:700], rf"--data: .*/{name}: not a whole zip file"),
        (f"{name}.002", packed[700:], rf"--data: .*/{name}\.001 is missing"),
    ):
        (folder / part).write_bytes(content_of_part)
        with pytest.raises(ValueError, match=message) as raised:
            industreal_cad.make_dataset(tmp_path / "out", data=folder)
        assert str(raised.value).startswith(f"--data={folder}: has neither labels_coco.json nor")
        assert len(str(raised.value).splitlines()) == 2
        (folder / part).unlink()
    assert not (tmp_path / "out").exists()


def test_categories_that_tell_other_states_than_their_ids_are_refused(tmp_path):
    """Numbered from 1, by IndustReal's own classes, and two that changed places."""
    from_one, own, swapped = content(), content(), content()
    for category in from_one["categories"]:
        category["id"] += 1
    own["categories"] = [{"id": i, "name": name} for i, name in enumerate(NAMES)]
    a, b = swapped["categories"][4], swapped["categories"][9]
    a["name"], b["name"] = b["name"], a["name"]
    for i, (data, wrong) in enumerate(((from_one, 24), (own, 22), (swapped, 2))):
        with pytest.raises(ValueError, match=f"labels_coco.json: categories: {wrong} of 24") as e:
            read(write(tmp_path / str(i), data))
        assert len(str(e.value).splitlines()) == 1
        assert "which the ids are taken for (id " in str(e.value)


def test_pictures_that_the_file_does_not_list_or_with_two_boxes_are_left_out(tmp_path, caplog):
    data = content()
    write(tmp_path, data)
    (tmp_path / "images/more.png").write_bytes(png(1))
    twice = data["annotations"][0]
    data["annotations"].append({**twice, "id": 1000})
    (tmp_path / "labels_coco.json").write_text(json.dumps(data))
    rest = expected(data)
    del rest[data["images"][twice["image_id"]]["file_name"]]
    assert shown(read(tmp_path)) == rest
    assert "pictures with more than one box, which are left out: 1" in caplog.text
    assert "pictures in images that it does not list, which are left out: 1" in caplog.text


def test_boxes_beyond_the_edge_are_cut_off(tmp_path, caplog):
    data = content()
    annotation = data["annotations"][0]
    annotation["bbox"] = [-4, 10.5, 12, 100]
    name = data["images"][annotation["image_id"]]["file_name"]
    box = (4 / WIDTH, 14.25 / HEIGHT, 8 / WIDTH, 7.5 / HEIGHT)
    assert shown(read(write(tmp_path, data)))[name][1] == pytest.approx(box)
    assert "boxes beyond the edge of their picture, cut off there: 1" in caplog.text


def test_a_picture_of_another_size_than_the_file_says_is_an_error(tmp_path):
    data = content()
    for image in data["images"]:
        image["width"] *= 2
    write(tmp_path / "data", data)
    with pytest.raises(ValueError, match=r"\.png: is 18x32 \(HxW\), labels_coco\.json says 18x64"):
        industreal_cad.make_dataset(tmp_path / "out", data=tmp_path / "data")


@pytest.mark.parametrize(
    ("key", "change", "message"),
    [
        ("images", {"file_name": "../x.png"}, r"images\[3\]: '\.\./x\.png' is no picture in"),
        ("images", {"file_name": None}, r"images\[3\]: file_name: None has the wrong type"),
        ("images", {"id": 4}, r"images\[4\]: id: 4 is given twice"),
        ("images", {"width": 0}, r"images\[3\]: width: 0 is not in 1…"),
        ("annotations", {"image_id": 99}, r"annotations\[3\]: image_id: 99 is not in images"),
        (
            "annotations",
            {"category_id": 24},
            r"annotations\[3\]: category_id: 24 is no class in 0…23",
        ),
        ("annotations", {"category_id": -1}, "category_id: -1 is no class"),
        ("annotations", {"category_id": True}, "category_id: True has the wrong type"),
        ("annotations", {"bbox": [1, 2, 3]}, r"bbox: \[1, 2, 3\] is not x, y, w, h"),
        (
            "annotations",
            {"bbox": [1, 2, 0, 3]},
            r"bbox: \[1, 2, 0, 3\] has nothing of a picture of",
        ),
        ("annotations", {"bbox": [32, 2, 5, 3]}, "has nothing of a picture of 32x18"),
        ("annotations", {"bbox": [1, 2, 3, "4"]}, "bbox: '4' is not in"),
        ("annotations", {"bbox": [1, 2, 3, 10**400]}, r"annotations\[3\]: bbox: .* is not in"),
        ("categories", {"id": 3.5}, r"categories\[3\]: id: 3\.5 has the wrong type"),
    ],
)
def test_mistakes_name_the_entry(tmp_path, key, change, message):
    data = content()
    write(tmp_path, data)
    data[key][3] |= change
    (tmp_path / "labels_coco.json").write_text(json.dumps(data))
    with pytest.raises(ValueError, match=rf"labels_coco\.json: .*{message}"):
        read(tmp_path)


def test_two_places_with_renders_are_an_error(tmp_path):
    write(tmp_path / "a", content())
    write(tmp_path / "b", content())
    with pytest.raises(ValueError, match=r"renders in .*/a and .*/b; give one of them"):
        read(tmp_path)


@pytest.mark.skipif(not STAND_INS.exists(), reason="needs ../shared")
def test_stand_ins_of_the_download_have_the_class_of_the_scene_in_all_forms(tmp_path):
    spec = importlib.util.spec_from_file_location("make_stand_ins", STAND_INS)
    stand_ins = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(stand_ins)
    stand_ins.make_synthetic(tmp_path)
    files = {i: unity for i, unity in enumerate([*range(24), 14, 14])}
    truth = {
        f"{'train' if i < 20 else 'val'}_SynthImage{i}.png": UNITY[u] for i, u in files.items()
    }
    for form in ("synthetic", "synthetic_parts", "synthetic_joined"):
        found = shown(read(tmp_path / form))
        assert {name: label for name, (label, _) in found.items()} == truth
        for label, box in found.values():
            assert box == (pytest.approx((0.5, 0.5, 0.375, 4 / 9)) if label else None)
