"""How high the logit of "right" is for correct parts, and what that differs by on another camera.

Most installations are correct, so the upper quarter of the looks at a part says where correct ones
lie, without a label; a third of incorrect ones among them moves it little. A model knows its level
on validation recordings; films of another camera, without labels, tell theirs (`looks`, `level`).
Beliefs are moved by half of the difference (`LearnedSettings.camera`), so that correct parts are
not called incorrect. The evidence of a part is not: an incorrect part would be right as well.

A network that learned right and wrong from a few recordings knows these by heart: its logits of
correct parts are two to five times as high as those of one that saw thousands of renders, and those
of incorrect parts nearly as high. `trust` brings correct ones back to what they mean elsewhere.
"""

from collections.abc import Iterable, Sequence

import numpy as np

from stormpsr_jax.psr.evidence import sigmoid
from stormpsr_jax.recordings.scores import Scores

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
    found = []
    for there, logits in zip(present.T > THERE, right.T, strict=True):
        shown = there & (view > IN_VIEW)
        each = [logits[shown & (number == n)] for n in np.unique(number[shown])]
        found.append([float(one.mean()) for one in each])
    return found


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


def shift(of_model: Level, of_films: Level) -> list[float]:
    """Returns what is to be added to each part's logit; 0 where a level is not known."""
    return [
        0.0 if own is None or other is None else round(SHARE * (own - other), 3)
        for own, other in zip(of_model, of_films, strict=True)
    ]


def trust(of_model: Level | None, taught: Sequence[bool]) -> tuple[float, ...]:
    """Returns what each part's evidence is to be multiplied with, where no renders taught it.

    Args:
        of_model: (K,) of validation recordings; a part without a level has the middle of the
            others.
        taught: (K,) whether a recording to learn from shows the part incorrect.
    """
    known = [one for one in of_model or () if one is not None]
    middle = float(np.median(known)) if known else CLEAR
    levels = of_model or [None] * len(taught)
    return tuple(
        round(CLEAR / max(middle if one is None else one, CLEAR), 3) if is_taught else 0.0
        for one, is_taught in zip(levels, taught, strict=True)
    )
