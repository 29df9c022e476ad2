"""Scoring of recordings: labels and predictions in, the content of metrics.json out."""

import dataclasses
import math
import os
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from stormpsr_jax.base.errors import raise_all
from stormpsr_jax.psr import (
    calibration,
    headline,
    metrics,
    released,
    risk,
    step_sets,
    streams,
    wrong_parts,
)
from stormpsr_jax.psr.accumulation import Settings
from stormpsr_jax.psr.events import Event, reports
from stormpsr_jax.psr.learned_beliefs import Weights
from stormpsr_jax.psr.metrics import Step
from stormpsr_jax.psr.risk import RISK
from stormpsr_jax.psr.stream import Stream
from stormpsr_jax.recordings.evaluation_set import FLAGS, LabelledPredictions, load_recordings
from stormpsr_jax.recordings.labels import steps_to_states
from stormpsr_jax.recordings.procedure import Procedure

PROTOCOLS = ("paper", "released")
_CONFIDENT = 0.5  # a detection that counts when states are compared with the labels
# By which share of frames other classes have to fit better, and the share that has to fit then.
_BETTER, _FIT = 0.1, 0.5
# Lines through fewer steps, or that fit worse, say nothing. Runs of the golden data on which a line
# fits that well have slopes of 0.98 to 1.01.
_MIN_STEPS, _MIN_FIT, _MAX_SLOPE, _CERTAIN_SLOPE = 6, 0.99, 1.1, 1.5
Scores = dict[str, Any]


def evaluate(
    procedure: Procedure,
    labels_dir: str | os.PathLike,
    asd_dir: str | os.PathLike | None = None,
    temporal_dir: str | os.PathLike | None = None,
    *,
    settings: Settings | Mapping[str, Any],
    scores_dir: str | os.PathLike | None = None,
    weights: Weights | None = None,
    protocol: str = "paper",
    variant: str | None = None,
    visibility_dir: str | os.PathLike | None = None,
    with_errors: bool = False,
    risk: float | None = None,
) -> dict[str, Any]:
    """Reads a folder of labels and one or two of predictions and scores them.

    Args:
        labels_dir, asd_dir, temporal_dir, scores_dir, visibility_dir, with_errors: see
            `load_recordings`.
        settings: of all streams that sum up evidence, or by stream.
        weights: of the learned fusion; without them, or without scores, it is left out.
        protocol: "paper" or "released".
        variant: of all recordings; None finds each one's by its name.
        risk: how much of the incorrect installations may be accepted, of all streams; None is
            `risk.RISK` of the learned fusion, and no matter to the others (protocol `paper`).

    Returns:
        The content of metrics.json; "warnings" say where the input may not be what it seems,
        "checks" what is known of how predictions fit the labels.

    Raises:
        ValueError: input that cannot be read or does not fit, every error with file, line and
            field; predictions that certainly count frames at another rate than the labels.
    """
    recordings = load_recordings(
        procedure,
        labels_dir,
        asd_dir,
        temporal_dir,
        scores_dir=scores_dir,
        visibility_dir=visibility_dir,
        variant=variant,
        with_errors=with_errors,
    )
    risks = risks_of(risk, protocol)
    return evaluate_recordings(
        procedure, recordings, settings, weights=weights, protocol=protocol, risks=risks
    )


def risks_of(asked: float | None, protocol: str) -> dict[str, float]:
    """Returns the risk by stream, of those that one is asked for or that have one by themselves.

    Raises:
        ValueError: it is asked for in another protocol than `paper`.
    """
    if asked is None:
        fitted = [stream.name for stream in streams.STREAMS if stream.fitted]
        return dict.fromkeys(fitted if protocol == "paper" else (), RISK)
    if protocol != "paper":
        raise ValueError(f"risk={asked} needs protocol 'paper'")
    return dict.fromkeys(streams.names(), asked)


def evaluate_recordings(
    procedure: Procedure,
    recordings: Mapping[str, LabelledPredictions],
    settings: Settings | Mapping[str, Any],
    *,
    weights: Weights | None = None,
    protocol: str = "paper",
    risks: Mapping[str, float] | None = None,
    calibrations: Mapping[str, calibration.Calibration] | None = None,
) -> dict[str, Any]:
    """Scores recordings that were read already; see `evaluate`.

    `risks`, by stream, are how much of the incorrect installations may be accepted (protocol
    `paper`): each recording is decoded with the bar that the others choose (`risk.decide_each`).
    Other streams go by their settings alone. `weights` are those of fitted streams, of which the
    learned fusion is one; without them these are left out, as they are in protocol `released`.
    `calibrations`, by stream, are of the confidences (protocol `paper`).
    """
    if protocol not in PROTOCOLS:
        raise ValueError(f"protocol={protocol} is not one of {', '.join(PROTOCOLS)}")
    if calibrations and protocol == "released":
        raise ValueError("confidences are calibrated in protocol 'paper' alone")
    of_sums = [stream for stream in streams.STREAMS if stream.settings is Settings]
    if isinstance(settings, Settings):
        settings = {stream.name: settings for stream in of_sums}
    others = {s.name: s.defaults(weights) for s in streams.STREAMS if s not in of_sums}
    settings = {**others, **settings}
    decoders = {s.decoder for s in settings.values() if isinstance(s, Settings)}
    if len(decoders) != 1:
        raise ValueError(f"one decoder for all streams is needed, not {', '.join(decoders)}")
    decoder = decoders.pop()
    results: dict[str, dict[str, Any]] = {}
    notes: list[str] = []
    for stream in streams.available(recordings, decoder):
        of_paper = stream in of_sums
        if (stream.fitted and weights is None) or not (of_paper or protocol == "paper"):
            continue
        decision, of_stream = None, settings[stream.name]
        by_recording = dict.fromkeys(recordings, of_stream)
        asked = (risks or {}).get(stream.name)
        if protocol == "paper" and asked is not None:
            decisions = risk.decide_each(procedure, recordings, stream, of_stream, asked, weights)
            decision, of_stream = decisions[""], decisions[""].settings
            by_recording = {name: decisions[name].settings for name in recordings}
        calibrated = (calibrations or {}).get(stream.name)
        entry = results[stream.name] = _score_stream(
            procedure, recordings, stream, by_recording, protocol, weights, calibrated
        )
        entry["settings"] = dataclasses.asdict(of_stream)
        if decision is not None:
            if entry["wrong"] is not None:
                entry["wrong"] |= {"risk": decision.risk, "bound": decision.bound}
            note = f"{decision.note(stream.name)} {wrong_parts.in_words(entry['wrong'])}"
            notes.append(note.rstrip())
    if not results:
        raise ValueError("the recordings have no predictions of a stream, detections or windows")
    checks, warnings = _check_input(procedure, recordings, results)
    return {
        "protocol": protocol,
        "decoder": decoder,
        "procedure": procedure.name,
        "components": list(procedure.components),
        "fps": procedure.fps,
        "streams": results,
        "risk_notes": notes,
        "checks": checks,
        "warnings": warnings,
    }


def _score_stream(
    procedure: Procedure,
    recordings: Mapping[str, LabelledPredictions],
    stream: Stream,
    settings: Mapping[str, Any],
    protocol: str,
    weights: Weights | None,
    calibrated: calibration.Calibration | None,
) -> Scores:
    """The entry of a stream in metrics.json; `settings` are by recording."""
    rows: dict[str, Scores] = {}
    judged: list[calibration.Judgement] = []
    in_sets = any(len(dict(r.truth)) < len(r.truth) for r in recordings.values())
    for name, r in recordings.items():
        how = settings[name]
        try:
            if protocol == "released":
                row = released.evaluate_recording(procedure, r, stream.name, how, procedure.fps)
            else:
                events = stream.decode(procedure, r, how, weights, calibration=calibrated)
                row = _score_paper(r, events, procedure.fps, stream.fitted, in_sets)
                judged += calibration.judge(reports(events), r)
        except ValueError as error:
            raise ValueError(f"recording {name!r}: {error}") from error
        steps, unsure = ([event[:2] for event in row.get(key, ())] for key in ("events", "unsure"))
        rows[name] = row | {
            "variant": r.variant.name,
            "truth": [list(step) for step in sorted(r.truth)],
            "with_errors": r.with_errors,
            "wrong": wrong_parts.score_recording(r.frames, r.states, steps, procedure.fps, unsure),
        }
        if r.visibility is not None:
            shares = dict(zip(*(column.tolist() for column in r.visibility), strict=True))
            at_steps = (shares.get(frame, math.nan) for frame, _ in sorted(r.truth))
            rows[name]["visible"] = [None if math.isnan(share) else share for share in at_steps]
    entry = (metrics if protocol == "paper" else released).summarise(rows)
    entry["wrong"] = wrong_parts.summarise(row["wrong"] for row in rows.values())
    if protocol == "paper":
        entry["reliability"] = calibration.reliability(judged)
        if stream.fitted:
            seen = [row["seen"] for row in rows.values()]
            entry["seen"] = headline.over_recordings(seen, statistics.fmean)
            entry["seen"]["wrong"] = wrong_parts.summarise(row["wrong"] for row in seen)
    return entry | {"recordings": rows}


def _score_paper(
    r: LabelledPredictions, events: Sequence[Event], fps: float, fitted: bool, in_sets: bool
) -> Scores:
    def scores(steps: Sequence[Step]) -> Scores:
        further = {"pos_sets": step_sets.order_similarity(r.truth, steps)} if in_sets else {}
        return {**metrics.score_recording(r.truth, steps, fps, r.visible_from), **further}

    right = reports(events)
    steps = metrics.scored_steps(right, r.with_errors)
    result: Scores = {}
    if fitted:  # what was seen: without a bar for installations that is what was reported
        with_bar = any(event.kind != "report" for event in events)
        seen = [event for event in events if event.kind == "seen"] if with_bar else right
        wrong = wrong_parts.score_recording(r.frames, r.states, [e[:2] for e in seen], fps)
        result["seen"] = {
            **scores(metrics.scored_steps(seen, r.with_errors)),
            "events": [list(e[:3]) for e in seen],
            "wrong": wrong,
        }
    return {
        **result,
        **scores(steps),
        "perception_fp": None,
        "perception_fn": None,
        "contains_errors": released.contains_errors(r.truth, r.states, r.variant),
        "events": [list(e[:3]) for e in right],
        "unsure": [[*e[:3], e.evidence["since"]] for e in events if e.kind == "unsure"],
        "outcomes": dataclasses.asdict(metrics.match_steps(r.truth, steps)),
    }


# --- Whether labels and predictions agree ---------------------------------------------------------


def _check_input(
    procedure: Procedure,
    recordings: Mapping[str, LabelledPredictions],
    results: Mapping[str, Mapping[str, Any]],
) -> tuple[list[str], list[str]]:
    """Facts and warnings on whether labels, procedure and predictions agree.

    ValueError: predictions that certainly count frames at another rate than the labels.
    """
    errors, warnings, fps = list[str](), list[str](), procedure.fps
    for stream in map(streams.find, results):
        # Only files of other programs may count otherwise, and events of several tell of none.
        if len(stream.needs) > 1 or stream.fitted:
            continue
        slope = _slope(recordings, results[stream.name]["recordings"])
        if slope is None or abs(math.log(slope)) <= math.log(_MAX_SLOPE):
            continue
        flag = FLAGS[stream.needs[0]]
        certain = abs(math.log(slope)) > math.log(_CERTAIN_SLOPE)
        (errors if certain else warnings).append(
            f"the frames of the steps that stream {stream.name} recognises grow {slope:.3g} times "
            f"as fast as those of the labels; do the frames of --{flag} count at another rate than "
            f"those of --labels, such as {slope * fps:.3g} a second instead of {fps:g}? "
            "python -m stormpsr_jax.psr.convert frames --fps=FROM:TO converts them. Or do labels "
            f"with a column frame count at another, such as {fps / slope:.3g}? Give it as "
            "--labels_fps"
        )
    raise_all(errors)
    checks, better = _check_classes(procedure, recordings)
    warnings = warnings or better
    odd = [
        name
        for name, r in recordings.items()
        if len(r.states) and tuple(r.states[0].tolist()) != r.variant.initial_state
    ]
    if odd:  # decoders begin as the variants do
        warnings = [
            *warnings,
            f"the labels of {', '.join(odd)} begin in another state than their variant: what is "
            "installed from the start is recognised as steps that are not true",
        ]
    return checks, warnings


def _check_classes(
    procedure: Procedure, recordings: Mapping[str, LabelledPredictions]
) -> tuple[list[str], list[str]]:
    """Compares the states of detections with the labelled ones.

    Returns how many agree, a sentence, and a warning where they clearly fit better as classes that
    count from 0; both empty without states of which the detector is sure.
    """
    num = fitting = from_0 = shown = there = sure_frames = 0
    for r in recordings.values():
        if r.detections is None:
            continue
        top = r.detections.tops()
        frames, classes = r.detections.frames[top], r.detections.classes[top]
        # What nobody sees has a state too, so background says nothing.
        sure = (classes > 0) & (classes < procedure.error_class)
        sure &= r.detections.confidences[top] >= _CONFIDENT
        frames, classes = frames[sure], classes[sure]
        starts, states = r.frames, r.states
        if not len(starts):  # labels that are steps alone
            starts, states = steps_to_states(r.truth, r.variant.initial_state, -1)
        of_rows = procedure.state_classes(states) % procedure.error_class  # 0: not catalogued
        rows = np.maximum(np.searchsorted(starts, frames, "right") - 1, 0)
        labelled = of_rows[rows]
        sure_frames += len(frames)
        num += int(np.count_nonzero(labelled))
        fitting += int(np.count_nonzero(classes == labelled))
        from_0 += int(np.count_nonzero(classes + 1 == labelled))
        steps = 1 + np.flatnonzero(of_rows[1:])
        there += len(steps)
        shown += len(np.intersect1d(steps, rows[classes == labelled]))
    if not sure_frames:
        return [], []
    fact = (
        f"--asd: {fitting:,} of {num:,} frames with a state agree with the labels; "
        f"of {there:,} states after labelled steps it shows {shown:,}"
    )
    if from_0 - fitting <= _BETTER * num or from_0 <= _FIT * num:
        return [fact], []
    return [fact], [
        f"{fitting:,} of {num:,} frames in which --asd shows a state agree with the labels, and "
        f"{from_0:,} would if its classes were one higher: class 0 is background, class 1 the "
        "first state of the procedure (psr.convert coco and yolo have --classes)"
    ]


def _slope(
    recordings: Mapping[str, LabelledPredictions], rows: Mapping[str, Scores]
) -> float | None:
    """Slope of the line through the true and the recognised frames, if enough, and it fits.

    A slow recogniser moves the line and leaves its slope.
    """
    points = []
    for name, r in recordings.items():
        # Of a step that repeats the first counts.
        truth, recognised = (
            {step: frame for frame, step in sorted(steps, reverse=True)}
            for steps in (r.truth, [event[:2] for event in rows[name]["events"]])
        )
        points += [(frame, recognised[step]) for step, frame in truth.items() if step in recognised]
    x, y = np.array(points, np.float64).reshape(-1, 2).T
    if len(x) < _MIN_STEPS or not np.ptp(x) or not np.ptp(y):
        return None
    slope = float(np.polyfit(x, y, 1)[0])
    return slope if slope > 0 and np.corrcoef(x, y)[0, 1] ** 2 >= _MIN_FIT else None
