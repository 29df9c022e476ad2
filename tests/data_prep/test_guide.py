"""docs/own-product.md and the examples of docs/formats.md, followed to the letter, tiny videos."""

import json
from pathlib import Path

import numpy as np
import pytest

from stormpsr_jax.psr import wrong_parts
from stormpsr_jax.recordings.label_file import LabelPlace
from stormpsr_jax.recordings.procedure import load_procedure
from tests.support import run_table
from tests.support.guide import REPOSITORY, block, film, follow


@pytest.fixture(scope="module")
def user(system, tmp_path_factory) -> Path:
    """A user's folder after steps 1 to 3 of the guide, with four videos."""
    folder = tmp_path_factory.mktemp("user")
    (folder / "configs").symlink_to(REPOSITORY / "configs")
    for name in ("videos", "labels/boxes"):
        (folder / name).mkdir(parents=True)
    assert "Install cover" in follow(folder, "procedure")
    film(folder / "videos/bench_01.mp4", [5.2, 10.4, 15.5], 1)
    (folder / "labels/bench_01.csv").write_text(block("guide", "labels"))
    for i in range(2, 5):
        add_video(folder, i)
    assert "4 recordings (assembly 4), 12 steps" in follow(folder, "look")
    assert "0 problems" in follow(folder, "prepare")
    return folder


def add_video(folder: Path, i: int) -> None:
    completions = [3.0 + i, 8.0 + i, 13.0 + i / 2]
    film(folder / f"videos/bench_{i:02d}.mp4", completions, i)
    steps = zip(completions, ("Install seal", "3", "6"), strict=True)
    rows = "".join(f"{time},{step}\n" for time, step in steps)
    (folder / f"labels/bench_{i:02d}.csv").write_text(f"time,step\n{rows}")


@pytest.fixture(scope="module")
def trained(user) -> Path:
    """The same after the first training, without boxes."""
    follow(user, "train")
    return user


def test_guide_labels_of_wrong_parts(user, tmp_path):
    procedure = load_procedure(user / "data/procedure.json")
    path = tmp_path / "bench_01.csv"
    path.write_text(block("guide", "wrong"))
    truth = LabelPlace(path).read(procedure.at(5), procedure.variants["assembly"])
    found = [
        (one.component, one.start / 5, one.end / 5)
        for one in wrong_parts.wrong_installations(truth.frames, truth.states, [])
    ]
    assert found == [(1, 10.4, 19.0), (2, 24.0, 31.6)]  # to the next frame
    assert truth.states[-1].tolist() == [1, 1, 1]


def test_guide_with_boxes(user, tmp_path):
    follow(user, "export")
    pictures = sorted((user / "frames").rglob("*.jpg"))
    assert [path.name for path in pictures[:2]] == ["000000.jpg", "000010.jpg"]
    assert len(pictures) == 4 * 9
    for folder in sorted((user / "frames").iterdir())[:2]:
        (user / "labels/boxes" / folder.name).mkdir()
        for path in folder.iterdir():
            label = user / "labels/boxes" / folder.name / f"{path.stem}.txt"
            label.write_text(f"0 {50 / 96} {40 / 72} {50 / 96} {40 / 72}\n")
    coco = {"images": [], "categories": [{"id": 1, "name": "pump"}], "annotations": []}
    for folder in sorted((user / "frames").iterdir())[2:]:
        images = [
            {"id": i, "file_name": path.name, "width": 96, "height": 72}
            for i, path in enumerate(sorted(folder.iterdir()))
        ]
        boxes = [
            {"id": i, "image_id": i, "category_id": 1, "bbox": [25, 20, 50, 40]}
            for i in range(len(images))
        ]
        content = coco | {"images": images, "annotations": boxes}
        (user / "labels/boxes" / f"{folder.name}.json").write_text(json.dumps(content))
    follow(user, "boxes")
    result = json.loads((user / "runs/pump_boxes/metrics.json").read_text())
    assert list(result["streams"]) == ["asd", "temporal", "storm", "learned"]
    gives_its_table(user, "runs/pump_boxes", "data_boxes", tmp_path)


def test_guide_without_boxes(trained, tmp_path):
    run = trained / "runs/pump"
    streams = json.loads((run / "metrics.json").read_text())["streams"]
    assert list(streams) == ["temporal", "learned"]
    assert (run / "report.html").is_file()
    gives_its_table(trained, "runs/pump", "data", tmp_path)


def gives_its_table(user: Path, run: str, data: str, out: Path) -> None:
    """Recognition of a run's test video finds what the run's own predictions are decoded to."""
    low, expected = run_table.check(user / run, user / data, out)
    ((name, (_, of_stored)),) = expected.items()
    film = user / f"videos/{name}.mp4"
    _, of_film = run_table.recognised(user / run, [film], out / "film", *low)[name]
    # What is stored was compressed once more: beliefs of networks of a few steps hardly rise, so
    # they pass the threshold up to a second (5 frames) earlier or later.
    of_film, of_stored = (sorted((s, f) for f, s in one) for one in (of_film, of_stored))
    assert [step for step, _ in of_film] == [step for step, _ in of_stored]
    assert np.abs(np.subtract(of_film, of_stored)).max() <= 5


def example(name: str, user: Path, monkeypatch, tmp_path) -> dict:
    """Runs an example of the page on the user's shards; returns its variables."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "DIR").symlink_to(user / "data")
    variables: dict = {}
    exec(block("example", name, "docs/formats.md"), variables)
    return variables


def test_examples_read_what_was_written(user, monkeypatch, tmp_path):
    monkeypatch.chdir(user)
    train = np.load(user / "data/labels/train.npz")
    first = str(train["recordings"][0])
    procedure = load_procedure(user / "data/procedure.json")
    for name in ("tfds", "package"):
        (tmp_path / name).mkdir()
        found = example(name, user, monkeypatch, tmp_path / name)
        if name == "tfds":
            assert found["picture"].shape == (64, 64, 3)
            assert found["clip"]["recording"] in (first, first.encode())
            assert found["clip"]["state"].shape == (16, procedure.num_components)
        else:
            assert found["pictures"].shape == (2, 64, 64, 3)
            assert found["name"] == first


def test_guide_a_second_run_starts_from_the_first_one(trained):
    def splits() -> dict:
        return json.loads((trained / "data/settings.json").read_text())["splits"]

    def shards() -> set[int]:
        return {path.stat().st_ino for path in (trained / "data").glob("clips-*")}

    before, kept = splits(), shards()
    add_video(trained, 5)
    said = follow(trained, "again")
    assert "5 recordings (assembly 5), 15 steps" in said
    assert "arrays from runs/pump/pretrain/best.safetensors" in said
    assert len(shards() - kept) == 1
    assert splits() == before | {"train": [*before["train"], "bench_05"]}
    model = json.loads((trained / "runs/pump_2/model/model.json").read_text())
    first, second = model["origin"]["trained"]["pretrain"]
    assert first["recordings"]["train"] == before["train"]
    assert second["recordings"]["train"] == splits()["train"]
