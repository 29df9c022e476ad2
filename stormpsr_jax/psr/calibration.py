"""Confidences that say how likely an event is right, and how well they do.

`fit` learns that from events that were judged by the labels (docs/psr.md#confidences): Platt
scaling (Platt, Probabilistic outputs for support vector machines, 1999) of the confidence's logit,
by Newton's method as in Lin, Lin and Weng (A note on Platt's probabilistic outputs, 2007). Two
parameters can be learnt from 20 events, and smoothed targets leave nothing certain. The beliefs of
the learned fusion are probabilities to begin with, of hundreds of recordings, which what a dozen
say does not make better: they are taken as they are (`STATED`).
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from stormpsr_jax.psr import metrics, wrong_parts
from stormpsr_jax.psr.evidence import sigmoid
from stormpsr_jax.recordings.evaluation_set import LabelledPredictions
from stormpsr_jax.recordings.scores import Scores

MIN_EVENTS = 20  # that a slope is learnt from
MAX_BINS = 10
EVENTS_PER_BIN = 10  # at least, without which the share of right ones is mostly chance
# Confidences nearer to 0 and 1 than this are not told apart: their logits have no bounds.
EDGE = 1e-3

Rows = list[dict[str, Any]]


class Judgement(NamedTuple):
    """The confidence of an event, and whether it is right."""

    confidence: float
    right: bool


@dataclasses.dataclass(frozen=True)
class Calibration:
    """From a confidence to the probability that the event is right; it never falls.

    Attributes:
        slope, intercept: the probability is sigmoid(slope · logit(confidence) + intercept).
        low, high: which it does not leave, however far the confidence is from those seen.
    """

    slope: float
    intercept: float
    low: float
    high: float

    def __post_init__(self) -> None:
        if not 0 <= self.slope < math.inf:
            raise ValueError(f"slope {self.slope} is not a finite number from 0 up")
        if not math.isfinite(self.intercept):
            raise ValueError(f"intercept {self.intercept} is not a finite number")
        if not 0 < self.low <= self.high < 1:
            what = "are not in order between 0 and 1"
            raise ValueError(f"low {self.low} and high {self.high} {what}")

    @property
    def constant(self) -> bool:
        """Whether it is one number whatever the confidence: there was too little to learn from."""
        return self.slope == 0

    def __call__(self, confidence: float) -> float:
        """Returns the probability for a confidence in 0…1."""
        score = self.slope * _logit(min(max(confidence, EDGE), 1 - EDGE)) + self.intercept
        return min(max(0.5 + 0.5 * math.tanh(score / 2), self.low), self.high)


# What is stated, as it is: sigmoid(logit(confidence)), with nothing certain.
STATED = Calibration(1.0, 0.0, EDGE, 1 - EDGE)


def judge(events: Iterable[Sequence[Any]], recording: LabelledPredictions) -> list[Judgement]:
    """Returns a recording's events (frame, step id, confidence, …) with whether they are right.

    A completed step is right if it is a true positive of `metrics.match_steps`, a report of a wrong
    part (3k+1) if the part is wrong at that frame. Such reports are left out where no states are
    labelled; if the truth has the incorrect installations, they are matched like steps. That a
    wrong part was taken off is left out, as labels have no such step.
    """
    events = list(events)
    steps = metrics.scored_steps(events, recording.with_errors)
    matching = metrics.match_steps(recording.truth, steps)
    right = {(frame, step) for step, _, frame in matching.correct}
    unknown = {(e[0], e[1]) for e in events if e[1] % 3 == 2}.difference(steps)
    if not recording.with_errors:
        reports = {(e[0], e[1]) for e in events if e[1] % 3 == 1}
        if len(recording.frames):
            sits_wrong = wrong_parts.wrong_installations(recording.frames, recording.states, ())
            right |= reports.difference(wrong_parts.false_alarms(sits_wrong, reports))
        else:
            unknown |= reports
    return [Judgement(e[2], (e[0], e[1]) in right) for e in events if (e[0], e[1]) not in unknown]


def fit(judged: Iterable[Judgement]) -> Calibration:
    """Learns the probability that an event is right from judged events.

    Of n events of which r are right, the probability stays in 1 / (n − r + 2) … (r + 1) / (r + 2),
    Platt's targets. It is (r + 1) / (n + 2) for every confidence with fewer than `MIN_EVENTS`
    events, where all are right or none is, and where the surer ones are not more often right.
    """
    judged = sorted(judged)
    right = np.array([event.right for event in judged], bool)
    num, num_right = len(right), int(right.sum())
    low, high = 1 / (num - num_right + 2), (num_right + 1) / (num_right + 2)
    constant = Calibration(0.0, _logit((num_right + 1) / (num + 2)), low, high)
    x = np.array([_logit(min(max(event.confidence, EDGE), 1 - EDGE)) for event in judged])
    if num < MIN_EVENTS or num_right in (0, num) or x.std() < 1e-6:
        return constant
    mean, scale = float(x.mean()), float(x.std())
    slope, intercept = _logistic((x - mean) / scale, np.where(right, high, low)).tolist()
    if slope <= 0:
        return constant
    return Calibration(slope / scale, intercept - slope / scale * mean, low, high)


def cross_fit(recordings: Sequence[Sequence[Judgement]]) -> list[Judgement]:
    """Returns the judged events of two or more recordings, calibrated by what the others taught."""
    taught_events = []
    for i, own in enumerate(recordings):
        taught = fit(one for j, other in enumerate(recordings) if j != i for one in other)
        taught_events += [one._replace(confidence=taught(one.confidence)) for one in own]
    return taught_events


def reliability(judged: Iterable[Judgement]) -> dict[str, Any]:
    """Returns how far confidences and the share of right events lie apart.

    Events are sorted by confidence and cut into up to `MAX_BINS` bins of equally many, at least
    `EVENTS_PER_BIN` each where there are two bins or more. Equal confidences share a bin; what that
    leaves too few of in a later bin joins the one before.

    Returns:
        "ece", None without events, and "bins", by confidence: "low" and "high", the confidences
        that occur, the number of "events", mean "confidence", share of "right" ones.
    """
    judged = sorted(judged)
    num_bins = max(1, min(MAX_BINS, len(judged) // EVENTS_PER_BIN))
    groups: dict[int, list[Judgement]] = {}
    first: dict[float, int] = {}  # place of each confidence
    for i, event in enumerate(judged):
        place = first.setdefault(event.confidence, i)
        groups.setdefault(place * num_bins // len(judged), []).append(event)
    large: list[list[Judgement]] = []
    for group in groups.values():
        if large and len(group) < EVENTS_PER_BIN:
            large[-1] += group
        else:
            large.append(group)
    bins = [
        {
            "low": group[0].confidence,
            "high": group[-1].confidence,
            "events": len(group),
            "confidence": math.fsum(event.confidence for event in group) / len(group),
            "right": sum(event.right for event in group) / len(group),
        }
        for group in large
    ]
    gaps = [b["events"] * abs(b["confidence"] - b["right"]) for b in bins]
    return {"ece": math.fsum(gaps) / len(judged) if judged else None, "bins": bins}


def table(result: Mapping[str, Any]) -> Rows:
    """A row per stream and bin of metrics.json, and one per stream of all bins with its ECE."""
    rows = []
    for stream, s in result["streams"].items():
        reliability = s.get("reliability") or {"bins": ()}
        bins = [(f"{b['low']:.3f}–{b['high']:.3f}", b) for b in reliability["bins"]]
        num = sum(b["events"] for _, b in bins)
        if num:
            whole = {
                key: math.fsum(b["events"] * b[key] for _, b in bins) / num
                for key in ("confidence", "right")
            }
            bins.append(("all", {**whole, "events": num}))
        for name, b in bins:
            gap = reliability["ece"] if name == "all" else abs(b["confidence"] - b["right"])
            figures = {key: b[key] for key in ("events", "confidence", "right")}
            rows.append({"stream": stream, "confidences": name, **figures, "error": gap})
    return rows


def _logit(probability: float) -> float:
    return math.log(probability) - math.log1p(-probability)


def _logistic(x: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Slope and intercept (2,) of logistic regression; targets (N,) strictly inside 0…1."""
    columns = np.stack([x, np.ones(len(x))])
    theta = np.array([0.0, _logit(float(targets.mean()))])

    def loss(theta: np.ndarray) -> float:
        scores = theta @ columns
        return float((np.logaddexp(0, scores) - targets * scores).sum())

    for _ in range(100):
        p = 0.5 + 0.5 * np.tanh(theta @ columns / 2)
        gradient = columns @ (p - targets)
        step = np.linalg.solve((columns * (p * (1 - p))) @ columns.T, gradient)
        size = 1.0
        # Newton's step may go too far: halved until the loss falls as the gradient promises.
        while size > 1e-9 and loss(theta - size * step) > loss(theta) - 1e-4 * size * (
            gradient @ step
        ):
            size /= 2
        if size <= 1e-9 or np.abs(step).max() < 1e-10:
            break
        theta = theta - size * step
    return theta


IN_VIEW, HIDDEN = 0.8, 0.5  # P(the object is in view) of a look, and of what ends it
THERE = 1.0  # logit of a part's being there
ENOUGH = 5  # looks at a part that tell its level
LITTLE = 2.0  # logit below which a level tells little: incorrect parts lie as high at times
QUANTILE = 0.75
SHARE = 0.5  # of the difference
CLEAR = 4.0  # logit of a correct part in a clear view, where renders taught right and wrong

Level = Sequence[float | None]  # (K,) logits; None where looks are too few


def looks(scores: Scores) -> list[list[float]]:
    """Returns of each of K parts the mean logit of its being right, look by look.

    A look lasts while the object is in view and the part is there. Of scores without parts there
    is none.
    """
    if scores.parts is None or scores.objectness is None:
        return []
    present, right = np.split(np.asarray(scores.parts, float), 2, axis=1)
    view = sigmoid(np.clip(np.asarray(scores.objectness, float), -60, 60))
    number = np.cumsum(view < HIDDEN)  # looks are parted by what hides the object
    means = []
    for there, logits in zip(present.T > THERE, right.T, strict=True):
        shown = there & (view > IN_VIEW)
        each = [logits[shown & (number == n)] for n in np.unique(number[shown])]
        means.append([float(one.mean()) for one in each])
    return means


def level(recordings: Iterable[Scores]) -> list[float | None] | None:
    """Returns the level of each part over recordings; None if none of them has looks."""
    of_each = [found for scores in recordings if (found := looks(scores))]
    if not of_each:
        return None
    joined = [np.concatenate(one) for one in zip(*of_each, strict=True)]
    return [
        round(float(np.quantile(one, QUANTILE)), 3) if len(one) >= ENOUGH else None
        for one in joined
    ]


def shift(of_model: Level, of_videos: Level) -> list[float]:
    """Returns what is to be added to each part's logit; 0 where a level is not known."""
    return [
        0.0 if own is None or other is None else round(SHARE * (own - other), 3)
        for own, other in zip(of_model, of_videos, strict=True)
    ]


def trust(of_model: Level | None, taught: Sequence[bool]) -> tuple[float, ...]:
    """Returns what each part's evidence is to be multiplied with, where no renders taught it.

    Args:
        of_model: (K,) of validation recordings; a part without a level has the middle of the
            others.
        taught: (K,) whether a recording to learn from shows the part incorrect.
    """
    known = [level for level in of_model or () if level is not None]
    middle = float(np.median(known)) if known else CLEAR
    levels = of_model or [None] * len(taught)
    return tuple(
        round(CLEAR / max(middle if level is None else level, CLEAR), 3) if is_taught else 0.0
        for level, is_taught in zip(levels, taught, strict=True)
    )
