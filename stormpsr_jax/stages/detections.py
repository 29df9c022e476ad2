"""Stage `detections`: the detector over every picture that stage `predict` asks for, once.

It belongs to `predict`, and stands apart so that runs with the same detector share it, as all runs
of a seed do that the paper's tables take.
"""

from pathlib import Path
from typing import Any

import jax
import numpy as np

from stormpsr_jax.base import files, npy, results
from stormpsr_jax.base.progress import Bar
from stormpsr_jax.base.results import Record
from stormpsr_jax.networks.detector import Detector
from stormpsr_jax.networks.stored import stored_types
from stormpsr_jax.serving.functions import functions
from stormpsr_jax.stages import detector, learning, networks
from stormpsr_jax.stages.context import Context
from stormpsr_jax.stages.stage import Reads, Stage
from stormpsr_jax.training import loop

# What `functions` gives of "detect"; the last one is there if the detector looks at parts.
NAMES = ("boxes", "classes", "confidences", "objectness", "states", "parts")


def run(context: Context) -> dict:
    """Writes WORKDIR/detections/<split>/<recording>.npz, arrays (N, …) as the network gives them.

    Recordings are shared out over the hosts, and a finished one is not looked at again.

    Raises:
        MemoryError, OSError: no memory for predict.batch, a full disk; the message says what to do.
    """
    config = context.config.predict
    of_pictures = networks.pictures(context, context.detector_source(config.splits[0]))
    trained = networks.trained(context, ["detector"])
    most = networks.MAX_DETECTIONS
    detect = functions(trained, of_pictures, most, config.batch)["detect"]
    with loop.explained(context.workdir / "predict", "predict.batch"):
        for split in config.splits:
            source = context.detector_source(split)
            names = list(source.recordings)[jax.process_index() :: jax.process_count()]
            total = sum(source.recordings[name].num_frames for name in names)
            with Bar(total=total, desc=f"detections {split}", unit="frame") as progress:
                for name in names:
                    path = _path(context, split, name)
                    part_of = context.workdir / "detections" / "completed" / split / name
                    if results.holds(part_of, context.workdir, [path]):
                        progress.update(source.recordings[name].num_frames)
                        continue
                    found = []
                    pictures = source.chunks(name, config.batch)
                    for *columns, scores in detect.over(images for _, images in pictures):
                        found.append([*columns, *(s for s in scores if s is not None)])
                        progress.update(len(columns[0]))
                    arrays = map(np.concatenate, zip(*found, strict=True))
                    path.parent.mkdir(parents=True, exist_ok=True)
                    with files.replacing(path) as part, part.open("wb") as file:
                        np.savez(file, **dict[str, Any](zip(NAMES, arrays, strict=False)))
                    made = results.checksums(context.workdir, [path])
                    results.write(part_of, Record({}, results=made))
    return {}


def _path(context: Context, split: str, name: str) -> Path:
    return context.workdir / "detections" / split / f"{name}.npz"


class KeptDetections:
    """What the detector says of a recording's pictures, in order, as `functions` has it."""

    def __init__(self, context: Context, split: str, name: str):
        """Reads it; ValueError if the file cannot be read."""
        path = _path(context, split, name)
        try:
            with np.load(path, allow_pickle=False) as file:
                self._arrays: dict[str, Any] = dict(file)
        except npy.UNREADABLE as error:
            raise ValueError(
                f"{path}: cannot be read ({npy.reason(error)}); delete it and run the same command "
                "again"
            ) from error
        self._next = 0

    def __call__(self, rows: np.ndarray) -> tuple:
        """What it says of the next pictures, as many as there are rows."""
        part = slice(self._next, self._next + len(rows))
        self._next = part.stop
        of_boxes, of_pictures = NAMES[:3], NAMES[3:]
        scores = [self._arrays[n][part] if n in self._arrays else None for n in of_pictures]
        return *(self._arrays[name][part] for name in of_boxes), tuple(scores)


STAGE = Stage(
    name="detections",
    run=run,
    fields=(
        *learning.PICTURES,
        "predict.splits",
        *(f"detector.{name}" for name in stored_types(Detector)),
        "detector.part_loss",
        "detector.pose_loss",
        "detector.image_size",
    ),
    reads=lambda context: [
        Reads(("pictures",), tuple(context.config.predict.splits), Context.detector_source)
    ],
    after=lambda _: (detector.STAGE,),
    part_of="predict",
    results=("detections/*/*.npz",),
)
