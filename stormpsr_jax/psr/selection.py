"""Thresholds, floor, gate and fusion weight, chosen on the validation split by one rule.

The rule is in docs/psr.md#decoding. F1 alone picks late, sure thresholds; with POS and the delay in
the score, no stream is chosen by other wishes than another. Of a few recordings many settings
differ by chance, so the one with the best mean is not taken, but the fastest that is hardly worse
(the rule of Breiman et al., Classification and Regression Trees, 1984, in pairs; theirs is a whole
standard error, and benchmarks/results/psr-protocols.md has what that costs). Whatever is worse than
the best somewhere and better nowhere is a whole standard error off or more: one recording that goes
wrong is never taken for chance.

Of sums of evidence, floor, gate and weight are chosen without removals, then the thresholds of
installations and of removals together. The beliefs that a fitted stream has of a recording have to
be those of weights that have not seen it. Fewer than MIN_RECORDINGS recordings give no standard
error to go by, and without a true positive there is no delay: then settings are fixed ones
(`Stream.fixed_settings`).
"""

import dataclasses
import functools
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from stormpsr_jax.psr import calibration, metrics, risk, streams, wrong_parts
from stormpsr_jax.psr.accumulation import Settings
from stormpsr_jax.psr.calibration import Calibration
from stormpsr_jax.psr.events import reports
from stormpsr_jax.psr.learned_beliefs import Weights
from stormpsr_jax.psr.stream import Stream
from stormpsr_jax.psr.streams import BASELINE
from stormpsr_jax.recordings.evaluation_set import LabelledPredictions
from stormpsr_jax.recordings.procedure import Procedure

MIN_RECORDINGS = 4
# A delay of a whole window costs as much as this much of F1 or POS.
DELAY_PRICE = 0.1
WRONG_PRICE = 0.3  # of a false acceptance

Recordings = Mapping[str, LabelledPredictions]
HeldOut = Mapping[str, Weights]  # by recording, weights that have not seen it


@dataclasses.dataclass(frozen=True)
class Choice:
    """A setting and its figures on the recordings it was chosen on.

    Attributes:
        pos, f1, delay_s: means over the recordings where they are defined.
        scores: by the rule, of the recordings with steps, in order; where nothing was found there
            is no delay to pay for.
        fixed: whether the settings are the fixed ones.
        calibration: of confidences; None before it is fitted.
        reliability: of the confidences so calibrated (`calibration.reliability`), where something
            was learnt those of each recording by what was learnt from the others; None with fewer
            than two recordings.
        control: what the recordings say of the stream's bars for installations.
        decision: how installations are decided by that; None where no bar was asked for.
        seen_f1: of what is seen, whatever the bar; None of a stream without one.
    """

    settings: Any
    pos: float | None
    f1: float | None
    delay_s: float | None
    scores: tuple[float, ...]
    fixed: bool = False
    calibration: Calibration | None = None
    reliability: dict[str, Any] | None = None
    control: risk.Control | None = None
    decision: risk.Decision | None = None
    seen_f1: float | None = None


def select(
    procedure: Procedure,
    recordings: Recordings,
    base: Settings,
    choose: str = "validation",
    weights: HeldOut | None = None,
    threshold: float = 0.0,
    asked: float = 1.0,
    default: Weights | None = None,
) -> dict[str, Choice]:
    """Chooses the settings of every stream that the recordings have.

    Args:
        recordings: of the validation split.
        base: decoder, decay and window, and what is not on the grid of a stream.
        choose: "validation", the rule above, or "paper", its settings.
        weights: of fitted streams, by recording; without them these are left out.
        threshold: of the fixed settings; 0 is the paper's.
        asked: the risk of fitted streams, in 0…1; 1 raises no bar.
        default: weights of fitted streams that will recognise, whose kind has the bar where the
            recordings are too few.

    Returns:
        By name of the stream.
    """
    num = sum(bool(r.truth) for r in recordings.values())
    by_rule = choose == "validation" and num >= MIN_RECORDINGS
    chosen: dict[str, Choice] = {}
    for stream in streams.available(recordings, base.decoder):
        if stream.fitted and weights is None:
            continue
        held_out = weights if stream.fitted and weights else {}
        rated = functools.partial(
            rate, procedure, recordings, stream, window=base.window, weights=held_out
        )

        best = None
        if by_rule:
            known = {name: choice.settings for name, choice in chosen.items()}
            reads_more = set(stream.needs) > set(BASELINE.needs)
            least = chosen.get(BASELINE.name) if reads_more else None
            best = pick(_no_worse(rated(stream.grid(base, known)), least), stream.within)
            if best is not None and (finer := stream.refinements(best.settings)):
                best = pick(_no_worse(rated(finer), least), stream.within)
        if best is None:
            choices = rated(stream.fixed_settings(procedure, base, threshold, choose == "paper"))
            best = next((c for c in choices if c.delay_s is not None), choices[0])
            best = dataclasses.replace(best, fixed=True)
        if stream.fitted:
            text = [
                risk.decode_bars(procedure, r, stream, best.settings, held_out[name])
                for name, r in recordings.items()
            ]
            control = risk.control_of(stream.bars(best.settings), text)
            prior = None if default is None else default.prior
            decision = risk.decide(stream, best.settings, asked, control, prior)
            (with_bar,) = rated([decision.settings])
            best = dataclasses.replace(
                with_bar, fixed=best.fixed, control=control, decision=decision, seen_f1=best.f1
            )
        judged = []
        for name, r in recordings.items():
            events = reports(stream.decode(procedure, r, best.settings, held_out.get(name)))
            judged.append(calibration.judge(events, r))
        every = [one for of_recording in judged for one in of_recording]
        # Beliefs are probabilities, of hundreds of recordings.
        fitted = calibration.STATED if stream.fitted else calibration.fit(every)
        apart = every if stream.fitted or len(judged) < 2 else calibration.cross_fit(judged)
        reliability = calibration.reliability(apart) if len(judged) > 1 else None
        chosen[stream.name] = dataclasses.replace(best, calibration=fitted, reliability=reliability)
    return chosen


def rate(
    procedure: Procedure,
    recordings: Recordings,
    stream: Stream,
    candidates: Sequence[Any],
    window: int,
    weights: HeldOut | None = None,
) -> list[Choice]:
    """Rates settings of a stream; `window` in frames is what delays are measured by."""
    scores: list[dict[str, dict]] = [{} for _ in candidates]
    for name, r in recordings.items():
        rated: dict[tuple, dict] = {}  # many settings find the same
        found = stream.decode_each(procedure, r, candidates, (weights or {}).get(name))
        for events, by_name in zip(found, scores, strict=True):
            right = reports(events)
            key = tuple((event.frame, event.step_id) for event in right)
            if key not in rated:
                wrong = wrong_parts.score_recording(r.frames, r.states, key, procedure.fps)
                accepted = 0 if wrong is None else wrong["accepted"]
                steps = metrics.scored_steps(right, r.with_errors)
                of_steps = metrics.score_recording(r.truth, steps, procedure.fps)
                rated[key] = of_steps | {"accepted": accepted}
            by_name[name] = rated[key]
    window_s = max(window, 1) / procedure.fps
    choices = []
    for settings, by_name in zip(candidates, scores, strict=True):
        mean = metrics.summarise(by_name)
        by_rule = tuple(
            s["f1"]
            + s["pos"]
            - DELAY_PRICE * (s["delay_s"] or 0.0) / window_s
            - WRONG_PRICE * s["accepted"]
            for s in by_name.values()
            if s["f1"] is not None
        )
        choices.append(Choice(settings, mean["pos"], mean["f1"], mean["delay_s"], by_rule))
    return choices


def _no_worse(choices: Sequence[Choice], least: Choice | None) -> list[Choice]:
    """Those that are better than `least`, if given, in F1, POS or delay, or as good in one."""
    if least is None or least.delay_s is None:
        return list(choices)
    return [
        choice
        for choice in choices
        if (choice.f1 or 0) >= (least.f1 or 0)
        or (choice.pos or 0) >= (least.pos or 0)
        or (choice.delay_s is not None and choice.delay_s <= least.delay_s)
    ]


def pick(choices: Sequence[Choice], within: float = Stream.within) -> Choice | None:
    """Returns the fastest within so many standard errors of the best, of equals the first.

    None if none has found a step.
    """
    timed = [(choice.delay_s, choice) for choice in choices if choice.delay_s is not None]
    if not timed:
        return None
    scores = np.array([choice.scores for _, choice in timed])  # (settings, recordings)
    worse = scores[scores.mean(axis=1).argmax()] - scores
    error = worse.std(axis=1, ddof=1) / np.sqrt(scores.shape[1])
    near = worse.mean(axis=1) <= within * error + 1e-12
    return min(itertools.compress(timed, near), key=lambda pair: pair[0])[1]
