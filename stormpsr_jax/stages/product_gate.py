"""Stage `product_gate`: by what a model tells pictures of its own kind from others.

A model without a detector cannot tell, and nothing is learnt. Otherwise the networks look at some
pictures of each training recording, and at whole validation recordings, thinned out to a few
pictures a second. Each is looked at in its own light and in others, which are made up: brightness,
contrast and colour of a bench that training has not seen.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path

import jax
import numpy as np

from stormpsr_jax.base import files
from stormpsr_jax.base.progress import Bar
from stormpsr_jax.data.clips import ClipSource
from stormpsr_jax.psr.procedure import Procedure
from stormpsr_jax.serving.batched import Batched
from stormpsr_jax.serving.functions import functions
from stormpsr_jax.serving.product_gate import Fits, Looks, joined
from stormpsr_jax.serving.product_gate_learning import learn
from stormpsr_jax.serving.recogniser import Detected, Recognised
from stormpsr_jax.stages import detections, detector, networks, predict
from stormpsr_jax.stages.context import Context
from stormpsr_jax.stages.stage import FPS, SPLITS, Reads, Stage
from stormpsr_jax.training import loop

FITS = "product_gate.json"
RATE = 1.0  # pictures a second of validation recordings
TRAINING = 1_000  # pictures of training recordings, evenly spaced
LIGHTS = 2  # besides their own
# Of a light: factors, on all channels and on each, and an exponent, drawn between 1 / x and x.
_BRIGHTER, _TINTED, _GAMMA = 1.6, 1.15, 1.5


def run(context: Context) -> dict:
    """Writes WORKDIR/product_gate/product_gate.json.

    Raises:
        MemoryError, OSError: no memory for predict.batch, a full disk; the message says what to do.
    """
    if jax.process_index() != 0:
        return {}
    stages = [stage.name for stage in predict.networks_of(context)]
    trained = networks.trained(context, stages)
    found = _learnt(context, trained) if "detector" in trained else Fits({}, None)
    if not context.config.product_gate.refuses:
        found = dataclasses.replace(found, thresholds={})
    folder = context.workdir / "product_gate"
    folder.mkdir(parents=True, exist_ok=True)
    files.write_json(folder / FITS, found.to_json())
    return {f"threshold of {key}": value for key, value in found.thresholds.items()}


def _learnt(context: Context, trained: Mapping[str, networks.Network]) -> Fits:
    sources = {split: context.source(split) for split in SPLITS}
    pictures = networks.pictures(context, sources["train"], True)
    batch = context.config.predict.batch
    made = functions(trained, pictures, networks.MAX_DETECTIONS, batch)
    two = pictures.detector_size is not None
    pairs = {
        split: (source, context.detector_source(split) if two else None)
        for split, source in sources.items()
    }
    with loop.explained(context.workdir / "predict", "predict.batch"):
        return fit(pairs, made, batch, context.procedure)


def read(path: Path) -> Fits:
    """Reads what the stage has left in its folder; ValueError: missing or damaged."""
    return Fits.from_json(files.read_json(path / FITS), str(path / FITS))


Sources = Mapping[str, tuple[ClipSource, ClipSource | None]]


def fit(sources: Sources, made: Mapping[str, Batched], batch: int, procedure: Procedure) -> Fits:
    """Learns it, with the networks as functions (`made`), `batch` pictures at once.

    `sources` are by split, "train" and "val", what the encoder sees, and the same in another size
    for the detector, if that has one.
    """
    initial = procedure.initial_classes
    looks: dict[str, list[Looks]] = {}
    plans = {split: list(_plan(split, source)) for split, (source, _) in sources.items()}
    total = sum(len(rows) for plan in plans.values() for _, rows in plan)
    rng = np.random.default_rng(0)
    with Bar(total=total, desc="product_gate", unit="frame") as bar:
        for split, (source, larger) in sources.items():
            for name, rows in plans[split]:
                lights = [None, *(draw_light(rng) for _ in range(LIGHTS))]
                for light in lights:
                    parts = _look(made, source, larger, name, rows, batch, light)
                    own = joined(Looks.of(part, initial) for part in parts)
                    looks.setdefault(split, []).append(own)
                bar.update(len(rows))
    source = sources["val"][0]
    rate = source.fps / _every(source)
    return learn(looks.get("train", []), looks.get("val", []), rate)


def _every(source: ClipSource) -> int:
    return max(1, round(source.fps / RATE))


def _plan(split: str, source: ClipSource) -> Iterator[tuple[str, np.ndarray]]:
    """The rows of each recording that are looked at."""
    every = _every(source)
    if split == "train":
        count = sum(recording.num_frames for recording in source.recordings.values())
        every = max(1, -(-count // TRAINING))
    for name, recording in source.recordings.items():
        yield name, np.arange(0, recording.num_frames, every)


def _look(
    made: Mapping[str, Batched],
    source: ClipSource,
    larger: ClipSource | None,
    name: str,
    rows: np.ndarray,
    batch: int,
    light: np.ndarray | None,
) -> Iterator[Recognised]:
    def lit(pictures: np.ndarray) -> np.ndarray:
        return pictures if light is None else in_light(pictures, light)

    for start in range(0, len(rows), batch):
        part = rows[start : start + batch]
        pictures = lit(source.rows(name, part))
        seen = pictures if larger is None else lit(larger.rows(name, part))
        detected, embeddings = Detected(*made["detect"](seen)[:3]), None
        if "temporal" in made:
            embeddings = made["encode"](pictures)
        yield Recognised(None, detected, embeddings=embeddings)


def draw_light(rng: np.random.Generator) -> np.ndarray:
    """Draws another light: a table (256, 3) from the values of a picture to those in that light."""

    def factor(most: float, size: int | None = None) -> np.ndarray:
        return np.exp(rng.uniform(-np.log(most), np.log(most), size))

    grey = (np.arange(256) / 255) ** factor(_GAMMA)
    table = 255 * grey[:, None] * factor(_BRIGHTER) * factor(_TINTED, 3)
    return np.clip(table + 0.5, 0, 255).astype(np.uint8)


def in_light(pictures: np.ndarray, light: np.ndarray) -> np.ndarray:
    """Pictures uint8 (…, 3) in a light that `draw_light` has drawn."""
    return np.stack([light[pictures[..., c], c] for c in range(3)], axis=-1)


def _reads(context: Context) -> list[Reads]:
    found = [Reads(("pictures", FPS), SPLITS), Reads(("initial states", "states"))]
    if context.config.data.detector_dir and detector.STAGE.is_chosen(context):
        source = Context.detector_source
        found.append(Reads(("pictures",), SPLITS, source, owner="the detector's "))
    return found


STAGE = Stage(
    name="product_gate",
    run=run,
    fields=(
        "product_gate",
        *(  # it has own splits
            name
            for name in dict.fromkeys((*predict.STAGE.fields, *detections.STAGE.fields))
            if not name.startswith("predict")
        ),
    ),
    reads=_reads,
    after=predict.networks_of,
    results=(f"product_gate/{FITS}",),
    check=lambda context: predict.network_errors(context, "product_gate"),
)
