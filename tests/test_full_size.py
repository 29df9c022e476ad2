"""The shipped full-size configs on shards of their data sets' layout, every stage: slow.

    python -m pytest -m slow tests/test_full_size.py -s

Models and pictures are those of the configs, ViT-S/16 at 224 pixels and the detector at 640. Only
steps, batches and recordings are smaller, and loaders run in the process itself.
"""

import json
import shutil
import sys

import numpy as np
import pytest
import simplejpeg
import trimesh
from processes_of_tests import environment, finish, start
from tiny import TRAINED, flags_of

from data_prep import cad, industreal, meccano
from data_prep.check import check
from stormpsr_jax import load_model
from stormpsr_jax.configs import industreal as industreal_config
from stormpsr_jax.configs import meccano as meccano_config
from stormpsr_jax.data.framing import Framing
from stormpsr_jax.psr import labels
from stormpsr_jax.psr.procedure import load_procedure

FRAMES = {"train": 260, "val": 40, "test": 40}  # more than a window of 256; fewer to predict
BOXED = slice(10, 25)  # of the frames
SPLITS = {"train": 2, "val": 1, "test": 1}
SMALLER = {
    "pretrain.n_per_state": 2,
    "temporal.batch": 16,
    "finetune.batch": 1,
    "detector.batch": 4,
    "embed.batch": 32,
    "predict.batch": 8,
    "data.workers": 0,
    **{f"{stage}.steps": 2 for stage in TRAINED},
    **{f"{stage}.eval_every": 2 for stage in TRAINED},
    **{f"{stage}.checkpoint_every": 2 for stage in TRAINED},
    **{f"{stage}.log_every": 1 for stage in TRAINED},
}


def pictures(folder, names):
    """1080p pictures, one colour an eighth of the recording."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(len(str(folder)))
    noise = rng.integers(0, 60, (1080, 1920, 3), np.uint8)
    jpegs = [
        simplejpeg.encode_jpeg(noise + rng.integers(0, 190, 3, np.uint8), 80) for _ in range(8)
    ]
    for i, name in enumerate(names):
        (folder / name).write_bytes(jpegs[8 * i // len(names)])


def write_labels(folder, procedure, name, numbers, digits):
    """Goes through the catalogued states, evenly; returns the state vectors of all frames."""
    folder.mkdir(parents=True, exist_ok=True)
    initial = np.array(procedure.variant_for(name).initial_state, np.int8)
    states = np.vstack([initial, procedure.states[(procedure.states != initial).any(axis=1)]])
    frames = np.linspace(numbers[0], numbers[-1], len(states), endpoint=False).astype(int)
    image_name = lambda frame: f"{frame:0{digits}d}.jpg"  # noqa: E731
    labels.write_states(folder / "PSR_labels_raw.csv", frames, states, image_name=image_name)
    steps = labels.states_to_steps(frames, states)
    labels.write_steps(folder / "PSR_labels.csv", steps, procedure, image_name=image_name)


def run(config, data, workdir, **changes):
    """The command, without the flags of tests, which would leave code as it comes."""
    words = [sys.executable, "-m", "stormpsr_jax.main", f"--config={config}"]
    words += [*flags_of({**SMALLER, "data.dir": data, **changes}), f"--workdir={workdir}"]
    (output,) = finish(start(words, env=environment(XLA_FLAGS="")), timeout=7200)
    print(output)
    for stage in TRAINED:
        rows = [json.loads(row) for row in (workdir / stage / "metrics.jsonl").open()]
        losses = [row["loss"] for row in rows if "loss" in row]
        print(f"{stage}: losses {losses}")
        assert len(losses) == 2
        assert np.isfinite(losses).all()
    streams = set(json.loads((workdir / "metrics.json").read_text())["streams"])
    assert {"asd", "temporal", "storm"} <= streams
    pictures = load_model(workdir / "model").pictures
    assert (pictures.size, pictures.detector_size) == ((224, 224), (640, 640))


@pytest.mark.slow
def test_meccano_property_the_config_runs_from_frames_to_metrics(tmp_path):
    procedure = load_procedure("meccano")
    number = 0
    for split, count in SPLITS.items():
        numbers = range(1, FRAMES[split] + 1)
        for _ in range(count):
            number += 1
            name = f"{number:04d}"
            pictures(tmp_path / "frames" / split / name, [f"{i:05d}.jpg" for i in numbers])
            write_labels(tmp_path / "psr" / split / name, procedure, name, numbers, 5)
            rows = [f"{i},0,0,0.5,0.5,0.4,0.4\n" for i in numbers[BOXED]]
            (tmp_path / "asd" / split).mkdir(parents=True, exist_ok=True)
            (tmp_path / "asd" / split / f"{name}_GT.csv").write_text("".join(rows))
    assert meccano.make_dataset(
        tmp_path / "data",
        frames=tmp_path / "frames",
        labels=tmp_path / "psr",
        asd_labels=tmp_path / "asd",
        framing=Framing((640, 640)),  # of which the encoder's stages decode less
        workers=2,
    )
    shutil.rmtree(tmp_path / "frames")
    assert check(tmp_path / "data") == 0
    run("meccano", tmp_path / "data", tmp_path / "run")


@pytest.mark.slow
def test_industreal_property_the_config_runs_from_frames_and_cad_to_metrics(tmp_path):
    procedure = load_procedure("industreal")
    number = 0
    for split, count in SPLITS.items():
        numbers = range(FRAMES[split])
        for _ in range(count):
            number += 1
            name = f"{number:02d}_assy_0_1"
            folder = tmp_path / "raw" / "recordings" / split / name
            pictures(folder / "rgb", [f"{i:06d}.jpg" for i in numbers])
            write_labels(folder, procedure, name, numbers, 6)
            boxed = list(numbers[BOXED])
            coco = {
                "categories": [{"id": 1, "name": "state"}],
                "images": [
                    {"id": i, "file_name": f"{i:06d}.jpg", "width": 1920, "height": 1080}
                    for i in boxed
                ],
                "annotations": [
                    {"id": i, "image_id": i, "category_id": 1, "bbox": [500, 300, 600, 400]}
                    for i in boxed
                ],
            }
            (folder / "OD_labels.json").write_text(json.dumps(coco))
    for out, size in (("data", 224), ("large", 640)):  # the detector's in a folder of their own
        framing = Framing((size, size))
        assert industreal.make_dataset(
            tmp_path / out, data=tmp_path / "raw", framing=framing, workers=2
        )
    shutil.rmtree(tmp_path / "raw")
    for k, component in enumerate(procedure.components):
        (tmp_path / "meshes").mkdir(exist_ok=True)
        box = trimesh.creation.box((1, 1, 1), trimesh.transformations.translation_matrix((k, 0, 0)))
        box.export(tmp_path / "meshes" / f"{component}.stl")
    cad.make_dataset(
        tmp_path / "cad", meshes=tmp_path / "meshes", procedure=procedure, per_state=4, size=224
    )
    changes = {"data.cad_dir": tmp_path / "cad", "data.detector_dir": tmp_path / "large"}
    changes["pretrain.cad_per_state"] = 2
    run("industreal", tmp_path / "data", tmp_path / "run", **changes)


def test_slow_property_smaller_names_fields_that_exist():
    """So that the slow tests cannot rot unseen."""
    for module in (meccano_config, industreal_config):
        module.get_config().update_from_flattened_dict(SMALLER)
