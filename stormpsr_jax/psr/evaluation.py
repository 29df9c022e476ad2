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
from stormpsr_jax.recordings.evaluation_set import FLAGS, LabelledPredictions, load_recordings
from stormpsr_jax.recordings.labels import steps_to_states
from stormpsr_jax.recordings.procedure import Procedure

PROTOCOLS = ("paper", "released")
_CONFIDENT = 0.5  # a detection that counts when states are compared with the labels
# By which share of frames other classes have to fit better, and the share that has to fit then.
_BETTER, _FIT = 0.1, 0.5
# Golden runs and the MECCANO and IndustReal recordings have ends at 0.5 to 1.3 of the last label.
_FAR_BEHIND, _FAR_BEFORE = 1.8, 0.4
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
        ValueError: it is not in 0…1, or asked for in another protocol than `paper`.
    """
    if asked is None:
        fitted = [stream.name for stream in streams.STREAMS if stream.fitted]
        return dict.fromkeys(fitted if protocol == "paper" else (), RISK)
    if not 0 <= asked <= 1:
        raise ValueError(f"risk={asked} is not in 0…1")
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
    of_sums = [stream for stream in streams.STREAMS if stream.settings is Settings]
    if isinstance(settings, Settings):
        settings = {stream.name: settings for stream in of_sums}
    others = {s.name: s.defaults(weights) for s in streams.STREAMS if s not in of_sums}
    settings = {**others, **settings}
    fps = procedure.fps
    decoders = {s.decoder for s in settings.values() if isinstance(s, Settings)}
    if len(decoders) != 1:
        raise ValueError(f"one decoder for all streams is needed, not {', '.join(decoders)}")
    decoder = decoders.pop()
    scored = [
        stream
        for stream in streams.available(recordings, decoder)
        if (weights is not None or not stream.fitted) and (protocol == "paper" or stream in of_sums)
    ]
    if not scored:
        raise ValueError("the recordings have no predictions of a stream, detections or windows")
    if calibrations and protocol == "released":
        raise ValueError("confidences are calibrated in protocol 'paper' alone")
    summarise = released.summarise if protocol == "released" else metrics.summarise
    in_sets = any(step_sets.are_shared(r.truth) for r in recordings.values())
    results: dict[str, dict[str, Any]] = {}
    notes: list[str] = []
    for stream in scored:
        calibrated = (calibrations or {}).get(stream.name)
        of_stream = settings[stream.name]
        rows: dict[str, dict[str, Any]] = {}
        asked = (risks or {}).get(stream.name) if protocol == "paper" else None
        decisions: dict[str, risk.Decision] = {}
        if asked is not None:
            decisions = risk.decide_each(procedure, recordings, stream, of_stream, asked, weights)
        decision = decisions.get("")
        judged: list[calibration.Judgement] = []
        for name, recording in recordings.items():
            try:
                if protocol == "released":
                    assert isinstance(of_stream, Settings)  # as those of all its streams are
                    entry_of = released.evaluate_recording(
                        procedure, recording, stream.name, of_stream, fps
                    )
                else:
                    with_bar = decisions[name].settings if decisions else of_stream
                    events = stream.decode(
                        procedure, recording, with_bar, weights, calibration=calibrated
                    )
                    entry_of = _score_paper(recording, events, fps, stream.fitted, in_sets)
                    judged += calibration.judge(reports(events), recording)
            except ValueError as error:
                raise ValueError(f"recording {name!r}: {error}") from error
            truth = [list(step) for step in sorted(recording.truth)]
            steps = [event[:2] for event in entry_of["events"]]
            unsure = [event[:2] for event in entry_of.get("unsure", ())]
            of = recording.frames, recording.states, steps, fps, unsure
            rows[name] = {
                **entry_of,
                "variant": recording.variant.name,
                "truth": truth,
                "with_errors": recording.with_errors,
                "wrong": wrong_parts.score_recording(*of),
            }
            if recording.visibility is not None:
                rows[name]["visible"] = _visible(recording)
        entry = results[stream.name] = summarise(rows)
        entry["wrong"] = wrong_parts.summarise(row["wrong"] for row in rows.values())
        if protocol == "paper" and stream.fitted:
            seen = [row["seen"] for row in rows.values()]
            entry["seen"] = headline.over_recordings(seen, statistics.fmean)
            entry["seen"]["wrong"] = wrong_parts.summarise(row["wrong"] for row in seen)
        if protocol == "paper":
            entry["reliability"] = calibration.reliability(judged)
        entry["settings"] = dataclasses.asdict(of_stream if decision is None else decision.settings)
        entry["recordings"] = rows
        if decision is not None:
            if entry["wrong"] is not None:
                entry["wrong"] |= {"risk": decision.risk, "bound": decision.bound}
            said = decision.note(stream.name), wrong_parts.in_words(entry["wrong"])
            notes.append(" ".join(said).rstrip())
    checks, warnings = _check_input(procedure, recordings, results)
    return {
        "protocol": protocol,
        "decoder": decoder,
        "procedure": procedure.name,
        "components": list(procedure.components),
        "fps": fps,
        "streams": results,
        "risk_notes": notes,
        "checks": checks,
        "warnings": warnings,
    }


def _visible(recording: LabelledPredictions) -> list[float | None]:
    """The visible fraction at each true step, None if unknown."""
    assert recording.visibility is not None
    frames, fractions = (column.tolist() for column in recording.visibility)
    known = dict(zip(frames, fractions, strict=True))
    shares = [known.get(frame, math.nan) for frame, _ in sorted(recording.truth)]
    return [None if math.isnan(share) else share for share in shares]


def _scores(r: LabelledPredictions, steps: Sequence[Step], fps: float, in_sets: bool) -> Scores:
    further = {"pos_sets": step_sets.order_similarity(r.truth, steps)} if in_sets else {}
    return {**metrics.score_recording(r.truth, steps, fps, r.visible_from), **further}


def _score_paper(
    r: LabelledPredictions, events: Sequence[Event], fps: float, fitted: bool, in_sets: bool
) -> Scores:
    right = reports(events)
    steps = metrics.scored_steps(right, r.with_errors)
    result: Scores = {}
    if fitted:  # what was seen: without a bar for installations that is what was reported
        with_bar = any(event.kind != "report" for event in events)
        seen = [event for event in events if event.kind == "seen"] if with_bar else right
        of_seen = _scores(r, metrics.scored_steps(seen, r.with_errors), fps, in_sets)
        wrong = wrong_parts.score_recording(r.frames, r.states, [e[:2] for e in seen], fps)
        result["seen"] = {**of_seen, "events": [list(e[:3]) for e in seen], "wrong": wrong}
    return {
        **result,
        **_scores(r, steps, fps, in_sets),
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
    errors, warnings = list[str](), list[str]()
    for stream in map(streams.find, results):
        # Only files of other programs may count otherwise, and events of several tell of none.
        if len(stream.needs) == 1 and not stream.fitted:
            rows = results[stream.name]["recordings"]
            steps_of = {n: sorted(event[:2] for event in row["events"]) for n, row in rows.items()}
            certain, likely = _check_rates(
                recordings, stream.name, stream.needs[0], steps_of, procedure.fps
            )
            errors += certain
            warnings += likely
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


def _check_rates(
    recordings: Mapping[str, LabelledPredictions],
    stream: str,
    kind: str,
    events: Mapping[str, Sequence[Step]],
    fps: float,
) -> tuple[list[str], list[str]]:
    """Looks for another frame rate in one stream.

    There are two signs: the last predicted frame of every recording lies far from its last label,
    and a straight line through the frames of the true and of the recognised steps fits well, and
    its slope is not near 1 (a slow recogniser moves the line and leaves its slope). One of them is
    a warning, both are certain; a slope near 1 shows that the rates are the same.

    `kind` is that of the predictions that it is decoded from, and `events` are (frame, step id)
    that it recognised, by recording. Returns errors, which are certain, and warnings; both say what
    to do.
    """
    flag, ratios = FLAGS[kind], list[float]()  # of last predicted over last labelled frames
    for r in recordings.values():
        frames = r.of_kind(kind).frames
        last_label = max((frame for frame, _ in r.truth), default=0)
        if len(frames) and last_label:
            ratios.append(int(frames[-1]) / last_label)
    slope = _slope(recordings, events)
    if slope is not None and abs(math.log(slope)) <= math.log(_MAX_SLOPE):
        return [], []
    behind, before = min(ratios, default=1) > _FAR_BEHIND, max(ratios, default=1) < _FAR_BEFORE
    signs = []
    if behind or before:
        low, high = f"{min(ratios):.2g}", f"{max(ratios):.2g}"
        times = low if low == high else f"{low} to {high}"
        signs.append(f"the last frames of --{flag} are {times} times those of the labels")
    if slope is not None:
        signs.append(
            f"the frames of the steps that stream {stream} recognises grow {slope:.3g} times as "
            "fast as those of the labels"
        )
    if not signs:
        return [], []
    ratio = slope if slope is not None else float(np.median(ratios))
    line = (
        f"{', and '.join(signs)}; do the frames of --{flag} count at another rate than those of "
        f"--labels, such as {ratio * fps:.3g} a second instead of {fps:g}? "
        "python -m stormpsr_jax.psr.convert frames --fps=FROM:TO converts them. Or do labels with "
        f"a column frame count at another, such as {fps / ratio:.3g}? Give it as --labels_fps"
    )
    certain = slope is not None and (
        (behind and slope > _CERTAIN_SLOPE) or (before and slope < 1 / _CERTAIN_SLOPE)
    )
    return ([line], []) if certain else ([], [line])


def _slope(
    recordings: Mapping[str, LabelledPredictions], events: Mapping[str, Sequence[Step]]
) -> float | None:
    """Slope of the line through the true and the recognised frames, if enough, and it fits."""
    points = []
    for name, r in recordings.items():
        # Of a step that repeats the first counts.
        truth, recognised = (
            {step: frame for frame, step in sorted(steps, reverse=True)}
            for steps in (r.truth, events[name])
        )
        points += [(frame, recognised[step]) for step, frame in truth.items() if step in recognised]
    x, y = np.array(points, np.float64).reshape(-1, 2).T
    if len(x) < _MIN_STEPS or not np.ptp(x) or not np.ptp(y):
        return None
    slope = float(np.polyfit(x, y, 1)[0])
    return slope if slope > 0 and np.corrcoef(x, y)[0, 1] ** 2 >= _MIN_FIT else None
