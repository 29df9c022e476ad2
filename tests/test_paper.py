"""docs/research.md: its commands lead from downloads to a report; configs train as the paper."""

import importlib
import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import jax
import numpy as np
import pytest
import safetensors.numpy
import simplejpeg

from stormpsr_jax.configs import industreal, meccano
from stormpsr_jax.networks.vit import ViT
from stormpsr_jax.recordings import labels
from stormpsr_jax.recordings.labels import states_to_steps
from stormpsr_jax.recordings.procedure import Procedure, load_procedure
from stormpsr_jax.stages.config_flag import flat, typed
from stormpsr_jax.training.optimizer import MOMENTUM
from stormpsr_jax.weights.torch_layout import to_state_dict
from tests.support.industreal_data import TABLE
from tests.support.processes import ROOT, environment, finish, start
from tests.support.tiny import TRAINED, flags_of

PAGE = (ROOT / "docs/research.md").read_text("utf-8")
CONFIGS = {"meccano": meccano, "industreal": industreal}
# Weights in place of random ones, and pictures of any size.
DRY = {"init_from": "vit_small_patch16_224.safetensors"}
DRY = flags_of(DRY | {"encoder.image_size": 0, "detector.image_size": 0})
# `unzip -q FILE [-d DIR]`.
UNZIP = '#!/bin/sh\nexec {python} -m zipfile -e "$2" "${{4:-.}}"\n'


def unpack(folder, name):
    """Gives the command lines of the block after the line <!-- unpack: name --> in a folder."""
    (block,) = re.findall(rf"^<!-- unpack: {name} -->\n```bash\n(.*?)^```$", PAGE, re.M | re.S)
    if shutil.which("unzip") is None:  # is not on every machine
        (folder / "unzip").write_text(UNZIP.format(python=sys.executable))
        (folder / "unzip").chmod(0o755)
    path = {"PATH": f"{os.environ['PATH']}:{folder}"}
    subprocess.run(["bash", "-ec", block], cwd=folder, check=True, env=environment(**path))


def commands(name, flags=()):
    """The command lines of the block after the line <!-- commands: name -->; with DRY, dry."""
    (block,) = re.findall(rf"^<!-- commands: {name} -->\n```bash\n(.*?)^```$", PAGE, re.M | re.S)
    lines = block.replace("\\\n", "").strip().splitlines()
    for line in lines:
        words = shlex.split(line)
        if flags is DRY:
            words = [f"{w}:dry" if w.startswith("--config=") else w for w in words]
        assert words[:2] == ["python", "-m"], line
        yield words[2], words[3:]


def follow(folder, name, main_flags, shard_flags=(), **variables):
    """Gives the commands of a block in a folder; returns what the last one wrote.

    `main_flags` are of the run, `variables` of its environment.
    """
    for module, words in commands(name, main_flags):
        if module.startswith("data_prep.") and module != "data_prep.check":
            words = [*words, *shard_flags]
        if module == "stormpsr_jax.main":
            words = [*words, *main_flags]
            words = [sys.executable, "-m", module, *words]
            process = start(words, cwd=folder, env=environment(**variables))
            (said,) = finish(process, timeout=7200)
        else:
            if importlib.util.find_spec(module).submodule_search_locations is not None:
                module = f"{module}.__main__"
            assert not importlib.import_module(module).main(words), f"{module} {words}"
    return said


def check_results(run, name, said):
    for stage in TRAINED:
        rows = [json.loads(row) for row in (run / stage / "metrics.jsonl").open()]
        losses = [row["loss"] for row in rows if "loss" in row]
        assert len(losses) == 2, stage
        assert np.isfinite(losses).all(), stage
    result = json.loads((run / "metrics.json").read_text())
    assert set(result["streams"]) == {"asd", "temporal", "storm", "learned"}
    threshold = {"meccano": 1.0, "industreal": 6.0}[name]
    for stream in ("asd", "temporal", "storm"):
        choice = result["validation"][stream]
        assert choice["fixed"], stream
        paper = {"threshold": threshold, "weight": 0.5, "decay": 0.75, "decoder": "expected"}
        assert choice["settings"] | paper == choice["settings"]
    model = json.loads((run / "model/model.json").read_text())
    assert model["streams"]["storm"]["settings"]["threshold"] == threshold
    assert (run / "report.html").is_file()
    assert "random weights" not in said
    assert "arrays from vit_small_patch16_224.safetensors" in said


@pytest.mark.system
@pytest.mark.parametrize("name", CONFIGS)
def test_page_its_commands_lead_from_downloads_to_the_report(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    {"meccano": make_meccano, "industreal": make_industreal}[name](tmp_path, (36, 64))
    unpack(tmp_path, name)
    sizes = {"width": 32, "depth": 1, "num_heads": 2}
    make_vit(tmp_path / "model.safetensors", **sizes)
    said = follow(tmp_path, name, DRY, ["--size=32", "--workers=1"])
    check_results(tmp_path / "runs" / name, name, said)


@pytest.mark.parametrize("name", CONFIGS)
def test_configs_budgets_are_those_of_the_paper(name):
    """Epochs of the paper times the lengths that the released code gives its epochs."""
    config = CONFIGS[name].get_config()
    assert config.finetune.steps * config.finetune.batch == 75 * 15_000
    assert config.temporal.steps * config.temporal.batch == 100 * 160_000
    assert config.pretrain.steps == 100 * 500
    for stage, epochs in (("pretrain", 100), ("temporal", 100), ("finetune", 75)):
        optimizer = config[stage].optimizer
        assert optimizer.warmup_steps * epochs == 5 * config[stage].steps, stage
        assert config[stage].eval_every * epochs == config[stage].steps, stage
        assert (optimizer.name, optimizer.lr, MOMENTUM) == ("sgd", 1e-3, 0.9)
        assert optimizer.clip_norm == 0
    losses = ("pretrain.state_loss", "temporal.state_loss", "detector.part_loss")
    ours = (*losses, "detector.pose_loss", "augment.occluders")
    assert not any(flat(typed(config))[field] for field in ours)


# --- Stand-ins for what a user downloads: the data sets in their own layout, and timm's weights ---


SPLITS = {"train": 2, "val": 1, "test": 1}
FRAMES = {"train": 300, "val": 100, "test": 100}  # training's are longer than a window of 256
# Of a recording, before anything changes: hard backgrounds lie 12 s before a completion.
PAUSE = 0.6
BLOCK = 8  # pixels
RENDERS = 4  # of each state


def pictures(count: int, size: tuple[int, int], seed: int) -> list[bytes]:
    """JPEG files of coarse noise, one colour an eighth of the recording."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 60, (*(-(-length // BLOCK) for length in size), 3), np.uint8)
    noise = blocks.repeat(BLOCK, 0).repeat(BLOCK, 1)[: size[0], : size[1]]
    different = [
        simplejpeg.encode_jpeg(noise + rng.integers(0, 190, 3, np.uint8), 80) for _ in range(8)
    ]
    return [different[8 * i // count] for i in range(count)]


def label_files(
    folder: Path, procedure: Procedure, name: str, first: int, count: int, digits: int
) -> None:
    """Writes what the data sets ship: through all states in order, after a pause."""
    folder.mkdir(parents=True)
    initial = np.array(procedure.variant_for(name).initial_state, np.int8)
    states = np.vstack([initial, procedure.states[(procedure.states != initial).any(axis=1)]])
    changes = np.linspace(PAUSE * count, count, len(states) - 1, endpoint=False).astype(int)
    frames = first + np.append(0, changes)
    labels.write_states(folder / "PSR_labels_raw.csv", frames, states)
    for file, errors in (("PSR_labels.csv", False), ("PSR_labels_with_errors.csv", True)):
        steps = states_to_steps(frames, states, with_errors=errors)
        labels.write_steps(folder / file, steps, procedure)
    for path in folder.iterdir():
        named = re.sub(r"(?m)^[0-9]+", lambda n: f"{int(n[0]):0{digits}d}", path.read_text())
        path.write_text(named)


def make_meccano(folder: Path, size: tuple[int, int]) -> None:
    """MECCANO_RGB_frames.zip, MECCANO_PSR_Annotations.zip and MECCANO_ASD_Annotations.zip."""
    procedure, number = load_procedure("meccano"), 0
    staging = folder / "staging"
    with zipfile.ZipFile(folder / "MECCANO_RGB_frames.zip", "w") as frames:
        for split, count in SPLITS.items():
            for _ in range(count):
                number += 1
                name = f"{number:04d}"
                for i, jpeg in enumerate(pictures(FRAMES[split], size, number), start=1):
                    frames.writestr(f"RGB_frames/{split}/{name}/{i:05d}.jpg", jpeg)
                psr = staging / "MECCANO_PSR_Annotations" / split / name
                label_files(psr, procedure, name, 1, FRAMES[split], 5)
                rows = [f"{i},0,0,0.5,0.5,0.4,0.4\n" for i in range(21, FRAMES[split], 3)]
                asd = staging / "MECCANO_ASD_Annotations" / split
                asd.mkdir(parents=True, exist_ok=True)
                (asd / f"{name}_GT.csv").write_text("".join(rows))
    for top in ("MECCANO_PSR_Annotations", "MECCANO_ASD_Annotations"):
        pack(folder / f"{top}.zip", staging, staging / top)


def make_industreal(folder: Path, size: tuple[int, int]) -> None:
    """A zip file of each split, the renders in two parts, and results of a detector."""
    procedure, number = load_procedure("industreal"), 0
    height, width = size
    for split, count in SPLITS.items():
        for _ in range(count):
            number += 1
            name = f"{number:02d}_assy_0_1"
            recording = folder / "staging" / split / name
            label_files(recording, procedure, name, 0, FRAMES[split], 6)
            # The other streams are not read; theirs may be small.
            sizes = {"rgb": size, "stereo_left": (36, 64), "depth": (36, 64)}
            for stream, its in sizes.items():
                (recording / stream).mkdir()
                for i, jpeg in enumerate(pictures(FRAMES[split], its, number)):
                    (recording / stream / f"{i:06d}.jpg").write_bytes(jpeg)
            images = [
                {"id": i, "file_name": f"{i:06d}.jpg", "width": width, "height": height}
                for i in range(20, FRAMES[split], 3)
            ]
            box = [width / 4, height / 4, width / 2, height / 2]
            boxes = [
                {"id": i, "image_id": image["id"], "category_id": 1 + i % 22, "bbox": box}
                for i, image in enumerate(images)
            ]
            coco = {"images": images, "categories": TABLE, "annotations": boxes}
            (recording / "OD_labels.json").write_text(json.dumps(coco))
            (recording / "gaze.csv").write_text("000000.jpg,1,2\n")
        staged = folder / "staging" / split
        pack(folder / f"{split}_p1.zip", staged, staged)
    renders, results = folder / "staging" / "synth", folder / "staging" / "ASD"
    make_renders(renders, size)
    renders_zip = folder / "renders.zip"
    pack(renders_zip, renders, renders)
    content, name = renders_zip.read_bytes(), "assembly_state_detection_synthetic_data.zip"
    renders_zip.unlink()
    (folder / f"{name}.001").write_bytes(content[: len(content) // 2])
    (folder / f"{name}.002").write_bytes(content[len(content) // 2 :])
    results.mkdir()
    (results / "read.me").touch()
    pack(folder / "ASD_results_IndustRealplusSynthetic_test.zip", results, results)


def make_renders(folder: Path, size: tuple[int, int]) -> None:
    """IndustReal's renders as they are unpacked, with their classes in the Unity scene."""
    (folder / "images").mkdir(parents=True)
    shown = list(range(24)) * RENDERS
    height, width = size
    images, boxes = [], []
    for i, (label, jpeg) in enumerate(zip(shown, pictures(len(shown), size, 7), strict=True)):
        name = f"train_SynthImage{i}.png"
        (folder / "images" / name).write_bytes(jpeg)
        images.append({"id": i, "file_name": name, "width": width, "height": height})
        box = [width / 4, height / 4, width / 2, height / 2]
        boxes.append({"id": i, "image_id": i, "category_id": label, "bbox": box})
    coco = {"images": images, "annotations": boxes}
    (folder / "labels_coco.json").write_text(json.dumps(coco))


def make_vit(path: Path, **fields) -> None:
    """A ViT's weights in timm's names, for pictures of 224 pixels, drawn at random."""
    model = ViT(**fields)
    images = jax.ShapeDtypeStruct((1, 224, 224, 3), np.float32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), images)["params"]
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda a: rng.normal(0, 0.02, a.shape).astype(np.float32), shapes)
    arrays = to_state_dict(params, {}, "vit", path)
    safetensors.numpy.save_file({k: np.ascontiguousarray(v) for k, v in arrays.items()}, path)


def pack(path: Path, folder: Path, inside: Path) -> None:
    with zipfile.ZipFile(path, "w") as file:
        for member in sorted(inside.rglob("*")):
            file.write(member, member.relative_to(folder))
