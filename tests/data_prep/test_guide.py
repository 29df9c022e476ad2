"""The guide and the examples of data_prep/README.md, followed to the letter on tiny videos."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
import simplejpeg
import trimesh

from data_prep.rendering.product import affine
from stormpsr_jax.psr.files import label_files
from stormpsr_jax.psr.procedure import load_procedure
from stormpsr_jax.psr.scoring import wrong_parts

REPOSITORY = Path(__file__).parents[2]
README = (REPOSITORY / "data_prep/README.md").read_text("utf-8")
COLOURS = [(200, 40, 40), (40, 200, 40), (40, 40, 220)]
ENVIRONMENT = {
    "PYTHONPATH": str(REPOSITORY),
    "OMP_NUM_THREADS": "1",
    # Nearly all of the time is compilation.
    "XLA_FLAGS": "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true",
}
# A few steps of the smallest models.
SMALL = {
    "init_from": "",
    "encoder.patch_size": 16,
    "encoder.width": 32,
    "encoder.depth": 1,
    "encoder.num_heads": 2,
    "encoder.stem": "()",
    "encoder.hidden": 32,
    "encoder.projection": 32,
    "window.frames": 8,
    "temporal_model.depth": 1,
    "temporal_model.dim_head": 8,
    "temporal_model.mlp_dim": 32,
    "detector.width": 8,
    "detector.depth": 1,
    "pretrain.n_per_state": 1,
    "pretrain.any_frames": 4,
    "temporal.batch": 8,
    "finetune.batch": 4,
    "detector.batch": 8,
    "embed.batch": 16,
    "predict.batch": 16,
    **{f"{stage}.steps": 2 for stage in ("pretrain", "temporal", "finetune", "detector")},
    **{f"{stage}.eval_every": 2 for stage in ("pretrain", "temporal", "finetune", "detector")},
}


def block(kind: str, name: str) -> str:
    """The fenced block after the line <!-- kind: name -->."""
    (found,) = re.findall(rf"<!-- {kind}: {name} -->\n```\w*\n(.*?)```", README, re.DOTALL)
    return found


def follow(folder: Path, name: str, *extra: str) -> str:
    """Runs the commands of a block in a folder that has the repository's configs."""
    output = ""
    for line in block("guide", name).strip().splitlines():
        words = shlex.split(line)
        assert words[:2] == ["python", "-m"]
        if words[2] == "stormpsr_jax.main":
            words += [f"--config.{key}={value}" for key, value in SMALL.items()]
            words += extra
        elif words[2] == "data_prep.cad":
            words += ["--per_state=2", "--wrong=2"]
        result = subprocess.run(
            [sys.executable, *words[1:]],
            cwd=folder,
            env=os.environ | ENVIRONMENT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 0, f"{line}\n{result.stdout[-2000:]}\n{result.stderr[-4000:]}"
        output += result.stdout
    return output


def film(path: Path, completions: list[float], seed: int, seconds: int = 18, fps: int = 10) -> None:
    """An object that gets a bar of colour at each completion, hidden around it."""
    rng = np.random.default_rng(seed)
    table = rng.integers(0, 200, (6, 8, 3), np.uint8).repeat(12, 0).repeat(12, 1)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=fps)
        stream.width, stream.height, stream.pix_fmt = 96, 72, "yuv420p"
        for i in range(seconds * fps):
            picture = table.copy()
            picture[20:60, 25:75] = (120, 110, 100)
            for k, end in enumerate(completions):
                if i / fps >= end:
                    picture[25 + 10 * k : 33 + 10 * k, 30:70] = COLOURS[k]
                if abs(i / fps - end) < 0.5:
                    picture[10:62, 20:60] = (220, 180, 150)
            picture += rng.integers(0, 9, picture.shape, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


@pytest.fixture(scope="module")
def user(system, tmp_path_factory) -> Path:
    """A user's folder after steps 1 to 3 of the guide, with four videos."""
    folder = tmp_path_factory.mktemp("user")
    (folder / "configs").symlink_to(REPOSITORY / "configs")
    for name in ("videos", "labels", "boxes"):
        (folder / name).mkdir()
    assert "Install cover" in follow(folder, "procedure")
    steps = ("Install seal", "3", "6")
    for i in range(1, 5):
        completions = [3.0 + i, 8.0 + i, 13.0 + i / 2]
        if i == 1:
            completions = [5.2, 10.4, 15.5]
            text = block("guide", "labels")
        else:
            rows = (f"{time},{step}\n" for time, step in zip(completions, steps, strict=True))
            text = "time,step\n" + "".join(rows)
        (folder / "labels" / f"bench_{i:02d}.csv").write_text(text)
        film(folder / "videos" / f"bench_{i:02d}.mp4", completions, i)
    follow(folder, "prepare")
    return folder


def test_guide_from_videos_to_metrics(user):
    assert "0 problems" in follow(user, "check")
    kept = {path: path.stat().st_ino for path in (user / "data").glob("clips-*")}
    labels = user / "labels/bench_02.csv"
    labels.write_text(labels.read_text().replace("5.0,", "5.4,"))
    follow(user, "remake")
    made = [path for path, inode in kept.items() if path.stat().st_ino != inode]
    assert len(made) == 1
    assert "0 problems" in follow(user, "check")
    assert (user / "data/check.html").is_file()
    # Without fine-tuning, which other tests run; it costs a third of the time.
    shown = follow(
        user, "train", "--config.stages=('pretrain','embed','temporal','predict','evaluate')"
    )
    run = user / "runs/pump"
    result = json.loads((run / "metrics.json").read_text())
    assert list(result["streams"]) == ["temporal"]
    (name,) = result["streams"]["temporal"]["recordings"]
    assert "temporal" in shown
    assert (run / "report.html").is_file()
    predicted = (run / f"predictions/test/temporal/{name}_results_pred.csv").read_text()
    assert len(predicted.splitlines()) == 1 + 18 * 5  # every frame


def test_guide_labels_of_wrong_parts(user, tmp_path):
    procedure = load_procedure(user / "data/procedure.json")
    path = tmp_path / "bench_01.csv"
    path.write_text(block("guide", "wrong"))
    truth = label_files.read(path, procedure, procedure.variants["assembly"], fps=5)
    found = [
        (one.component, one.start / 5, one.end / 5)
        for one in wrong_parts.wrong_installations(truth.frames, truth.states, [])
    ]
    assert found == [(1, 10.4, 19.0), (2, 24.0, 31.6)]  # to the next frame
    assert truth.states[-1].tolist() == [1, 1, 1]


def test_guide_with_boxes(user):
    follow(user, "export")
    pictures = sorted((user / "frames").rglob("*.jpg"))
    assert [path.name for path in pictures[:2]] == ["000000.jpg", "000010.jpg"]
    assert len(pictures) == 4 * 9
    for folder in sorted((user / "frames").iterdir())[:2]:
        (user / "boxes" / folder.name).mkdir()
        for path in folder.iterdir():
            label = user / "boxes" / folder.name / f"{path.stem}.txt"
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
        (user / "boxes" / f"{folder.name}.json").write_text(json.dumps(content))
    # The other stages are those of the run without boxes.
    follow(user, "boxes", "--config.stages=('detector','predict','evaluate')")
    result = json.loads((user / "runs/pump_boxes/metrics.json").read_text())
    assert list(result["streams"]) == ["asd"]
    (user / "meshes").mkdir()
    for k, name in enumerate(("seal", "cover", "screw")):
        box = trimesh.creation.box((2, 2, 1), affine(translation=(0, 0, k)))
        box.export(user / "meshes" / f"{name}.stl")
    assert "wrong parts in them" not in follow(user, "cad", "--config.stages=('detector',)")
    assert (user / "runs/pump_cad/detector/best.safetensors").is_file()


def example(name: str, user: Path, monkeypatch, tmp_path) -> dict:
    """Runs an example of the README on the user's shards; returns its variables."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "DIR").symlink_to(user / "data")
    variables: dict = {}
    exec(block("example", name), variables)
    return variables


@pytest.mark.parametrize("name", ["tfds", "array_record"])
def test_examples_are_five_lines(name):
    lines = [line for line in block("example", name).splitlines() if line]
    statements = [line for line in lines if not line.startswith(("import", "from"))]
    assert len(statements) <= 5


def test_examples_read_what_was_written(user, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(user)
    train = np.load(user / "data/labels/train.npz")
    first = str(train["recordings"][0])
    procedure = load_procedure(user / "data/procedure.json")
    for name in ("tfds", "array_record", "package"):
        (tmp_path / name).mkdir()
        found = example(name, user, monkeypatch, tmp_path / name)
        if name == "tfds":
            assert found["picture"].shape == (64, 64, 3)
            assert found["clip"]["recording"] in (first, first.encode())
            assert found["clip"]["state"].shape == (16, procedure.num_components)
        elif name == "array_record":
            assert first in capsys.readouterr().out
            assert simplejpeg.decode_jpeg(Path("first.jpg").read_bytes()).shape == (64, 64, 3)
        else:
            assert found["pictures"].shape == (2, 64, 64, 3)
            assert found["name"] == first
