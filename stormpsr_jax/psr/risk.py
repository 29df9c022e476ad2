"""How high the bar for installations has to be, so that few incorrect ones are accepted.

The rule and what it promises are in docs/psr.md#right-wrong-or-not-sure. The loss of a recording is
the share of its incorrect installations that are reported as installed (`wrong_parts`), in 0…1; it
falls as the bar rises. R̂(λ) is the mean over recordings with an incorrect installation.

`priors` has p₀ by kind of the weights and of model (`learned_beliefs.WORLDS`), and
`PRIOR_RECORDINGS` for how many recordings it counts (the plainest form of few-shot conformal
prediction, Fisch et al., arXiv 2102.08898). For streams without weights p₀ is 1 and counts as one,
which is conformal risk control (Angelopoulos et al., arXiv 2208.02814).
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from stormpsr_jax.base import files
from stormpsr_jax.psr import wrong_parts
from stormpsr_jax.psr.events import reports
from stormpsr_jax.psr.evidence import CAP
from stormpsr_jax.psr.learned_beliefs import PACKAGED, Weights
from stormpsr_jax.psr.stream import Stream
from stormpsr_jax.recordings.evaluation_set import LabelledPredictions
from stormpsr_jax.recordings.procedure import Procedure

RISK = 0.1  # that is asked for where nobody says another one
PRIOR_RECORDINGS = 20  # A: the two errors that most people have shall not rule alone
# Where a risk leaves most correct installations without a verdict, one of these is named.
RISKS = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5)


@functools.cache
def priors() -> dict[str, tuple[float, ...]]:
    """Returns p₀ at each of `learned_stream.BARS`, by `Weights.prior`.

    Half an installation where none was accepted. docs/results.md says what each was measured on.
    """
    curves = files.read_json(PACKAGED / "risk_prior.json")
    return {name: tuple(curve) for name, curve in curves.items()}


@dataclasses.dataclass(frozen=True)
class Control:
    """What recordings say of bars.

    Attributes:
        bars: (B,) ascending.
        losses: (B,) mean loss of the recordings at each, not rising.
        recordings: n, how many have an incorrect installation.
        silent: (B,) share of the correct installations that have no verdict; () if not known.
        lasting: of the recordings, how many have an incorrect installation that outlasts another
            step; None if not known.
    """

    bars: tuple[float, ...]
    losses: tuple[float, ...]
    recordings: int
    silent: tuple[float, ...] = ()
    lasting: int | None = None

    def __post_init__(self) -> None:
        num = len(self.bars)
        if not (len(self.losses) == num > 0 and len(self.silent) in (0, num)):
            raise ValueError("bars, losses and silent do not fit one another")
        if self.recordings < 0:
            raise ValueError(f"recordings {self.recordings} is not a number from 0 up")
        if not all(math.isfinite(bar) for bar in self.bars):
            raise ValueError("bars hold numbers that are not finite")
        if not all(0 <= one <= 1 for one in (*self.losses, *self.silent)):
            raise ValueError("losses or silent hold numbers that are not in 0…1")

    def bound(self, bar: float) -> float:
        """Returns the bound on the expected loss at a bar, which is one of `bars`."""
        loss = self.losses[self.bars.index(bar)]
        return (self.recordings * loss + 1) / (self.recordings + 1)

    def bar(self, risk: float, prior: Sequence[float] | None = None) -> float | None:
        """Returns the lowest bar that is low enough in risk; None: not even the highest one is.

        `prior` (B,) is p₀; None is that of a stream without weights.
        """
        A, prior = (1, (1.0,) * len(self.bars)) if prior is None else (PRIOR_RECORDINGS, prior)
        n = self.recordings
        for bar, p, loss in zip(self.bars, prior, self.losses, strict=True):
            if (A * p + n * loss) / (A + n) <= risk + 1e-12:
                return bar
        return None


@dataclasses.dataclass(frozen=True)
class Decision:
    """How installations are decided.

    Attributes:
        settings: of the stream, with the bar.
        risk: that was asked for; 1 is without a bar.
        bound: on the expected share of incorrect installations accepted, which is the risk asked
            for; None if it does not hold at the bar, or there is no bar.
        recordings: n, with an incorrect installation, that there were to choose by.
        mixed: whether what other products lost had a say.
        reached: whether there is a bar for this risk; otherwise nothing is right.
        silent: share of the correct installations of these recordings that have no verdict at the
            bar; None if not known.
        possible: where that is more than half, the least risk at which it is not; None: none.
        corrected: whether all incorrect installations were corrected before another step.
    """

    settings: Any
    risk: float
    bound: float | None = None
    recordings: int = 0
    mixed: bool = False
    reached: bool = True
    silent: float | None = None
    possible: float | None = None
    corrected: bool = False

    def note(self, stream: str) -> str:
        """Returns sentences for people."""
        if self.risk >= 1:
            return f"{stream}: --risk=1 sets no limit, so no part is reported as not sure."
        if self.bound is not None:
            text = (
                f"{stream}: approximately {self.bound:.0%} of the incorrect installations of a "
                f"recording are accepted at most, on average: {self.recordings} recordings with "
                "one show it. It holds for further ones that are like these."
            )
        elif not self.reached:
            text = f"{stream}: no threshold is known to keep a risk of {self.risk:g}: "
            text += "nothing is called right." if self.mixed else "the threshold is not raised."
        else:
            text = (
                f"{stream}: mixed: the threshold goes by what models of other products accepted, "
                f"and by the recordings with an incorrect installation ({self.recordings}), so a "
                f"risk of {self.risk:g} is not guaranteed for this product."
            )
        if self.corrected:
            text += (
                " All incorrect installations were corrected before the next step, which says "
                "little of those that stay."
            )
        if self.silent is not None and self.silent > 0.5:
            less = "no risk up to 0.5" if self.possible is None else f"a risk of {self.possible:g}"
            text += (
                f" {self.silent:.0%} of the correct installations get no verdict at it: a station "
                f"cannot tick them; {less} leaves at most half without."
            )
        return text


def decide(
    stream: Stream, settings: Any, risk: float, control: Control | None, prior: str | None
) -> Decision:
    """Returns how installations are decided at a risk.

    Args:
        settings: without a bar.
        risk: in 0…1; 1 is none.
        control: what validation recordings say; None without any.
        prior: of the weights of a fitted stream, a name in `priors`.

    Raises:
        ValueError: a risk that is not in 0…1.
    """
    if not 0 <= risk <= 1:
        raise ValueError(f"risk {risk} is not in 0…1")
    if risk == 1:
        return Decision(stream.with_bar(settings, None), risk)
    bars = stream.bars(settings)
    if control is None or tuple(control.bars) != bars:  # or of an earlier version
        control = Control(bars, (0.0,) * len(bars), 0)
    prior_risks = None
    if prior is not None and stream.fitted:
        prior_risks = priors().get(prior, priors()[prior.partition(",")[0]])
    n, bar = control.recordings, control.bar(risk, prior_risks)
    if prior_risks is None and bar is None:  # too few recordings, and no other product to go by
        return Decision(settings, risk, recordings=n, reached=False)

    def silent(bar: float | None) -> float | None:
        if not control.silent:
            return None
        return 1.0 if bar is None else control.silent[bars.index(bar)]

    share, possible = silent(bar), None
    if share is not None and share > 0.5:
        shares = ((one, silent(control.bar(one, prior_risks))) for one in RISKS if one > risk)
        possible = next((one for one, s in shares if s is not None and s <= 0.5), None)
    holds = bar is not None and control.bound(bar) <= risk + 1e-12
    return Decision(
        stream.with_bar(settings, CAP if bar is None else bar),  # which no evidence exceeds
        risk,
        risk if holds else None,
        n,
        mixed=prior_risks is not None,
        reached=bar is not None,
        silent=share,
        possible=possible,
        corrected=bool(n) and control.lasting == 0,
    )


@dataclasses.dataclass(frozen=True)
class BarResults:
    """What a recording says of each bar of a stream.

    Attributes:
        losses: (B,), not rising; None without an incorrect installation.
        right: its correct installations.
        silent: (B,) those of them that have no verdict at each bar.
        lasting: whether an incorrect installation outlasts another step.
    """

    losses: np.ndarray | None = None
    right: int = 0
    silent: np.ndarray | int = 0
    lasting: bool = False


def decode_bars(
    procedure: Procedure,
    recording: LabelledPredictions,
    stream: Stream,
    settings: Any,
    weights: Weights | None,
) -> BarResults:
    """Decodes a recording at each bar of a stream; `weights` have not seen it."""
    candidates = [stream.with_bar(settings, bar) for bar in stream.bars(settings)]
    found = stream.decode_each(procedure, recording, candidates, weights)
    steps = [[event[:2] for event in reports(events)] for events in found]
    frames, states = recording.frames, recording.states
    scored = [wrong_parts.score_recording(frames, states, row, procedure.fps) for row in steps]
    rows = [row for row in scored if row is not None]
    if not rows:
        return BarResults()
    silent, right = np.array([row["no_verdict"] for row in rows]), rows[0]["right_installations"]
    if not rows[0]["shown"]:
        return BarResults(None, right, silent)
    losses = np.array([row["accepted"] / row["shown"] for row in rows])
    changes = frames[1:][(np.diff(np.abs(states), axis=0) != 0).any(axis=1)]
    lasting = any(
        ((changes > start) & (changes < end)).any()
        for _, start, end in wrong_parts.spans(frames, states, -1)
    )
    # A decoder may accept at a bar what it does not at a lower one, by another order of reports.
    return BarResults(np.maximum.accumulate(losses[::-1])[::-1], right, silent, lasting)


def control_of(bars: Sequence[float], recordings: Iterable[BarResults]) -> Control:
    """Returns what recordings say together."""
    recordings = list(recordings)
    losses_of = [recording.losses for recording in recordings if recording.losses is not None]
    losses = np.mean(losses_of, axis=0) if losses_of else np.zeros(len(bars))
    silent: tuple[float, ...] = ()
    if right := sum(recording.right for recording in recordings):
        none = np.zeros(len(bars))
        silent = tuple(
            (np.sum([none + recording.silent for recording in recordings], axis=0) / right).tolist()
        )
    lasting = sum(recording.lasting for recording in recordings)
    return Control(tuple(bars), tuple(losses.tolist()), len(losses_of), silent, lasting)


def decide_each(
    procedure: Procedure,
    recordings: Mapping[str, LabelledPredictions],
    stream: Stream,
    settings: Any,
    risk: float,
    weights: Weights | None,
) -> dict[str, Decision]:
    """Returns by recording how all others decide it, and as "" how all of them together decide."""
    how, prior = (stream, settings, weights), None if weights is None else weights.prior
    found = {name: decode_bars(procedure, r, *how) for name, r in recordings.items()}
    decisions = {}
    for left_out in (*recordings, ""):
        others = [its for name, its in found.items() if name != left_out]
        control = control_of(stream.bars(settings), others)
        decisions[left_out] = decide(stream, settings, risk, control, prior)
    return decisions
