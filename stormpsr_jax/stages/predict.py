"""Stage `predict`: both streams over every recording to score, as prediction files."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

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
from stormpsr_jax.serving.functions import functions
from stormpsr_jax.serving.recogniser import Recogniser
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
                    _recording(context, made, source, name, folder, progress)
    return {}


def _recording(
    context: Context,
    made: Mapping[str, Batched],
    source: ClipSource,
    name: str,
    folder: Path,
    progress: Bar,
) -> None:
    recording, window = source.recordings[name], context.window
    asd = folder / "asd" / f"{name}_results_pred.csv"
    temporal = folder / "temporal" / f"{name}_results_pred.csv"
    scored = folder / "scores" / f"{name}{scores.SUFFIX}"
    visibility = folder / "visibility" / f"{name}.csv"
    detects = "detect" in made
    asked = {
        asd: detects,
        temporal: "temporal" in made,
        scored: "temporal" in made and (detects or context.config.temporal.state_loss > 0),
        visibility: np.isfinite(recording.visible).any(),
    }
    wanted = [path for path, is_asked in asked.items() if is_asked]
    split = folder.name
    part_of = context.workdir / "predict" / "completed" / split / name
    if results.holds(part_of, context.workdir, wanted):
        progress.update(recording.num_frames)
        return
    recogniser = Recogniser(
        encode=None,  # before, several batches at a time
        temporal=made.get("temporal"),
        detect=_detections(context, made["detect"], split, name) if detects else None,
        frames=window.frames,
        stride=window.stride,
    )
    rows = []
    for chunk in _rows(context, made, source, name):
        rows.append(recogniser(chunk))
        progress.update(len(chunk))
    numbers = source.numbers(name)
    for path in wanted:
        path.parent.mkdir(parents=True, exist_ok=True)
    if detects:
        columns = zip(*(r.detected for r in rows if r.detected is not None), strict=True)
        boxes, classes, confidences = map(np.concatenate, columns)
        frame, row = np.nonzero(classes > 0)
        found = predictions.Detections(
            numbers[frame], classes[frame, row], confidences[frame, row], boxes[frame, row]
        )
        predictions.write_detections(asd, name, found)
    if "temporal" in made:
        probabilities = np.concatenate([r.probabilities for r in rows])
        last = np.arange(recording.num_frames)
        labels = sampling.clip_labels(recording.states, last, frames=window.frames)
        predictions.write_temporal(
            temporal,
            name,
            predictions.TemporalPredictions(
                numbers, labels, (probabilities > 0.5).astype(int), probabilities
            ),
        )
    if scored in wanted:
        whole = jax.tree.map(lambda *parts: np.concatenate(parts), *(r.scores for r in rows))
        scores.write_scores(scored, scores.Scores(numbers, *whole))
    if visibility in wanted:
        predictions.write_visibility(visibility, numbers, recording.visible)
    results.write(part_of, Record({}, results=results.checksums(context.workdir, wanted)))


def _rows(
    context: Context, made: Mapping[str, Batched], source: ClipSource, name: str
) -> Iterator[np.ndarray]:
    """The embeddings of a recording in order; of a detector alone, numbers of its pictures."""
    batch, total = context.config.predict.batch, source.recordings[name].num_frames
    if "encode" in made:
        yield from made["encode"].over(part for _, part in source.chunks(name, batch))
        return
    rows: np.ndarray | EmbeddingFile = np.arange(total)
    if "temporal" in made:  # on embeddings of another encoder
        rows = EmbeddingFile(context.embedding_path(source.split, name))
    yield from (rows[start : start + batch] for start in range(0, total, batch))


def _detections(
    context: Context, detect: Batched, split: str, name: str
) -> Callable[[np.ndarray], tuple]:
    """Detects in all pictures of a recording, and returns what gives those of the next rows."""
    pictures = context.detector_source(split).chunks(name, context.config.predict.batch)
    parts = [(*columns, *scores) for *columns, scores in detect.over(p for _, p in pictures)]
    arrays = [None if a[0] is None else np.concatenate(a) for a in zip(*parts, strict=True)]
    start = 0

    def of_next(rows: np.ndarray) -> tuple:
        nonlocal start
        part = slice(start, start := start + len(rows))
        boxes, classes, confidences, *scores = (a if a is None else a[part] for a in arrays)
        return boxes, classes, confidences, tuple(scores)

    return of_next


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
