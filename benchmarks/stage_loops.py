"""What each stage hands to the training loop, on made-up data and without training.

For the benchmarks that measure the real models, losses, optimisers and pipelines.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import simplejpeg
from jax.sharding import Mesh
from PIL import Image

from data_prep.writing import shards
from stormpsr_jax.configs.default import Config
from stormpsr_jax.data.folder import EMPTY, MARKER
from stormpsr_jax.experiments.runs import changed
from stormpsr_jax.media.pictures import QUALITY, SUBSAMPLING
from stormpsr_jax.recordings.procedure import Procedure
from stormpsr_jax.stages import order
from stormpsr_jax.stages.data import SPLITS
from stormpsr_jax.stages.embed import path_of
from stormpsr_jax.stages.run import run_of
from stormpsr_jax.stages.stage import Run, Training
from stormpsr_jax.training import checkpoint, step
from stormpsr_jax.training.devices import state_shardings
from stormpsr_jax.training.step import Batch, Definition, Params

STAGES = ("pretrain", "temporal", "finetune", "detector")
SECONDS = 16.0  # that a recording stays in each state: hard backgrounds lie 12 s before its end
PICTURES = 32  # different ones
CAD_PICTURES = 4  # clean renders of a state


def smooth_picture(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    """Coarse shapes with finer and fainter ones on them, no noise between pixels.

    Its JPEG file is as large as that of a photograph.
    """
    picture = np.zeros((height, width, 3), np.float32)
    for cells in (4, 16, 64, 256):
        grid = rng.normal(0, 60 / np.sqrt(cells), (cells, cells, 3)).astype(np.float32)
        channels = [
            Image.fromarray(grid[..., c]).resize((width, height), Image.Resampling.BICUBIC)
            for c in range(3)
        ]
        picture += np.stack([np.asarray(channel) for channel in channels], -1)
    return Image.fromarray(np.clip(128 + picture, 0, 255).astype(np.uint8))


def smooth_jpegs(count: int, size: int, seed: int = 0) -> list[bytes]:
    """JPEG files of different smooth pictures of size x size, as `data_prep` stores them."""
    rng = np.random.default_rng(seed)
    pictures = (np.asarray(smooth_picture(rng, size, size)) for _ in range(count))
    return [simplejpeg.encode_jpeg(p, QUALITY, "RGB", SUBSAMPLING, fastdct=False) for p in pictures]


def opened(
    config: Config, workdir: Path, mesh: Mesh, recordings: int = 2
) -> tuple[Run, dict[str, Any]]:
    """What the stages of a config work in, on made-up data and random weights; stages by name.

    The data are made where they are not there: pictures of the encoder's size, and in another
    folder the detector's.
    """
    size = config.data.synthetic.size if "data" in config.stages else 224
    size = config.encoder.image_size or size
    large = config.detector.image_size or size
    folders = {"data": size} if large == size else {"data": size, "pictures_of_detector": large}
    changes = {"init_from": "", "data.workers": 0, "data.dir": str(workdir / "data")}
    changes["data.detector_dir"] = "" if large == size else str(workdir / "pictures_of_detector")
    config = changed(config, changes)
    run = run_of(config, workdir, mesh)
    for name, side in folders.items():
        if not (workdir / name / MARKER).is_file():
            make_data(workdir / name, run.procedure, side, recordings)
    return run, order.stages(config)


def make_data(folder: Path, procedure: Procedure, size: int, recordings: int = 2) -> None:
    """Clip shards of smooth pictures, whose recordings go through all states of a procedure."""
    jpegs = smooth_jpegs(PICTURES, size)
    names = {
        split: [f"{split}_assy_{i}" for i in range(recordings)]
        for split in ("train", "val", "test")
    }
    shown = np.flatnonzero(procedure.states.any(axis=1))
    names["cad"] = [f"cad_{state}" for state in range(procedure.num_states)]
    names["cad"] += [f"wrong_{state}" for state in shown]
    shards.build(
        folder,
        procedure=procedure,
        image_size=(size, size),
        splits=names,
        make=functools.partial(_recording, procedure, jpegs),
    )


def _recording(
    procedure: Procedure, jpegs: list[bytes], split: str, name: str
) -> shards.RecordingData:
    if split == "cad":
        kind, number = name.split("_")
        state = procedure.states[int(number)].copy()
        if kind == "wrong":
            state[np.argmax(state)] = -1
        states = np.repeat(state[None], CAD_PICTURES, axis=0)
    else:
        nothing = np.zeros_like(procedure.states[:1])
        states = np.concatenate([nothing, procedure.states])
        states = np.repeat(states, round(SECONDS * procedure.fps), axis=0)
    classes = procedure.state_classes(states)
    boxes = np.full((len(states), 4), 0.5)
    classes[::10], boxes[::10] = EMPTY, np.nan
    return shards.RecordingData(
        name=name,
        first_frame=0,
        jpegs=(jpegs[i % len(jpegs)] for i in range(len(states))),
        states=states,
        boxes=boxes,
        classes=classes,
        visible=np.ones(len(states)),
    )


def definitions(
    run: Run, stages: Mapping[str, Any], names: Sequence[str] = STAGES
) -> dict[str, Definition]:
    """What trained stages would train, from random embeddings and parameters."""
    rng = np.random.default_rng(0)
    for split in SPLITS:
        for name, recording in run.data.source(split).recordings.items():
            shape = (recording.num_frames, stages["embed"].width(run))
            path = path_of(run, split, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, rng.normal(size=shape).astype(np.float32))
    stages_built = {name: build(run, stages[name]) for name in names}
    for name in ("pretrain", "temporal") if "finetune" in names else ():  # what it starts from
        (run.workdir / name).mkdir(exist_ok=True)
        checkpoint.save_best(run.workdir / name, *build(run, stages[name]).init())
    return stages_built


def build(run: Run, stage: Training) -> Definition:
    """What one stage would train, a step a dispatch; what devices hold is part of its step."""
    definition = stage.build(run)
    if definition.held is None:
        return definition
    held = definition.held()

    def loss_fn(params: Params, batch_stats: Params, batch: Batch, rng: jax.Array) -> step.Loss:
        whole = {name: jnp.asarray(array) for name, array in held.items()}
        return definition.loss_fn(params, batch_stats, whole | batch, rng)

    return dataclasses.replace(definition, loss_fn=loss_fn, held=None, steps_per_dispatch=1)


def abstract_state(definition: Definition) -> tuple[step.TrainState, optax.GradientTransformation]:
    """Shapes of a stage's train state, and its optimiser."""
    abstract = lambda tree: jax.tree.map(  # noqa: E731
        lambda a: jax.ShapeDtypeStruct(np.shape(a), a.dtype), tree
    )
    params, batch_stats = abstract(definition.init())
    optimizer = definition.optimizer(params)
    start = params, batch_stats, abstract(jax.random.key_data(jax.random.key(0)))
    return jax.eval_shape(lambda *start: step.new_state(optimizer, *start), *start), optimizer


def first_batch(definition: Definition) -> dict[str, np.ndarray]:
    """The first one of the config's size."""
    data = definition.data(0)
    batch = next(data)
    data.close()
    return batch


def lower(
    definition: Definition,
    mesh: Mesh,
    rows: int | None = None,
    platforms: tuple[str, ...] | None = None,
) -> jax.stages.Lowered:
    """A stage's step, as the training loop jits it, lowered for a mesh.

    Args:
        definition: of the stage.
        mesh: may be of devices that are not there.
        rows: B of the global batch; None is the config's.
        platforms: to lower for, such as ("cuda",); None is that of the mesh.
    """
    batch = {
        name: jax.ShapeDtypeStruct((rows or len(array), *array.shape[1:]), array.dtype)
        for name, array in first_batch(definition).items()
    }
    state, optimizer = abstract_state(definition)
    names = step.sum_names(definition.loss_fn, state, batch)
    sums = dict.fromkeys(names, jax.ShapeDtypeStruct((), np.float32))
    jitted = step.jit_step(definition.loss_fn, optimizer, state_shardings(state, mesh), mesh)
    return jitted.trace(state, sums, batch).lower(lowering_platforms=platforms)
