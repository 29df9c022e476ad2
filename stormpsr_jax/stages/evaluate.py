"""Stage `evaluate`: decode, fuse and score the test split; metrics.json, report.html, the model.

Thresholds, floor, gate and fusion weight are chosen on the validation split alone. Where the test
split has boxes, detections.json says how good the detector is there, frame by frame.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import msgspec
import numpy as np

from stormpsr_jax.base import files, installed, results
from stormpsr_jax.configs import default as sections
from stormpsr_jax.configs.default import LEARNING
from stormpsr_jax.data.folder import ENOUGH, NOT_ANNOTATED, pixels_across
from stormpsr_jax.psr import advice, analysis, detection_scores, headline, streams, wrong_parts
from stormpsr_jax.psr.accumulation import Settings
from stormpsr_jax.psr.calibration import Level, level
from stormpsr_jax.psr.evaluation import evaluate_recordings
from stormpsr_jax.psr.learned_beliefs import Weights
from stormpsr_jax.psr.selection import Choice, HeldOut, select
from stormpsr_jax.recordings.evaluation_set import LabelledPredictions
from stormpsr_jax.recordings.procedure import Procedure
from stormpsr_jax.report import report
from stormpsr_jax.report.figures import analysis_figures
from stormpsr_jax.serving import content, writing
from stormpsr_jax.serving.content import MODEL, Window
from stormpsr_jax.serving.frames import lowest_share
from stormpsr_jax.serving.functions import WEIGHTS, FlaxNetworks
from stormpsr_jax.stages import remaking
from stormpsr_jax.stages.data import FPS, LABEL_FILES, Data, Reads
from stormpsr_jax.stages.detector import MAX_DETECTIONS, part_pictures
from stormpsr_jax.stages.fuse import Fusion, FusionFit
from stormpsr_jax.stages.fuse import read as read_fusion
from stormpsr_jax.stages.predict import Prediction, read_split
from stormpsr_jax.stages.stage import Run, Stage
from stormpsr_jax.training.metrics import TensorBoard, read_metrics

# What a data folder's settings have if it was rendered from the CAD files of a product; the toy has
# no other appearance than its renders.
FROM_CAD = {"meshes"}


@dataclasses.dataclass(frozen=True)
class Evaluation(Stage):
    """Writes WORKDIR/metrics.json, detections.json, report.html and model."""

    name = "evaluate"
    results = (
        "metrics.json",
        "report.html",
        "detections.json",
        f"model/{MODEL}",  # not the card
        f"model/{WEIGHTS}",
    )

    evaluate: sections.Evaluate
    window: sections.Window
    predict: Prediction
    fuse: FusionFit | None

    def make(self, run: Run) -> dict[str, Any]:
        """Writes WORKDIR/metrics.json, detections.json, report.html and model."""
        if jax.process_index() != 0:
            return {}
        workdir = run.workdir
        val, test = (read_split(run, split, self.fuse is not None) for split in ("val", "test"))
        source = run.data.source("test")
        fusion = read_fusion(workdir / "fuse") if self.fuse else None
        held_out = {name: fusion.held_out(name) for name in val} if fusion else None
        will = None if fusion is None else fusion.weights
        chosen = self.chosen_by(run, val, self.evaluate.decoder, held_out, default=will)
        fitted = any(streams.find(name).fitted for name in chosen)
        used = fusion if fitted else None
        weights = None if used is None else used.weights
        settings = {stream: choice.settings for stream, choice in chosen.items()}
        result = self.scored(run, test, chosen, weights)
        for stream, choice in chosen.items():
            if choice.decision is not None:
                wrong = result["streams"][stream]["wrong"]
                if wrong is not None:
                    wrong |= {"risk": choice.decision.risk, "bound": choice.decision.bound}
                note = f"{choice.decision.note(stream)} {wrong_parts.in_words(wrong)}"
                result["risk_notes"].append(note.rstrip())
        result["warnings"] += self._too_small(run)
        if not self.evaluate.threshold:
            result |= self._with_paper_settings(run, val, test, settings)
        result["split"] = "test"
        default = _default(chosen, weights)
        result["default_stream"] = default or list(chosen)[-1]
        decision = chosen[result["default_stream"]].decision
        if decision is not None and decision.risk < 1:
            result["warnings"] += advice.untaught(weights, run.procedure.components)
        result["validation"] = {
            stream: {k: v for k, v in dataclasses.asdict(choice).items() if k != "scores"}
            for stream, choice in chosen.items()
        }
        recognises = result["default_stream"]
        own, how = held_out or {}, (_procedure(run), recognises, chosen[recognises].settings)
        result["validation"][recognises]["recordings"] = {
            name: advice.score_recording(*how, r, own.get(name)) for name, r in val.items()
        }
        if writes_model := self.predict.embed is None:
            figures_of = {
                stream: {"validation": its, "settings": its["settings"]}
                for stream, its in result["validation"].items()
            }
            result["recognises_by"] = advice.recognises_by(default, figures_of, len(val))
        detections = self.score_detections(run, test)
        report.write_report(
            workdir / "report.html",
            title=f"STORM-PSR on {run.procedure.name}",
            metrics=result,
            procedure=run.procedure,
            truth={name: r.truth for name, r in test.items()},
            visible={name: r.visibility for name, r in test.items() if r.visibility},
            thumbnails=lambda name, frame: source.jpegs(name, [frame])[0],
            curves={
                stage: read_metrics(path)
                for stage in LEARNING
                if (path := workdir / stage / "metrics.jsonl").exists()
            },
            figures=analysis_figures(result),
            notes=[
                *_notes(chosen, used),
                *advice.record_next(result),
            ],
            detections=detections,
        )
        if detections is None:
            (workdir / "detections.json").unlink(missing_ok=True)
        else:
            files.write_json(workdir / "detections.json", detections)
        if writes_model:
            share = self._product_share(run, val)
            right = level(r.scores for r in val.values() if r.scores is not None)
            self._write_model(run, chosen, result, used, share, right)
        else:
            files.remove(workdir / "model")  # of a run with an encoder
        by = {"code": remaking.package(), "environment": environment()}
        files.write_json(workdir / "metrics.json", result | by)
        figures = {
            f"test/{stream}/{key}": value
            for stream, scores in result["streams"].items()
            for key, value in headline.values(scores).items()
            if value is not None
        }
        board = TensorBoard(workdir / "evaluate")
        board.write(0, figures)
        board.close()
        return {}

    def _too_small(self, run: Run) -> list[str]:
        """Warns of a product that is too small in the pictures that networks see."""
        if "train" not in run.data.recordings():
            return []
        open_split = run.data.boxed_source if self.predict.detector else run.data.source
        source = open_split("train")
        boxes = np.concatenate([r.boxes for r in source.recordings.values()])
        across = pixels_across(boxes, source.image_size)
        if not across < ENOUGH:
            return []
        return [
            f"the product is {across:.0f} pixels across in the pictures that the networks see; "
            f"{ENOUGH} were enough on our rendered toy: larger pictures, or a crop, help"
        ]

    def chosen_by(
        self,
        run: Run,
        val: Mapping[str, LabelledPredictions],
        decoder: str,
        held_out: HeldOut | None = None,
        choose: str = "",
        default: Weights | None = None,
    ) -> dict[str, Choice]:
        """How each stream is decoded, chosen on the validation split; see `selection.select`.

        `choose`: "" is "paper" where the config has a threshold, or else "validation".
        """
        how, procedure = self.evaluate, _procedure(run)
        base = Settings(decoder=decoder, window=self.window.frames)
        choose = choose or ("paper" if how.threshold else "validation")
        return select(procedure, val, base, choose, held_out, how.threshold, how.risk, default)

    def scored(
        self,
        run: Run,
        test: Mapping[str, LabelledPredictions],
        chosen: Mapping[str, Choice],
        weights: Weights | None = None,
    ) -> dict[str, Any]:
        """The content of metrics.json of recordings that are decoded as it was chosen."""
        result = evaluate_recordings(
            _procedure(run),
            test,
            {stream: choice.settings for stream, choice in chosen.items()},
            weights=weights,
            calibrations={
                stream: choice.calibration
                for stream, choice in chosen.items()
                # What is one number for all tells nothing; recognition leaves it out too.
                if choice.calibration is not None and not choice.calibration.constant
            },
        )
        # Of whether files of other programs fit one another; here all come from the same pictures.
        result["warnings"] = [text for text in result["warnings"] if "--" not in text]
        return result

    def _with_paper_settings(
        self,
        run: Run,
        val: Mapping[str, LabelledPredictions],
        test: Mapping[str, LabelledPredictions],
        chosen: Mapping[str, Any],
    ) -> dict[str, Any]:
        """{"paper_settings": figures by stream by the papers' settings}, where they are others."""
        found = self.chosen_by(run, val, self.evaluate.decoder, choose="paper")
        fixed = {stream: choice.settings for stream, choice in found.items()}
        result = evaluate_recordings(_procedure(run), test, fixed)["streams"]
        figures = {
            stream: {
                **headline.values(result[stream]),
                "wrong": result[stream].get("wrong"),
                "settings": result[stream]["settings"],
            }
            for stream, settings in fixed.items()
            if settings != chosen[stream]
        }
        return {"paper_settings": figures} if figures else {}

    def score_detections(
        self, run: Run, recordings: Mapping[str, LabelledPredictions]
    ) -> dict[str, Any] | None:
        """The content of detections.json, by the boxes of the data folder; None without any.

        Frames that nobody has annotated, and those of uncatalogued states, do not count.
        """
        if self.predict.detector is None:
            return None
        source, pairs = run.data.detector_source("test"), {}
        for name, recording in recordings.items():
            labelled, numbers = source.recordings[name], source.numbers(name)
            boxed = labelled.classes > 0
            assert recording.detections is not None  # stage `predict` has left them
            pairs[name] = (
                recording.detections,
                detection_scores.TrueBoxes(
                    numbers[boxed],
                    labelled.classes[boxed].astype(np.int64),
                    labelled.boxes[boxed].astype(np.float64),
                    numbers[(labelled.classes == 0) | (labelled.classes == NOT_ANNOTATED)],
                ),
            )
        result = detection_scores.score(run.procedure, pairs)
        return result if result["boxes"] else None

    def _write_model(
        self,
        run: Run,
        chosen: Mapping[str, Choice],
        result: Mapping[str, Any],
        fusion: Fusion | None,
        product_share: float | None,
        right_level: Level | None,
    ) -> None:
        """Writes the model folder: the networks that predicted, with the settings just chosen."""
        weights = None if fusion is None else fusion.weights
        made_from = {"predict": _made_from(run.workdir / "predict")}
        stages = tuple(made_from["predict"]["stages"])
        made_from |= {stage: _made_from(run.workdir / stage) for stage in stages}
        source = run.data.source("test")
        trained = self.predict.networks(run) | run.data.locator(source)
        names, taught = run.procedure.components, self.predict.taught(run)
        never_wrong = [name for name, one in zip(names, taught or (), strict=False) if not one]
        model = content.Content(
            procedure=run.procedure,
            fps=source.fps,
            pictures=run.data.pictures(source, "detector" in trained),
            window=Window(self.window.frames, self.window.stride),
            networks=FlaxNetworks(trained, "float32"),
            max_detections=MAX_DETECTIONS,
            batch=run.batch,
            fusion=weights,
            product_share=product_share,
            right_level=right_level,
            default=_default(chosen, weights),
            part_pictures=part_pictures(run.data) if self.predict.detector else None,
            streams={
                stream: content.StreamRecord(
                    choice.settings,
                    {key: getattr(choice, key) for key in ("pos", "f1", "delay_s")}
                    | ({} if choice.seen_f1 is None else {"seen_f1": choice.seen_f1}),
                    headline.values(result["streams"][stream]),
                    choice.calibration,
                    None if choice.decision is None else choice.decision.risk,
                    choice.control,
                )
                for stream, choice in chosen.items()
            },
            origin={
                "config": run.fields,
                "made_from": made_from,
                "trained": trainings(run.workdir, stages),
                "data": self._data(run)
                | {"untested": bool(wrong_parts.untested(result))}
                | {"never_wrong": never_wrong},
                "fused": None if fusion is None else len(fusion.recordings),
                "code": remaking.package(),
            },
        )
        writing.write_model(run.workdir / "model", model)

    def _product_share(self, run: Run, val: Mapping[str, LabelledPredictions]) -> float | None:
        """The lowest share of pictures of a validation recording in which the product is seen.

        Renders of a product's CAD files do not show how it looks to a camera.
        """
        made_by = files.read_json(run.data.folder("val") / "settings.json").get("settings") or {}
        if FROM_CAD & made_by.keys() or self.predict.detector is None:
            return None
        known = run.data.detector_source("val").recordings
        return lowest_share(
            (r.detections, known[name].num_frames)
            for name, r in val.items()
            if r.detections is not None
        )

    def _data(self, run: Run) -> dict[str, Any]:
        """What the recordings are: whether renders, of which scene, and how many each split has."""
        settings = files.read_json(run.data.folder("test") / "settings.json")
        made_by = settings.get("settings") or {}
        scene = {key: made_by[key] for key in ("seed", "occlusion", "world") if key in made_by}
        rendered = "occlusion" in made_by  # data_prep.synthetic alone has this setting
        there = [split for split in ("train", "val", "test") if split in run.data.recordings()]
        counts = {split: len(run.data.source(split).recordings) for split in there}
        return {
            "rendered": rendered,
            "recordings": counts,
            **({"scene": scene} if rendered else {}),
        }

    def show(self, run: Run) -> None:
        """Prints the table of a finished run, and where to look further."""
        result = analysis.load_result(run.workdir / "metrics.json")
        print(analysis.overview(result))
        for note in [*analysis.notes(result), *advice.record_next(result)]:
            print(note)
        names = ["metrics.json", "report.html", "model"]
        if self.predict.embed:
            names.remove("model")
            print("No model folder is written: it would lack the encoder that made embed.files.")
        for name in names:
            print(run.workdir / name)

    def reads(self, run: Run) -> list[Reads]:
        """Labels, and the boxes that the detector is scored by."""
        found = [Reads((LABEL_FILES, FPS), ("val", "test")), Reads(("whole",))]
        if self.predict.detector:
            found.append(Reads(("boxes",), ("test",), Data.detector_source))
        return found

    def check(self, run: Run) -> list[str]:
        """Says whether what chooses and what is scored is predicted."""
        if missing := {"val", "test"} - set(self.predict.predict.splits):
            return [
                f"predict.splits lacks {', '.join(sorted(missing))}: stage 'evaluate' chooses "
                "thresholds on val and scores test"
            ]
        return []


def _procedure(run: Run) -> Procedure:
    """The product, at the rate of the test split."""
    return run.procedure.at(run.data.source("test").fps)


def _notes(chosen: Mapping[str, Choice], fusion: Fusion | None) -> list[str]:
    """Says where the settings come from; `fusion` is None where nothing fitted was chosen."""
    chose = [stream for stream, choice in chosen.items() if not choice.fixed]
    fixed = [stream for stream, choice in chosen.items() if choice.fixed]
    notes = []
    if chose:
        notes.append(
            f"Thresholds, confidence floor, gate and fusion weight of {', '.join(chose)} were "
            "chosen on the validation split by one rule."
        )
    if fixed:
        notes.append(f"The thresholds of {', '.join(fixed)} are fixed ones.")
    if fusion is not None and fusion.folds:
        notes.append(
            f"The weights of the learned fusion were fitted on {len(fusion.recordings)} recordings "
            "of the validation split, which is decoded with weights that have not seen a recording."
        )
    elif fusion is not None:
        notes.append(
            "The weights of the learned fusion are those that ship with the package: there are too "
            "few recordings to fit any, or fitted ones were no better on recordings that they had "
            "not seen."
        )
    return notes


def _default(chosen: Mapping[str, Choice], weights: Weights | None) -> str | None:
    """The stream that recognises unless another one is asked for; None: the last one.

    The learned fusion reports right, wrong and not sure. Of networks that were not trained to tell
    these apart it knows none, so that the method of the paper recognises.
    """
    tells = weights is None or weights.kind != "csv"
    return None if tells or streams.METHOD.name not in chosen else streams.METHOD.name


def environment() -> dict[str, Any]:
    """What a run computes with: versions, devices, and the commit; None is an installation."""
    device = jax.devices()[0]
    kind = f"{jax.device_count()} x {device.device_kind} ({device.platform})"
    return {**installed.versions(), "device": kind, "commit": installed.commit()}


def trainings(workdir: Path, stages: Iterable[str]) -> dict[str, list[dict[str, Any]]]:
    """By stage the trainings behind the weights of some, those of the stages before them too."""
    by_stage: dict[str, Any] = {}
    left = [*stages]
    while left:
        name = left.pop()
        record = results.found(workdir / name)
        if name not in by_stage and record is not None:
            by_stage[name] = msgspec.to_builtins(record.trained)
            left += record.made_from.get("stages", {})
    return {name: trained for name, trained in sorted(by_stage.items()) if trained}


def _made_from(folder: Path) -> dict[str, Any]:
    """What a finished stage was made from."""
    record = results.read(folder)
    assert record is not None  # the runner has left it
    return record.made_from
