"""Checks labels before training: counts, warnings, and what there is too little of."""

from collections import Counter
from pathlib import Path

from stormpsr_jax.base.errors import for_each
from stormpsr_jax.psr import agreement
from stormpsr_jax.recordings import find
from stormpsr_jax.recordings.procedure import Procedure
from stormpsr_jax.recordings.recording import LabelPlace
from stormpsr_jax.recordings.words import Terms

WINDOW = 64  # frames of a clip in configs/own.py
# With so many videos, in which each part is put on wrong so often, F1 is near the best that was
# measured (benchmarks/results/own-product-videos.md).
ENOUGH_VIDEOS, ENOUGH_WRONG = 6, 2


def check(
    procedure: Procedure, labels: str | Path, terms: Terms, window: int
) -> tuple[list[str], list[str]]:
    """Reads all labels, counts what is in them and warns of what looks wrong.

    Returns the table of recordings and of each part's steps, and the warnings, a line each;
    ValueError has all errors in the labels.
    """
    recordings, steps = Counter[str](), Counter[int]()
    found: list[tuple[str, agreement.LabelWarning]] = []
    empty: list[str] = []

    def look(name: str, place: LabelPlace) -> None:
        variant = procedure.variant_for(name)
        read = place.read(procedure, variant, terms=terms, recording=name)
        recordings[variant.name] += 1
        steps.update(step for _, step in read.with_errors)
        warnings = agreement.of_labels(procedure, variant, read, window)
        found.extend((name, warning) for warning in warnings)
        empty.extend(agreement.without_steps(variant, read, place))

    for_each(find.find(labels).items(), look)
    lines = empty + _never_seen(procedure, recordings, steps)
    lines += agreement.group_warnings(found, procedure.fps)
    lines += _too_few(procedure, recordings, steps)
    return _table(procedure, recordings, steps), lines


def _never_seen(procedure: Procedure, recordings: Counter[str], steps: Counter[int]) -> list[str]:
    expected = {step: None for name in recordings for step in procedure.variants[name].expected}
    lines = [
        f"variant {name} has no recording" for name in procedure.variants if name not in recordings
    ]
    unseen = [procedure.step_name(step) for step in sorted(expected) if not steps[step]]
    if unseen:
        lines.append(f"expected, but in no recording: {', '.join(unseen)}")
    return lines


def _too_few(procedure: Procedure, recordings: Counter[str], steps: Counter[int]) -> list[str]:
    lines = []
    if recordings.total() < ENOUGH_VIDEOS:
        lines.append(f"{recordings.total()} recordings; our measurements suggest {ENOUGH_VIDEOS}")
    few = {
        name: steps[3 * k + 1]
        for k, name in enumerate(procedure.components)
        if steps[3 * k + 1] < ENOUGH_WRONG
    }
    if few:
        named = ", ".join(f"{name} {count}" for name, count in few.items())
        lines.append(
            f"few incorrect installations of {named}; our measurements suggest {ENOUGH_WRONG} or "
            "more of each part: film rehearsals"
        )
    return lines


def _table(procedure: Procedure, recordings: Counter[str], steps: Counter[int]) -> list[str]:
    named = ", ".join(f"{name} {count}" for name, count in sorted(recordings.items()))
    width = max(map(len, procedure.components))
    lines = [
        f"{recordings.total()} recordings ({named}), {steps.total()} steps",
        f"{'part':<{width}}  installed  incorrect  removed",
    ]
    for k, name in enumerate(procedure.components):
        counts = [steps[3 * k + i] for i in range(3)]
        lines.append(f"{name:<{width}}  {counts[0]:>9}  {counts[1]:>9}  {counts[2]:>7}")
    return lines
