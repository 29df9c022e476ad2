"""Stage `evaluate`: decode, fuse and score the test split; metrics.json, report.html, the model.

Thresholds, floor, gate and fusion weight are chosen on the validation split alone. Where the test
split has boxes, detections.json says how good the detector is there, frame by frame.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from stormpsr_jax.base import files
from stormpsr_jax.data.annotation import NOT_ANNOTATED
from stormpsr_jax.psr import advice, analysis, detection_scores, headline, streams, wrong_parts
from stormpsr_jax.psr.accumulation import Settings
from stormpsr_jax.psr.evaluation import evaluate_recordings
from stormpsr_jax.psr.learned_beliefs import Weights
from stormpsr_jax.psr.selection import Choice, HeldOut, select
from stormpsr_jax.recordings.evaluation_set import LabelledPredictions
from stormpsr_jax.recordings.procedure import Procedure
from stormpsr_jax.report import report
from stormpsr_jax.report.figures import analysis_figures
from stormpsr_jax.serving import content, writing
from stormpsr_jax.serving.functions import FlaxNetworks
from stormpsr_jax.serving.model_files import MODEL
from stormpsr_jax.serving.product_share import lowest_share
from stormpsr_jax.serving.weights_file import WEIGHTS
from stormpsr_jax.stages import (
    detector,
    fuse,
    networks,
    part_pictures,
    predict,
    provenance,
)
from stormpsr_jax.stages.context import Context
from stormpsr_jax.stages.stage import FPS, LABEL_FILES, Reads, Stage
from stormpsr_jax.training.metrics import TensorBoard, read_metrics

# What a data folder's settings have if it was rendered from the CAD files of a product, or one that
# was drawn at random; the toy has no other look than its renders.
FROM_CAD = {"meshes", "product_seed"}


def run(context: Context) -> dict:
    """Writes WORKDIR/metrics.json, detections.json, report.html and model."""
    if jax.process_index() != 0:
        return {}
    config, workdir = context.config, context.workdir
    val, test = (predict.read_split(context, split) for split in ("val", "test"))
    source = context.source("test")
    fusion = fuse.read(workdir / "fuse") if "fuse" in config.stages else None
    held_out = {name: fusion.held_out(name) for name in val} if fusion else None
    will = None if fusion is None else fusion.weights
    chosen = chosen_by(context, val, config.evaluate.decoder, held_out, default=will)
    fitted = any(streams.find(name).fitted for name in chosen)
    used = fusion if fitted else None
    weights = None if used is None else used.weights
    settings = {stream: choice.settings for stream, choice in chosen.items()}
    result = scored(context, test, chosen, weights)
    for stream, choice in chosen.items():
        if choice.decision is not None:
            wrong = result["streams"][stream]["wrong"]
            if wrong is not None:
                wrong |= {"risk": choice.decision.risk, "bound": choice.decision.bound}
            note = f"{choice.decision.note(stream)} {wrong_parts.in_words(wrong)}"
            result["risk_notes"].append(note.rstrip())
    if not config.evaluate.threshold:
        result |= _with_paper_settings(context, val, test, settings)
    result["split"] = "test"
    default = _default(chosen, weights)
    result["default_stream"] = default or list(chosen)[-1]
    result["validation"] = {
        stream: {k: v for k, v in dataclasses.asdict(choice).items() if k != "scores"}
        for stream, choice in chosen.items()
    }
    recognises = result["default_stream"]
    own, how = held_out or {}, (_procedure(context), recognises, chosen[recognises].settings)
    result["validation"][recognises]["recordings"] = {
        name: advice.score_recording(*how, r, own.get(name)) for name, r in val.items()
    }
    if writes_model := not config.embed.files:
        figures_of = {
            stream: {"validation": its, "settings": its["settings"]}
            for stream, its in result["validation"].items()
        }
        result["recognises_by"] = advice.recognises_by(default, figures_of, len(val))
    detections = score_detections(context, test)
    report.write_report(
        workdir / "report.html",
        title=f"STORM-PSR on {context.procedure.name}",
        metrics=result,
        procedure=context.procedure,
        truth={name: r.truth for name, r in test.items()},
        visible={name: r.visibility for name, r in test.items() if r.visibility},
        thumbnails=lambda name, frame: source.jpegs(name, [frame])[0],
        curves={
            stage: read_metrics(path)
            for stage in config.stages
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
        _write_model(context, chosen, result, used, _product_share(context, val))
    else:
        files.remove(workdir / "model")  # of a run with an encoder
    by = {"code": provenance.package(), "environment": provenance.environment()}
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


def chosen_by(
    context: Context,
    val: Mapping[str, LabelledPredictions],
    decoder: str,
    held_out: HeldOut | None = None,
    choose: str = "",
    default: Weights | None = None,
) -> dict[str, Choice]:
    """How each stream is decoded, chosen on the validation split; see `selection.select`.

    `choose`: "" is "paper" where the config has a threshold, or else "validation".
    """
    how, procedure = context.config.evaluate, _procedure(context)
    base = Settings(decoder=decoder, window=context.config.window.frames)
    choose = choose or ("paper" if how.threshold else "validation")
    return select(procedure, val, base, choose, held_out, how.threshold, how.risk, default)


def _procedure(context: Context) -> Procedure:
    """The product, at the rate of the test split."""
    return context.procedure.at(context.source("test").fps)


def scored(
    context: Context,
    test: Mapping[str, LabelledPredictions],
    chosen: Mapping[str, Choice],
    weights: Weights | None = None,
) -> dict[str, Any]:
    """The content of metrics.json of recordings that are decoded as it was chosen."""
    result = evaluate_recordings(
        _procedure(context),
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
    context: Context,
    val: Mapping[str, LabelledPredictions],
    test: Mapping[str, LabelledPredictions],
    chosen: Mapping[str, Any],
) -> dict[str, Any]:
    """{"paper_settings": figures by stream with the papers' settings}, where others were chosen."""
    found = chosen_by(context, val, context.config.evaluate.decoder, choose="paper")
    fixed = {stream: choice.settings for stream, choice in found.items()}
    result = evaluate_recordings(_procedure(context), test, fixed)["streams"]
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
    context: Context, recordings: Mapping[str, LabelledPredictions]
) -> dict[str, Any] | None:
    """The content of detections.json, by the boxes of the data folder; None without any.

    Frames that nobody has annotated, and those of uncatalogued states, do not count.
    """
    if "detector" not in context.config.stages:
        return None
    source, pairs = context.detector_source("test"), {}
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
    result = detection_scores.score(context.procedure, pairs)
    return result if result["boxes"] else None


def _notes(chosen: Mapping[str, Choice], fusion: fuse.Fusion | None) -> list[str]:
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


def _write_model(
    context: Context,
    chosen: Mapping[str, Choice],
    result: Mapping[str, Any],
    fusion: fuse.Fusion | None,
    product_share: float | None,
) -> None:
    """Writes the model folder: the networks that predicted, with the settings just chosen."""
    weights = None if fusion is None else fusion.weights
    made_from = {"predict": _made_from(context.workdir / "predict")}
    stages = tuple(made_from["predict"]["stages"])
    made_from |= {stage: _made_from(context.workdir / stage) for stage in stages}
    trained, source = networks.trained(context, stages), context.source("test")
    model = content.Content(
        procedure=context.procedure,
        fps=source.fps,
        pictures=networks.pictures(context, source, "detector" in trained),
        window=context.window,
        networks=FlaxNetworks(trained, "float32"),
        max_detections=networks.MAX_DETECTIONS,
        batch=context.config.predict.batch,
        fusion=weights,
        product_share=product_share,
        default=_default(chosen, weights),
        part_pictures=part_pictures.of_training(context),
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
            "config": provenance.flat_config(context.config),
            "made_from": made_from,
            "trained": provenance.trainings(context.workdir, stages),
            "data": _data(context) | {"untested": bool(wrong_parts.untested(result))},
            "fused": None if fusion is None else len(fusion.recordings),
            "code": provenance.package(),
        },
    )
    writing.write_model(context.workdir / "model", model)


def _product_share(context: Context, val: Mapping[str, LabelledPredictions]) -> float | None:
    """In which share of its pictures the detector sees the product in each validation recording.

    Renders of a product's CAD files do not show how it looks to a camera.
    """
    made_by = files.read_json(context.folder("val") / "settings.json").get("settings") or {}
    if FROM_CAD & made_by.keys() or not detector.STAGE.is_chosen(context):
        return None
    known = context.detector_source("val").recordings
    return lowest_share(
        (r.detections, known[name].num_frames)
        for name, r in val.items()
        if r.detections is not None
    )


def _default(chosen: Mapping[str, Choice], weights: Weights | None) -> str | None:
    """The stream that recognises unless another one is asked for; None: the last one.

    The learned fusion reports right, wrong and not sure. Of networks that were not trained to tell
    these apart it knows none, so that the method of the paper recognises.
    """
    tells = weights is None or weights.kind != "csv"
    return None if tells or streams.METHOD.name not in chosen else streams.METHOD.name


def _made_from(folder: Path) -> dict[str, Any]:
    """What a finished stage was made from."""
    record = provenance.read(folder)
    assert record is not None  # the runner has left it
    return record.made_from


def _data(context: Context) -> dict[str, Any]:
    """What the recordings are: whether renders, of which scene, and how many each split has."""
    settings = files.read_json(context.folder("test") / "settings.json")
    made_by = settings.get("settings") or {}
    scene = {key: made_by[key] for key in ("seed", "occlusion", "world") if key in made_by}
    rendered = "occlusion" in made_by  # data_prep.synthetic alone has this setting
    there = [split for split in ("train", "val", "test") if split in provenance.recordings(context)]
    counts = {split: len(context.source(split).recordings) for split in there}
    return {"rendered": rendered, "recordings": counts, **({"scene": scene} if rendered else {})}


def show(context: Context) -> None:
    """Prints the table of a finished run, and where to look further."""
    result = analysis.load_result(context.workdir / "metrics.json")
    print(analysis.overview(result))
    for note in [*analysis.notes(result), *advice.record_next(result)]:
        print(note)
    names = ["metrics.json", "report.html", "model"]
    if context.config.embed.files:
        names.remove("model")
        print("No model folder is written: it would lack the encoder that made embed.files.")
    for name in names:
        print(context.workdir / name)


def _reads(context: Context) -> list[Reads]:
    found = [Reads((LABEL_FILES, FPS), ("val", "test")), Reads(("whole",))]
    if detector.STAGE.is_chosen(context):
        found.append(Reads(("boxes",), ("test",), Context.detector_source))
    return found


def _after(context: Context) -> tuple[Stage, ...]:
    return (predict.STAGE, *([fuse.STAGE] if fuse.STAGE.is_chosen(context) else []))


def _check(context: Context) -> list[str]:
    missing = {"val", "test"} - set(context.config.predict.splits)
    if predict.STAGE.is_chosen(context) and missing:
        return [
            f"predict.splits lacks {', '.join(sorted(missing))}: stage 'evaluate' chooses "
            "thresholds on val and scores test"
        ]
    return []


STAGE = Stage(
    name="evaluate",
    run=run,
    fields=("evaluate", "window"),
    reads=_reads,
    after=_after,
    results=(
        "metrics.json",
        "report.html",
        "detections.json",
        f"model/{MODEL}",  # not the card
        f"model/{WEIGHTS}",
    ),
    check=_check,
    show=show,
)
