"""Thresholds, floor, gate and fusion weight, chosen on the validation split by one rule.

A setting's score on a recording is

    F1 + POS − DELAY_PRICE · delay / window − WRONG_PRICE · accepted

with delay and window in seconds and the number of wrong parts that were reported as installed while
they sat wrong (`wrong_parts`), which is worse than any other false step. F1 alone picks late, sure
thresholds; with POS and the delay in it, no stream is chosen by other wishes than another. A few
recordings tell many settings apart by chance alone. So the one with the best mean is not taken, but
the fastest that is hardly worse: of those whose mean is within WITHIN standard errors of the best,
taken over the recordings' differences to it, the one with the least mean delay (the rule of Breiman
et al., Classification and Regression Trees, 1984, in pairs; theirs is a whole standard error,
docs/psr.md says what that costs). Whatever is worse than the best somewhere and better nowhere is a
whole standard error off or more: one recording that goes wrong is never taken for chance.

Floor, gate and weight are chosen without removals, then the thresholds of installations and of
removals together.

With the settings goes what their confidences mean, learnt from the events that they find on the
same recordings (`calibration.fit`; of the learned fusion `calibration.fit_if_better`).

Of the learned fusion the threshold of installations is chosen, from a few: that of removals is
unstable on a dozen recordings, and wrong parts are rarer still. A dozen recordings often show none
that lower thresholds than these accept, as the next dozen does. As these few are all sound, the
lower one is left only for what is better by nearly a whole standard error. The beliefs of a
recording have to be those of weights that have not seen it.

Fewer than MIN_RECORDINGS recordings give no standard error to go by, and without a true positive
there is no delay: then the settings are the fixed ones, which the paper uses (`fixed`).
"""

import dataclasses
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from stormpsr_jax.psr.files.recordings import LabelledPredictions
from stormpsr_jax.psr.procedure import Procedure
from stormpsr_jax.psr.scoring import metrics, wrong_parts
from stormpsr_jax.psr.streams import batch, calibration, decoding, learned, streams
from stormpsr_jax.psr.streams.calibration import Calibration
from stormpsr_jax.psr.streams.learned_weights import Weights

CHOOSE = ("validation", "paper")
MIN_RECORDINGS = 4
WITHIN = 0.25  # standard errors
WITHIN_OF_LEARNED = 0.9
# A delay of a whole window costs as much as this much of F1 or POS.
DELAY_PRICE = 0.1
WRONG_PRICE = 0.3  # of a wrong part that is accepted
THRESHOLDS = (0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0)
# Removals are rarer than installations, so a threshold below that of these is not looked at.
REMOVALS = (1.5, 3.0, 6.0, 12.0, 24.0)
CONFIDENCES = (0.3, 0.5, 0.7, 0.8, 0.9)
GATES = (0.5, 0.8)
WEIGHTS = (0.15, 0.3, 0.5, 0.7)
INSTALL = (3.0, 3.5)  # of the learned fusion, in logits


@dataclasses.dataclass(frozen=True)
class Choice:
    """A setting and its figures on the recordings it was chosen on.

    Attributes:
        settings: of the decoder.
        pos, f1, delay_s: means over the recordings where they are defined.
        scores: by the rule, of the recordings with steps, in order; where nothing was found there
            is no delay to pay for.
        fixed: whether the settings are the fixed ones.
        calibration: of confidences; None before it is fitted.
        reliability: of the confidences so calibrated (`calibration.reliability`), where something
            was learnt those of each recording by what was learnt from the others; None with fewer
            than two recordings.
    """

    settings: decoding.Settings | learned.Settings
    pos: float | None
    f1: float | None
    delay_s: float | None
    scores: tuple[float, ...]
    fixed: bool = False
    calibration: Calibration | None = None
    reliability: dict[str, Any] | None = None


def select(
    procedure: Procedure,
    recordings: Mapping[str, LabelledPredictions],
    base: decoding.Settings,
    fps: float | None = None,
    choose: str = "validation",
    weights: Mapping[str, Weights] | None = None,
    threshold: float = 0.0,
) -> dict[str, Choice]:
    """Chooses the settings of every stream that the recordings have.

    Args:
        procedure: the product.
        recordings: of the validation split.
        base: decoder, decay and window, and what is not on the grid of a stream.
        fps: frames per second, None for the procedure's.
        choose: "validation", the rule above, or "paper", the fixed settings.
        weights: of the learned fusion, by recording; without them it is left out.
        threshold: of the fixed settings; 0 is the paper's.

    Returns:
        By stream. The fused one has the floor chosen for `asd` and the gate chosen for `temporal`.
    """
    fps = procedure.fps if fps is None else fps
    num = sum(bool(r.truth) for r in recordings.values())
    by_rule = choose == "validation" and num >= MIN_RECORDINGS
    chosen: dict[str, Choice] = {}
    for stream in streams.available(recordings, base.decoder):
        if stream == learned.STREAM:
            if weights is not None:
                best = _learned(procedure, recordings, weights, base.window, by_rule, fps)
                chosen[stream] = calibrated(procedure, recordings, stream, best, fps, weights)
            continue
        best = None
        if by_rule:
            known = {name: choice.settings for name, choice in chosen.items()}
            candidates = grid(stream, base, known)
            best = pick(rate(procedure, recordings, stream, candidates, fps))
            if best is not None and base.decoder != "naive":
                candidates = with_removals(best.settings)
                best = pick(rate(procedure, recordings, stream, candidates, fps))
        if best is None:
            choices = rate(procedure, recordings, stream, fixed(procedure, base, threshold), fps)
            best = next((c for c in choices if c.delay_s is not None), choices[0])
            best = dataclasses.replace(best, fixed=True)
        chosen[stream] = calibrated(procedure, recordings, stream, best, fps)
    return chosen


def calibrated(
    procedure: Procedure,
    recordings: Mapping[str, LabelledPredictions],
    stream: str,
    choice: Choice,
    fps: float | None = None,
    weights: Mapping[str, Weights] | None = None,
) -> Choice:
    """Returns a choice with the calibration of its events; `weights` are of the learned fusion."""
    judged = []
    for name, r in recordings.items():
        own = None if weights is None else weights[name]
        events = streams.decode(procedure, r, stream, choice.settings, own, fps=fps)
        judged.append(calibration.judge(events, r))
    every = list(itertools.chain.from_iterable(judged))
    if weights is None:
        fitted = calibration.fit(every)
    elif len(judged) < MIN_RECORDINGS:
        fitted = calibration.STATED
    else:
        fitted = calibration.fit_if_better(judged)
    reliability = None
    if len(judged) > 1:
        held_out = calibration.cross_fitted(judged) if fitted is not calibration.STATED else every
        reliability = calibration.reliability(held_out)
    return dataclasses.replace(choice, calibration=fitted, reliability=reliability)


def fixed(
    procedure: Procedure, base: decoding.Settings, threshold: float = 0.0
) -> list[decoding.Settings]:
    """Returns the settings with the paper's thresholds; the first that finds a step counts.

    With a `threshold` other than 0 it is that one: the released scripts have 8 where the paper has
    6. The rest is that of `base`; the defaults of `Settings` are the paper's.
    """
    # Of another procedure the higher, unless that is out of reach: with rows on every fourth frame
    # alone, no sum exceeds 1.8 at the paper's decay.
    of_paper = {"industreal": (6.0,), "meccano": (1.0,)}.get(procedure.name, (6.0, 1.0))
    thresholds = (threshold,) if threshold else of_paper
    return [dataclasses.replace(base, threshold=t, removal=None) for t in thresholds]


def grid(
    stream: str, base: decoding.Settings, chosen: Mapping[str, decoding.Settings]
) -> list[decoding.Settings]:
    """Returns the settings that a stream is chosen from; only what matters to it varies.

    Args:
        stream: "asd", "temporal" or "storm".
        base: all that does not vary.
        chosen: of `asd` and `temporal`, for the fused stream: it searches no floor and gate of its
            own, which would be ten times as many settings to be lucky with.
    """
    naive = base.decoder == "naive"
    thresholds = (base.threshold,) if naive else THRESHOLDS
    floors, gates, weights = (base.confidence,), (base.gate,), (base.weight,)
    if stream == "asd" or naive:
        floors = CONFIDENCES
    elif stream == "temporal":
        gates = GATES
    else:
        floors, gates = (chosen["asd"].confidence,), (chosen["temporal"].gate,)
        weights = WEIGHTS
    return [
        dataclasses.replace(base, confidence=floor, gate=gate, weight=weight, threshold=threshold)
        for floor, gate, weight, threshold in itertools.product(floors, gates, weights, thresholds)
    ]


def with_removals(settings: decoding.Settings) -> list[decoding.Settings]:
    """Returns the settings with every threshold, and every one of removals that is not lower."""
    return [
        dataclasses.replace(settings, threshold=threshold, removal=removal)
        for threshold in THRESHOLDS
        for removal in (None, *(r for r in REMOVALS if r >= threshold))
    ]


def rate(
    procedure: Procedure,
    recordings: Mapping[str, LabelledPredictions],
    stream: str,
    candidates: Iterable[decoding.Settings],
    fps: float,
) -> list[Choice]:
    """Rates settings; those in a row that differ in thresholds alone are decoded at once."""
    choices = []
    known: dict[tuple, dict] = {}  # many settings find the same
    for settings, group in itertools.groupby(candidates, key=_without_thresholds):
        members = list(group)
        scores: list[dict[str, dict]] = [{} for _ in members]
        for name, r in recordings.items():
            found = batch.sweep(
                procedure,
                r.variant,
                stream,
                settings,
                [member.threshold for member in members],
                r.detections,
                r.temporal,
                removals=[member.removal for member in members],
            )
            for events, by_name in zip(found, scores, strict=True):
                steps = tuple(metrics.scored(events, r.with_errors))
                if (name, steps) not in known:
                    known[name, steps] = _scores(r, steps, steps, fps)
                by_name[name] = known[name, steps]
        choices += [
            _choice(member, by_name, settings.window, fps)
            for member, by_name in zip(members, scores, strict=True)
        ]
    return choices


def _scores(
    r: LabelledPredictions,
    steps: Sequence[metrics.Step],
    reports: Sequence[metrics.Step],
    fps: float,
) -> dict[str, Any]:
    """The scores of a recording's steps, and of all that is reported the wrong parts accepted."""
    wrong = wrong_parts.score_recording(r.frames, r.states, reports, fps)
    accepted = 0 if wrong is None else wrong["accepted"]
    return metrics.score_recording(r.truth, steps, fps) | {"accepted": accepted}


def _choice(
    settings: decoding.Settings | learned.Settings,
    by_name: Mapping[str, dict],
    window: int,
    fps: float,
) -> Choice:
    """A setting with what `metrics.score_recording` says of each recording."""
    summary = metrics.summarise(by_name)
    window_s = max(window, 1) / fps
    by_recording = tuple(
        s["f1"]
        + s["pos"]
        - DELAY_PRICE * (s["delay_s"] or 0.0) / window_s
        - WRONG_PRICE * s["accepted"]
        for s in by_name.values()
        if s["f1"] is not None
    )
    figures = (summary[key] for key in ("pos", "f1", "delay_s"))
    return Choice(settings, *figures, by_recording)


def _learned(
    procedure: Procedure,
    recordings: Mapping[str, LabelledPredictions],
    weights: Mapping[str, Weights],
    window: int,
    by_rule: bool,
    fps: float,
) -> Choice:
    """The choice of the learned fusion; beliefs are worked out once for all thresholds."""
    default = learned.Settings()
    thresholds = INSTALL if by_rule else (default.install,)
    candidates = [dataclasses.replace(default, install=threshold) for threshold in thresholds]
    scores: list[dict[str, dict]] = [{} for _ in candidates]
    for name, r in recordings.items():
        place = (procedure, r.variant)
        belief = learned.beliefs(*place, r.scores, weights[name], default.rho, fps)
        for settings, by_name in zip(candidates, scores, strict=True):
            events = learned.report(*place, r.scores.frames, belief, settings, fps)
            steps = metrics.scored(events, r.with_errors)
            reports = [(event.frame, event.step_id) for event in events]
            by_name[name] = _scores(r, steps, reports, fps)
    choices = [
        _choice(settings, by_name, window, fps)
        for settings, by_name in zip(candidates, scores, strict=True)
    ]
    best = pick(choices, WITHIN_OF_LEARNED) if by_rule else None
    if best is not None:
        return best
    fixed_one = choices[candidates.index(default)]
    return dataclasses.replace(fixed_one, fixed=True)


def pick(choices: Sequence[Choice], within: float = WITHIN) -> Choice | None:
    """Returns the fastest within so many standard errors of the best, of equals the first.

    None if none has found a step.
    """
    choices = [choice for choice in choices if choice.delay_s is not None]
    if not choices:
        return None
    scores = np.array([choice.scores for choice in choices])  # (settings, recordings)
    worse = scores[scores.mean(axis=1).argmax()] - scores
    error = worse.std(axis=1, ddof=1) / np.sqrt(scores.shape[1])
    near = worse.mean(axis=1) <= within * error + 1e-12
    return min(itertools.compress(choices, near), key=lambda choice: choice.delay_s)


def _without_thresholds(settings: decoding.Settings) -> decoding.Settings:
    return dataclasses.replace(settings, threshold=0.0, removal=None)
