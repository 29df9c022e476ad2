"""Stand-ins for what a user downloads: the data sets in their own layout, and timm's weights."""

import json
import re
import zipfile
from pathlib import Path

import jax
import numpy as np
import safetensors.numpy
import simplejpeg

from stormpsr_jax.networks.vit import ViT
from stormpsr_jax.recordings import labels
from stormpsr_jax.recordings.labels import states_to_steps
from stormpsr_jax.recordings.procedure import Procedure, load_procedure
from stormpsr_jax.weights.torch_layout import to_state_dict
from tests.support.industreal_data import TABLE

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
