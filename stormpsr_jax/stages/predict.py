"""Stage `predict`: both streams over every recording to score, as prediction files."""

import itertools
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from stormpsr_jax.base import results
from stormpsr_jax.base.progress import Bar
from stormpsr_jax.base.results import Record
from stormpsr_jax.data import sampling
from stormpsr_jax.data.clips import ClipSource
from stormpsr_jax.data.features import EmbeddingFile
from stormpsr_jax.networks.detector import Detector
from stormpsr_jax.networks.stored import stored_types
from stormpsr_jax.recordings import predictions, scores
from stormpsr_jax.recordings.evaluation_set import LabelledPredictions, load_recordings
from stormpsr_jax.serving.batched import Batched
from stormpsr_jax.serving.content import Window
from stormpsr_jax.serving.frames import Chunk, Frame, Frames, Views, changes, detections
from stormpsr_jax.serving.functions import functions
from stormpsr_jax.stages import (
    detector,
    embed,
    finetune,
    learning,
    networks,
    pretrain,
    temporal,
)
from stormpsr_jax.stages.context import Context
from stormpsr_jax.stages.stage import Reads, Stage
from stormpsr_jax.training import loop


def run(context: Context) -> dict:
    """Writes WORKDIR/predictions/<split>/{asd,temporal,scores,visibility}.

    Finished recordings are kept.

    Raises:
        MemoryError, OSError: no memory for predict.batch, a full disk; the message says what to do.
    """
    config = context.config.predict
    trained = networks.trained(context, [stage.name for stage in networks_of(context)])
    source, detects = context.source(config.splits[0]), "detector" in trained
    of_pictures = networks.pictures(context, source, detects)
    made = functions(trained, of_pictures, networks.MAX_DETECTIONS, config.batch)
    with loop.explained(context.workdir / "predict", "predict.batch"):
        for split in config.splits:
            source = context.source(split)
            folder = context.workdir / "predictions" / split
            names = list(source.recordings)[jax.process_index() :: jax.process_count()]
            total = sum(source.recordings[name].num_frames for name in names)
            with Bar(total=total, desc=f"predict {split}", unit="frame") as progress:
                for name in names:
                    _recording(
                        made,
                        source,
                        context.detector_source(split) if detects else None,
                        name,
                        window=context.window,
                        batch=config.batch,
                        embeddings=context.embedding_path(split, name),
                        tells=context.config.temporal.state_loss > 0,
                        folder=folder,
                        workdir=context.workdir,
                        progress=progress,
                    )
    return {}


def _recording(
    made: Mapping[str, Batched],
    source: ClipSource,
    detector_source: ClipSource | None,
    name: str,
    *,
    window: Window,
    batch: int,
    embeddings: Path,
    tells: bool,
    folder: Path,
    workdir: Path,
    progress: Bar,
) -> None:
    """Writes the predictions of one recording, or keeps them.

    Args:
        made: the networks, of `serving.functions`.
        detector_source: the same pictures in the detector's size, if there is one.
        embeddings: file of its embeddings, read where there is no encoder.
        tells: whether the temporal network tells of states.
        folder: of the split's predictions.
    """
    recording = source.recordings[name]
    asd = folder / "asd" / f"{name}_results_pred.csv"
    temporal = folder / "temporal" / f"{name}_results_pred.csv"
    scored = folder / "scores" / f"{name}{scores.SUFFIX}"
    visibility = folder / "visibility" / f"{name}.csv"
    asked = {
        asd: "detect" in made,
        temporal: "temporal" in made,
        scored: "temporal" in made and ("detect" in made or tells),
        visibility: np.isfinite(recording.visible).any(),
    }
    wanted = [path for path, is_asked in asked.items() if is_asked]
    part_of = workdir / "predict" / "completed" / folder.name / name
    if results.holds(part_of, workdir, wanted):
        progress.update(recording.num_frames)
        return
    frames: list[Frame] = []
    parts = _chunks(made, source, detector_source, name, batch, embeddings)
    for chunk in Frames(made, window).over(parts):
        frames += chunk
        progress.update(len(chunk))
    numbers = source.numbers(name)
    for path in wanted:
        path.parent.mkdir(parents=True, exist_ok=True)
    if (found := detections(frames)) is not None:
        predictions.write_detections(asd, name, found)
    last = np.arange(recording.num_frames)
    labels = sampling.clip_labels(recording.states, last, frames=window.frames)
    if (changed := changes(frames, labels)) is not None:
        predictions.write_temporal(temporal, name, changed)
    if scored in wanted:
        whole = jax.tree.map(lambda *rows: np.stack(rows), *(frame.scores for frame in frames))
        scores.write_scores(scored, scores.Scores(numbers, *whole))
    if visibility in wanted:
        predictions.write_visibility(visibility, numbers, recording.visible)
    results.write(part_of, Record({}, results=results.checksums(workdir, wanted)))


def _chunks(
    made: Mapping[str, Batched],
    source: ClipSource,
    detector_source: ClipSource | None,
    name: str,
    batch: int,
    embeddings: Path,
) -> Iterator[Chunk]:
    """What the networks take of a recording; arguments as of `_recording`."""
    numbers = source.numbers(name).tolist()
    starts = range(0, len(numbers), batch)
    encoded: Iterable[Any] = itertools.repeat(None)
    detected: Iterable[Any] = itertools.repeat(None)
    if "encode" in made:
        encoded = (pictures for _, pictures in source.chunks(name, batch))
    elif "temporal" in made:
        file = EmbeddingFile(embeddings)
        encoded = (file[start : start + batch] for start in starts)
    if detector_source is not None:
        detected = (pictures for _, pictures in detector_source.chunks(name, batch))
    for start, *views in zip(starts, encoded, detected, strict=False):
        yield numbers[start : start + batch], Views(*views)


def read_split(
    context: Context, split: str, asd: Path | None = None
) -> dict[str, LabelledPredictions]:
    """The labels of a split and what the stage has left for it; scores only for stage `fuse`.

    `asd`: prediction files to take in place of those of stream asd.
    """
    folder = context.workdir / "predictions" / split
    there = {n: folder / n for n in ("asd", "temporal", "visibility") if (folder / n).is_dir()}
    if asd is not None:
        there["asd"] = asd
    if not there.keys() & {"asd", "temporal"}:
        raise ValueError(f"{folder}: no predictions; run stage 'predict' on split {split!r} first")
    return load_recordings(
        context.procedure,
        context.folder(split) / "labels" / split,
        there.get("asd"),
        there.get("temporal"),
        scores_dir=folder / "scores" if "fuse" in context.config.stages else None,
        visibility_dir=there.get("visibility"),
    )


def networks_of(context: Context) -> tuple[Stage, ...]:
    """The stages whose networks predict."""
    found = [detector.STAGE] if detector.STAGE.is_chosen(context) else []
    if temporal.STAGE.is_chosen(context):
        if finetune.STAGE.is_chosen(context):
            found.append(finetune.STAGE)
        else:
            given = context.config.embed.files
            found += [temporal.STAGE] if given else [pretrain.STAGE, temporal.STAGE]
    return tuple(found)


def _reads(context: Context) -> list[Reads]:
    splits = tuple(context.config.predict.splits)
    found = [Reads(("pictures", "states", "visible"), splits)]
    if context.config.data.detector_dir and detector.STAGE.is_chosen(context):
        source = Context.detector_source
        found.append(Reads(("pictures",), splits, source, owner="the detector's "))
    return found


def _check(context: Context) -> list[str]:
    if not context.config.predict.splits:
        return ["--config.predict.splits=(): names no split to predict; give at least one"]
    if networks_of(context):
        return []
    return ["stages has 'predict', but neither 'detector' nor 'temporal', whose networks it takes"]


STAGE = Stage(
    name="predict",
    run=run,
    fields=(
        *learning.PICTURES,
        *learning.ENCODER,
        "temporal_model",
        "temporal.state_loss",
        "window",
        "predict",
        "!predict.batch",
        *(f"detector.{name}" for name in stored_types(Detector)),
        "detector.max_detections",
        "detector.part_loss",
        "detector.pose_loss",
        "detector.image_size",
    ),
    reads=_reads,
    after=lambda context: (
        *networks_of(context),
        *([embed.STAGE] if context.config.embed.files else []),
    ),
    results=("predictions/**/*.csv", "predictions/**/*.npz"),
    check=_check,
)
