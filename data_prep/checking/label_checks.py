"""Checks labels before training: counts, warnings, and what there is too little of."""

from collections import Counter
from pathlib import Path
from typing import Any

import msgspec

from stormpsr_jax.base import files
from stormpsr_jax.base.errors import for_each
from stormpsr_jax.psr import agreement
from stormpsr_jax.psr.files import label_files
from stormpsr_jax.psr.files.words import Terms
from stormpsr_jax.psr.procedure import Procedure

_FILE = Path(__file__).with_name("accuracy_over_videos.json")  # own-product-videos.md
WINDOW = 64  # frames of a clip in configs/own.py
NEARLY = 0.95  # of the highest F1 that was measured


class MeasuredRow(msgspec.Struct):
    """What a number of videos came to.

    Attributes:
        videos: to learn from: `train` of them, and `val` to choose by.
        errors: how often each part is put on wrong in those of train.
        streams: by row of the results F1, POS and so on, as in metrics.json.
    """

    videos: int
    train: int
    val: int
    errors: dict[str, int]
    streams: dict[str, dict[str, Any]]

    @property
    def figures(self) -> dict[str, Any]:
        """Those of the stream that a model folder recognises by."""
        return [*self.streams.values()][-1]

    @property
    def of_a_part(self) -> int:
        """How often a part was put on wrong, on average."""
        return round(sum(self.errors.values()) / len(self.errors))


class Curve(msgspec.Struct):
    """Of which product, with which config, on how many recordings for the test; its rows."""

    product: str
    config: str
    test: int
    rows: list[MeasuredRow]

    @property
    def enough(self) -> MeasuredRow:
        """The fewest videos with nearly the highest F1 that was measured."""
        best = max(row.figures["f1"] for row in self.rows)
        return next(row for row in self.rows if row.figures["f1"] >= NEARLY * best)

    def nearest(self, videos: int) -> MeasuredRow:
        """The row of the most videos that are no more than so many, or else the first row."""
        return [row for row in self.rows if row.videos <= videos or row is self.rows[0]][-1]


def measured() -> Curve:
    """The curve that was measured."""
    return files.fit(files.read_json(_FILE), Curve, str(_FILE))


def check(
    procedure: Procedure, labels: str | Path, terms: Terms, window: int
) -> tuple[list[str], list[str]]:
    """Reads all labels, counts what is in them and warns of what looks wrong.

    Returns:
        The table of recordings and of each part's steps; and the warnings, a line each.

    Raises:
        ValueError: all errors in the labels.
    """
    recordings, steps = Counter[str](), Counter[int]()
    found: list[tuple[str, agreement.LabelWarning]] = []
    empty: list[str] = []

    def look(name: str, place: label_files.Labelled) -> None:
        variant = procedure.variant_for(name)
        read = label_files.read(place, procedure, variant, terms=terms, recording=name)
        recordings[variant.name] += 1
        steps.update(step for _, step in read.with_errors)
        warnings = agreement.of_labels(procedure, variant, read, window)
        found.extend((name, warning) for warning in warnings)
        empty.extend(agreement.without_steps(variant, read, place))

    for_each(label_files.find(labels).items(), look)
    lines = empty + _never_seen(procedure, recordings, steps)
    lines += agreement.grouped(found, procedure.fps)
    lines += _too_few(procedure, recordings, steps, measured())
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


def _too_few(
    procedure: Procedure, recordings: Counter[str], steps: Counter[int], curve: Curve
) -> list[str]:
    """Compares the numbers with the curve that was measured."""
    number, enough = recordings.total(), curve.enough
    lines = []
    if number < enough.videos:
        near = curve.nearest(number)
        of_both = " and ".join(
            f"F1 {row.figures['f1']:.2f} and POS {row.figures['pos']:.2f} with {row.videos}"
            for row in (near, enough)
        )
        lines.append(
            f"{number} recordings; our measurements suggest {enough.videos} "
            f"({curve.product}: {of_both})"
        )
    few = {
        name: steps[3 * k + 1]
        for k, name in enumerate(procedure.components)
        if steps[3 * k + 1] < enough.of_a_part
    }
    if few:
        named = ", ".join(f"{name} {count}" for name, count in few.items())
        wrong = enough.figures["wrong"]
        lines.append(
            f"few incorrect installations of {named}; our {enough.videos} recordings have about "
            f"{enough.of_a_part} of each part, and {wrong['accepted']} of {wrong['shown']} were "
            "still reported as installed: film rehearsals"
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
