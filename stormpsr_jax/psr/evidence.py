"""What shows that a part itself is correctly installed: the log odds that "right" rests on.

Each picture says how likely each part in view is right and not incorrect (`part_evidence`), in log
odds a second; neither another part nor the order of steps speaks for it. Pictures of one look say
much the same: the longer it lasts, the less one adds. After t seconds the share t / (LOOK + t) of
what a look can say has been said, and with g = P(the object is in view) a picture counts for

    g² · LOOK · (what it adds to that share)

seconds, so a clear picture for more than a half-hidden one, however long the look, and a look for
no more than LOOK seconds. What comes into view again renews the look: where g rises by r above what
it was of late, the share falls to its exp(−RENEWAL · r).

What is kept for or against a part is the sum, cut to ±`CAP`, which no bar of `learned_stream.BARS`
reaches. Where it begins and when it goes is in docs/psr.md#right-wrong-or-not-sure; within the
first second nothing is known yet.

What a picture says is worth as much as a part's trust (`trust`). A head that has learned from a few
incorrect examples knows these by heart, and gives others high logits too; of a part without any,
pictures say nothing.

Scores that say nothing of parts (kinds "detections" and "clips") have no such sum. There the logit
of being right before the projection takes its place, once the part was absent.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from stormpsr_jax.recordings.scores import FrameScores

# Log odds a second of what `part_inputs` returns; `benchmarks.risk` prints what fits other runs.
EVIDENCE = (0.9, 0.9, -3.0)
# A clear view of a correct part has a logit of 4, of an incorrect one of -2: what is cut off tells
# them no better apart. Below DOUBT a picture speaks against a part, as of correct ones few do.
CUT, DOUBT = 6.0, 0.5
CAP = 6.0
LOOK = 1.0  # seconds
RENEWAL = 3.0  # after hands have hidden all, a look says nearly as much as the first one
HIDING = 2.0  # seconds in which what was in view is forgotten to 1/e
FIRST = 1.0  # seconds of a recording in which nothing is right


class Evidence:
    """The evidence of K parts over one recording.

    Attributes:
        sums: (K,) log odds that the part is right and not incorrect.
        said: (K,) what a person has said of the part: 1 right, -1 incorrect, 0 nothing.
    """

    def __init__(
        self, initial_state: Sequence[int], removal: np.ndarray, trust: Sequence[float] = ()
    ) -> None:
        """Of the start of a recording.

        Args:
            initial_state: (K,) in {0, 1}.
            removal: (K,) logits of P(present) below which a part is off.
            trust: (K,) in 0…1, of the logits of being right; () trusts all.
        """
        if len(trust) not in (0, len(removal)):
            raise ValueError(f"trust has {len(trust)} numbers for {len(removal)} components")
        self._trust = np.array(trust or np.ones(len(removal)))
        self._most = np.where(self._trust > 0, CAP, 0.0)
        self._removal = removal
        self.sums, self.said = np.zeros(len(removal)), np.zeros(len(removal), int)
        self._begun = np.array(initial_state, bool)
        self._share = np.zeros(len(removal))  # of the present look, that has been said
        self._view: float | None = None  # g of late, None before the first picture

    def update(
        self,
        scores: FrameScores,
        present: np.ndarray,
        right: np.ndarray,
        wrong: np.ndarray,
        time: float,
        seconds: float,
    ) -> np.ndarray:
        """Takes the next picture and returns the evidence (K,) after it, ±`CAP` of what was said.

        Args:
            present, right, wrong: (K,) logits of what is believed.
            time: seconds since the recording began.
            seconds: that the picture stands for.
        """
        there, begun = present >= 0, time >= FIRST
        if begun:  # before the first picture, no part of it was there
            self._begun |= ~there | (self._view is None)
        sums = right
        if scores.parts is None:
            self._view = 1.0
        else:
            if _in_view(scores) > 0.5:
                self._begun |= np.asarray(scores.parts)[: len(there)] < 0
            trusted = np.r_[np.ones(len(there)), self._trust] * scores.parts
            says = self.weight(scores, there, seconds)
            says *= part_evidence(scores._replace(parts=trusted))
            sums = self.sums + np.where(self._begun & begun, says, 0.0)
        sums = np.clip(sums, -CAP, self._most)
        doubted = ~(self._begun & begun & there) | (wrong > 0)
        self.sums = np.where(doubted, np.minimum(sums, 0.0), sums)
        off = present < self._removal
        self.sums[off], self.said[off] = 0.0, 0
        return np.where(self.said == 0, self.sums, CAP * self.said)

    def weight(self, scores: FrameScores, there: np.ndarray, seconds: float) -> np.ndarray:
        """Takes a picture as part of a look and returns the seconds (K,) that it counts for.

        `there` (K,) says which parts are there.
        """
        g = _in_view(scores)
        view = g if self._view is None else self._view
        share = self._share * math.exp(-RENEWAL * max(g - view, 0.0))
        self._view = g + max(view - g, 0.0) * math.exp(-seconds / HIDING)
        lasted = LOOK * share / (1 - share) + seconds
        self._share = np.where(there, lasted / (LOOK + lasted), 0.0)
        return np.where(there, g * g * LOOK * (self._share - share), 0.0)

    def say(self, part: int, right: bool) -> None:
        """Takes it from a person that a part is right, or that it is incorrect."""
        self.said[part] = 1 if right else -1
        self.sums[part] = CAP * self.said[part]

    def state(self) -> dict[str, Any]:
        """Returns all that `restore` needs, as plain values for JSON."""
        return {
            "sums": self.sums.tolist(),
            "said": self.said.tolist(),
            "begun": self._begun.tolist(),
            "share": self._share.tolist(),
            "view": self._view,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes back to a saved state; ValueError, and all stays, if it has other components."""
        if (num := len(state["sums"])) != len(self.sums):
            raise ValueError(f"the saved state has {num} components")
        self.sums, self.said = np.array(state["sums"], float), np.array(state["said"], int)
        self._begun, self._share = np.array(state["begun"], bool), np.array(state["share"], float)
        self._view = state["view"]


def _in_view(scores: FrameScores) -> float:
    assert scores.objectness is not None
    return float(sigmoid(np.clip(float(scores.objectness), -60, 60)))


def part_evidence(scores: FrameScores) -> np.ndarray:
    """Returns log odds a second that each part (K,) is right and not wrong, as a picture shows it.

    Neither the order nor the catalogue is in it. An error in view speaks against a part, less so
    where another one looks incorrect; no other part speaks for it.
    """
    own, *error = (part_inputs(scores) * EVIDENCE).T
    return own + np.minimum(sum(error), 0.0)


def part_inputs(scores: FrameScores) -> np.ndarray:
    """Returns what `EVIDENCE` weighs, (K, 3), as far as each part is in view.

    Its logit of being right, cut to ±`CUT`, less `DOUBT`; that the picture as a whole shows an
    error; that it shows one and no other part looks incorrect.
    """
    assert scores.parts is not None
    assert scores.states is not None
    present, right = np.split(np.asarray(scores.parts, float), 2)
    there, error = sigmoid(present), math.exp(min(float(scores.states[-1]), 0.0))
    suspect = there * sigmoid(-right)
    other = np.full(len(suspect), suspect.max(initial=0.0))  # the most suspect of the others
    if len(suspect) > 1:
        other[suspect.argmax()] = np.partition(suspect, -2)[-2]
    shown = [np.clip(right, -CUT, CUT) - DOUBT, np.full(len(right), error), error * (1 - other)]
    return there[:, None] * np.stack(shown, axis=1)


def sigmoid(x: np.ndarray) -> np.ndarray:
    """Returns 1 / (1 + e^-x), which does not overflow."""
    return 0.5 + 0.5 * np.tanh(x / 2)
