"""Names of a user's recordings: Unicode in both normal forms, doubles, and impossible ones."""

import dataclasses
import json
import unicodedata
import zipfile
from pathlib import Path

import pytest

from tests.support.own_data import PROCEDURE, STEPS, make, make_data, opened, write_video

NAMES = ("bench_Prüfstand", "bench_é", "bench_ö")
NFC, NFD = (lambda text, form=form: unicodedata.normalize(form, text) for form in ("NFC", "NFD"))


def coco(image: str) -> str:
    return json.dumps(
        {
            "images": [{"id": 7, "file_name": image, "width": 64, "height": 48}],
            "categories": [{"id": 1, "name": "pump"}],
            "annotations": [{"id": 1, "image_id": 7, "category_id": 1, "bbox": [9, 9, 16, 24]}],
        }
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Videos as macOS names them, everything else as other systems do, or the other way round."""
    folder = make_data(tmp_path_factory.mktemp("names"), tuple(map(NFD, NAMES)))
    for path in (folder / "labels").iterdir():
        path.rename(path.with_name(NFC(path.name)))
    first, second, _ = NAMES
    (folder / "boxes" / NFD(first)).mkdir(parents=True)
    (folder / "boxes" / NFD(first) / "000006.txt").write_text("0 .5 .5 .2 .2\n")
    (folder / "boxes" / f"{NFC(second)}.json").write_text(coco("000006.jpg"))
    rows = zip(map(NFD, NAMES), ("train", "val", "test"), strict=True)
    (folder / "splits.csv").write_text(
        "recording,split\n" + "".join(f"{name},{split}\n" for name, split in rows), "utf-8"
    )
    return folder


def check(out: Path) -> None:
    recordings = opened(out)
    assert {name: source.split for name, (_, source) in recordings.items()} == dict(
        zip(map(NFC, NAMES), ("train", "val", "test"), strict=True)
    )
    boxed = [name for name, (recording, _) in recordings.items() if recording.classes[6] == 1]
    assert sorted(boxed) == sorted(map(NFC, NAMES[:2]))


def test_names_both_normal_forms_are_one_name(data, tmp_path):
    make(data, tmp_path / "out", boxes=data / "boxes", splits=str(data / "splits.csv"))
    check(tmp_path / "out")


def test_names_in_zip_files_and_one_coco_file_too(data, tmp_path):
    with zipfile.ZipFile(tmp_path / "videos.zip", "w") as file:
        for path in (data / "videos").iterdir():
            file.write(path, NFC(path.name))
    one, two = (json.loads(coco(f"frames/{NFD(name)}/000006.jpg")) for name in NAMES[:2])
    two["images"][0]["id"] = two["annotations"][0]["image_id"] = 8
    two["annotations"][0]["id"] = 2
    for key in ("images", "annotations"):
        one[key] += two[key]
    (tmp_path / "all.json").write_text(json.dumps(one))
    make(
        data,
        tmp_path / "out",
        videos=tmp_path / "videos.zip",
        boxes=tmp_path / "all.json",
        splits=str(data / "splits.csv"),
        recordings=NFD("*") + NFD("ü") + "*",
    )
    make(
        data,
        tmp_path / "out",
        videos=tmp_path / "videos.zip",
        boxes=tmp_path / "all.json",
        splits=str(data / "splits.csv"),
        recordings="*[!ü]*",
    )
    check(tmp_path / "out")


def test_names_errors_cameras_with_the_same_file_names(tmp_path):
    data = make_data(tmp_path / "data", ("bench1",))
    (data / "videos/bench1.mp4").unlink()
    for camera in ("cam1", "cam2"):
        write_video(data / "videos" / camera / "bench1.mp4", codec="mpeg4")
    with pytest.raises(
        ValueError, match=r"cam1/bench1.mp4 and .*cam2/bench1.mp4; .*rename .* to cam2_bench1\)"
    ):
        make(data, tmp_path / "out")


def test_names_errors_that_no_recording_can_have(tmp_path):
    data = make_data(tmp_path / "data", ("bench1",))
    write_video(data / "videos" / "bench\\2.mp4", codec="mpeg4")
    write_video(data / "videos" / "bench\n3.mp4", codec="mpeg4")
    with pytest.raises(ValueError, match="rename") as caught:
        make(data, tmp_path / "out")
    lines = str(caught.value).splitlines()
    assert len(lines) == 2
    assert all(line.endswith("rename it") for line in lines)


def test_names_a_folder_of_any_name_is_a_recording(tmp_path):
    """`depth` is left out of IndustReal, not of a user's folders."""
    data = make_data(tmp_path / "data", ("depth",))
    anything = {"all": dataclasses.replace(PROCEDURE.variants["assembly"], recordings=("*",))}
    procedure = dataclasses.replace(PROCEDURE, variants=anything)
    (data / "labels/depth.csv").unlink()
    (data / "labels/depth").mkdir()
    (data / "labels/depth/mine.csv").write_text(STEPS)
    assert make(data, tmp_path / "out", procedure=procedure, splits="100/0/0")
