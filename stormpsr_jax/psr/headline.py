"""The headline figures of a stream: one table that tables, comparisons, reports and files go by.

A new figure is a row of `FIGURES`, and a value under its key in what `metrics.score_recording`
returns for a recording; protocol `released` leaves it undefined, and all else follows.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any


@dataclasses.dataclass(frozen=True)
class Figure:
    """A headline figure.

    Attributes:
        key: under which metrics.json has it, and the column of text tables.
        meaning: a sentence for those who read a report.
        unit: "s" or none.
        decimals: shown for a stream.
        better: "high" or "low"; none for a count, of which no best one is marked.
        mean: whether the figure of a stream is the mean over the recordings in which it is defined;
            otherwise it is a count: the sum over all recordings.
        always: whether every entry has it; otherwise it is shown where entries have it.
    """

    key: str
    label: str
    meaning: str
    unit: str = ""
    decimals: int = 0
    better: str = ""
    mean: bool = False
    always: bool = True

    @property
    def heading(self) -> str:
        """The label with the unit."""
        return f"{self.label} ({self.unit})" if self.unit else self.label


_share = functools.partial(Figure, decimals=3, better="high", mean=True)
_seconds = functools.partial(Figure, unit="s", decimals=1, better="low", mean=True)
_delay = functools.partial(_seconds, "delay_s")
FIGURES = (
    _share(
        "pos",
        "POS",
        "Procedure order similarity: 1 less the edit distance between the recognised and the true "
        "order of steps, by the number of true steps; at least 0.",
    ),
    _share(
        "pos_sets",
        "POS of sets",
        "POS where the steps of one frame are a set: whichever of them comes first is right. It "
        "does not hang on how components are numbered, as POS does.",
        always=False,
    ),
    _share("f1", "F1", "Harmonic mean of precision and recall over steps."),
    _share(
        "f1_tolerant",
        "F1 ±1 s",
        "F1 in which a step recognised at most one second early is correct too.",
    ),
    _delay(
        "Delay",
        "Mean over correct steps of a recording, then over recordings; undefined (–) where there "
        "is none.",
    ),
    _seconds(
        "delay_visible_s",
        "Delay once visible",
        "Delay from the first picture that shows whether the step is done right, which renders "
        "know; below 0 where it is reported before.",
        always=False,
    ),
    Figure("tp", "TP", "True positives: the correct steps."),
    Figure("fp", "FP", "False positives: steps reported early or not done."),
    Figure("fn", "FN", "False negatives: the missed steps."),
)
# Incorrect installations, and correct ones; `wrong_parts` has the definitions. A delay is the mean
# over those found, the others are sums.
_fewer = functools.partial(Figure, better="low")
OF_INCORRECT = (
    Figure("shown", "Incorrect parts", "Incorrect installations, each until it is corrected."),
    _fewer(
        "accepted",
        "Accepted",
        "False acceptances: incorrect installations that were reported as installed.",
    ),
    Figure(
        "found",
        "Found",
        "Incorrect installations that were reported as incorrect before their correction.",
        better="high",
    ),
    _delay(
        "Delay of the found",
        "Time from an incorrect installation to its report, mean over those found.",
    ),
    _fewer(
        "false_alarms",
        "False alarms",
        "Reports of an incorrect installation where there was none at that time.",
    ),
    Figure("unsure", "Incorrect, not sure", "Incorrect installations reported as not sure."),
    _fewer(
        "early",
        "Early",
        "Reports as installed more than 2 s before the part is there, or of a part that nobody "
        "installs.",
    ),
)
OF_CORRECT = (
    Figure("right_installations", "Correct parts", "Correct installations."),
    _fewer(
        "right_called_wrong",
        "Correct reported as incorrect",
        "Correct installations that were reported as incorrect before they ended.",
    ),
    _fewer("right_unsure", "Correct, not sure", "Correct installations reported as not sure."),
    _fewer(
        "no_verdict",
        "Correct, no verdict",
        "Correct installations for which no report as installed stands at their end, whether they "
        "are not sure or nothing was said of them.",
    ),
)
WRONG = (*OF_INCORRECT, *OF_CORRECT)


def figures_of(entries: Iterable[Mapping[str, Any]]) -> tuple[Figure, ...]:
    """Returns the figures that all of these entries, of streams or recordings, have."""
    entries = list(entries)
    return tuple(f for f in FIGURES if f.always or (entries and all(f.key in e for e in entries)))


def means(entries: Iterable[Mapping[str, Any]]) -> tuple[Figure, ...]:
    """Returns those of them that are means."""
    return tuple(figure for figure in figures_of(entries) if figure.mean)


def streams(result: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Returns by name the entries that tables show, by the content of metrics.json.

    A stream with a bar for installations has two: what was seen, "learned (seen)", which is
    comparable with other methods, and what is right, which is reported as done.
    """
    entries: dict[str, Mapping[str, Any]] = {}
    for stream, entry in result["streams"].items():
        if "seen" in entry:
            rows = {name: row | row["seen"] for name, row in entry["recordings"].items()}
            entries[f"{stream} (seen)"] = entry["seen"] | {"recordings": rows}
        entries[stream] = entry
    return entries


def values(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the headline figures, by key, of a stream's or a recording's entry."""
    return {figure.key: entry[figure.key] for figure in figures_of([entry])}


def over_recordings(
    rows: Iterable[Mapping[str, Any]], mean: Callable[[Sequence[float]], float]
) -> dict[str, Any]:
    """Returns the headline figures of a stream from the entries of its recordings, by key.

    `mean` is of at least one number; a mean that is defined in no recording is None.
    """
    rows = list(rows)
    result: dict[str, Any] = {}
    for figure in figures_of(rows):
        defined = [row[figure.key] for row in rows if row[figure.key] is not None]
        if figure.mean:
            result[figure.key] = mean(defined) if defined else None
        else:
            result[figure.key] = sum(defined)
    return result
