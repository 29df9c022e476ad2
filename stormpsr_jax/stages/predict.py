"""Stage `predict`: both streams over every recording to score, as prediction files."""

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from stormpsr_jax.base.progress import Bar
from stormpsr_jax.configs import default as sections
from stormpsr_jax.data import sampling
from stormpsr_jax.data.clips import ClipSource
from stormpsr_jax.recordings import predictions, scores
from stormpsr_jax.recordings.evaluation_set import LabelledPredictions, load_recordings
from stormpsr_jax.serving.content import Window
from stormpsr_jax.serving.frames import Chunk, Frame, Frames, Views, changes, detections
from stormpsr_jax.serving.functions import Batched, Network, functions
from stormpsr_jax.stages.data import Data, Reads
from stormpsr_jax.stages.detector import MAX_DETECTIONS, DetectorTraining
from stormpsr_jax.stages.embed import Embedding, path_of
from stormpsr_jax.stages.finetune import Finetuning
from stormpsr_jax.stages.pretrain import Pretraining
from stormpsr_jax.stages.stage import Run, Stage
from stormpsr_jax.stages.temporal import TemporalTraining
from stormpsr_jax.training import checkpoint, loop


@dataclasses.dataclass(frozen=True)
class Prediction(Stage):
    """Writes WORKDIR/predictions/<split>/{asd,temporal,scores,visibility}.

    Attributes:
        detector, temporal: whose networks predict; None: there is no such stream.
        pretrain: whose encoder; None of embeddings from elsewhere, and where `finetune` has one.
        finetune: whose networks stand in place of both.
        embed: with the embeddings from elsewhere.
    """

    name = "predict"
    results = ("predictions/**/*.csv", "predictions/**/*.npz")

    predict: sections.Predict
    window: sections.Window
    detector: DetectorTraining | None = None
    pretrain: Pretraining | None = None
    temporal: TemporalTraining | None = None
    finetune: Finetuning | None = None
    embed: Embedding | None = None

    @property
    def after(self) -> tuple[Stage, ...]:
        """The stages whose weights predict."""
        replaced = () if self.finetune is None else (self.pretrain, self.temporal)
        return tuple(stage for stage in super().after if stage not in replaced)

    def taught(self, run: Run) -> list[bool] | None:
        """Whether a recording to learn from shows each part incorrect; None: renders show all."""
        if self.detector and self.detector.detector.cad_wrong:
            return None
        labelled = run.data.source("train").recordings.values()
        return np.any([(r.states < 0).any(axis=0) for r in labelled], axis=0).tolist()

    def networks(self, run: Run) -> dict[str, Network]:
        """The networks that recognition takes, by name, with the best weights."""
        best = {s.name: checkpoint.load_best(run.workdir / s.name) for s in self.after if s.trains}
        networks = {}
        if self.detector is not None:
            params = best["detector"][0]
            networks["detector"] = Network(self.detector.network(run), {"params": params})
        if self.finetune is not None:
            params, batch_stats = best["finetune"]
            best["pretrain"] = params["spatial"], batch_stats
            best["temporal"] = params["temporal"], {}
        if self.pretrain is not None:
            params, batch_stats = best["pretrain"]
            variables = {"params": params, "batch_stats": batch_stats}
            networks["encoder"] = Network(self.pretrain.network(run), variables)
        if self.temporal is not None:
            params = best["temporal"][0]
            networks["temporal"] = Network(self.temporal.network(run), {"params": params})
        return networks

    def make(self, run: Run) -> dict[str, Any]:
        """Predicts; finished recordings are kept. MemoryError, OSError: of `explained`."""
        splits, trained = self.predict.splits, self.networks(run)
        pictures = run.data.pictures(run.data.source(splits[0]), "detector" in trained)
        made = functions(trained, pictures, MAX_DETECTIONS, run.config.predict.batch)
        with loop.explained(run.workdir / "predict", "predict.batch"):
            for source, name, progress in self.recordings(run, splits):
                self._write(run, made, source, name, progress)
        return {}

    def _write(
        self, run: Run, made: Mapping[str, Batched], source: ClipSource, name: str, progress: Bar
    ) -> None:
        """Writes the predictions of one recording, or keeps them."""
        window = Window(self.window.frames, self.window.stride)
        recording, folder = source.recordings[name], run.workdir / "predictions" / source.split
        asd = folder / "asd" / f"{name}_results_pred.csv"
        temporal = folder / "temporal" / f"{name}_results_pred.csv"
        scored = folder / "scores" / f"{name}{scores.SUFFIX}"
        visibility = folder / "visibility" / f"{name}.csv"
        tells = self.temporal is not None and self.temporal.temporal.state_loss > 0
        asked = {
            asd: "detect" in made,
            temporal: "temporal" in made,
            scored: "temporal" in made and ("detect" in made or tells),
            visibility: np.isfinite(recording.visible).any(),
        }
        wanted = [path for path, is_asked in asked.items() if is_asked]
        if all(path.exists() for path in wanted):  # of a run that was stopped
            progress.update(recording.num_frames)
            return
        frames: list[Frame] = []
        for chunk in Frames(made, window).over(self._chunks(run, made, source, name)):
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

    def _chunks(
        self, run: Run, made: Mapping[str, Batched], source: ClipSource, name: str
    ) -> Iterator[Chunk]:
        """What the networks take of a recording."""
        numbers, batch = source.numbers(name).tolist(), run.config.predict.batch
        starts = range(0, len(numbers), batch)
        encoded: Iterable[Any] = itertools.repeat(None)
        detected: Iterable[Any] = itertools.repeat(None)
        if "encode" in made:
            encoded = source.chunks(name, batch)
        elif "temporal" in made:
            rows = np.load(path_of(run, source.split, name))
            encoded = (rows[start : start + batch] for start in starts)
        if "detect" in made:
            detected = run.data.detector_source(source.split).chunks(name, batch)
        for start, *views in zip(starts, encoded, detected, strict=False):
            yield numbers[start : start + batch], Views(*views)

    def reads(self, run: Run) -> list[Reads]:
        """Pictures, and what prediction files hold besides."""
        splits = self.predict.splits
        reads = [Reads(("pictures", "states", "visible"), splits)]
        if run.config.data.detector_dir and self.detector:
            source = Data.detector_source
            reads.append(Reads(("pictures",), splits, source, owner="the detector's "))
        return reads

    def check(self, run: Run) -> list[str]:
        """Says whether there is anything to predict, and by what."""
        if not self.predict.splits:
            return ["--config.predict.splits=(): names no split to predict; give at least one"]
        if self.detector or self.temporal:
            return []
        return [
            "stages has 'predict', but neither 'detector' nor 'temporal', whose networks it takes"
        ]


def read_split(run: Run, split: str, scored: bool) -> dict[str, LabelledPredictions]:
    """The labels of a split and what the stage has left for it; the scores too, if `scored`."""
    folder = run.workdir / "predictions" / split
    there = {n: folder / n for n in ("asd", "temporal", "visibility") if (folder / n).is_dir()}
    if not there.keys() & {"asd", "temporal"}:
        raise ValueError(f"{folder}: no predictions; run stage 'predict' on split {split!r} first")
    return load_recordings(
        run.procedure,
        run.data.label_files(split),
        there.get("asd"),
        there.get("temporal"),
        scores_dir=folder / "scores" if scored else None,
        visibility_dir=there.get("visibility"),
    )
