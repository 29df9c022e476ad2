"""Tables of figures over seeds: mean ± standard deviation, beside published ones where known."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

KEYS = ("pos", "f1", "delay_s")  # of a stream
# Heading and format of each figure.
_HEADINGS = {
    "validation_pos": ("validation POS", ".3f"),
    "validation_f1": ("validation F1", ".3f"),
    "validation_delay_s": ("validation delay, s", ".1f"),
    "pos": ("POS", ".3f"),
    "f1": ("F1", ".3f"),
    "delay_s": ("delay, s", ".1f"),
    "accepted": ("false acceptances", ".1f"),
    "ap": ("AP@50, boxed frames", ".3f"),
    "ap_all": ("AP@50, all frames", ".3f"),
    "live": ("one by one", ".1f"),
    "batch": ("in batches", ".1f"),
}


def spread(
    text: str,
    found: Sequence[Mapping[str, float | None]],
    keys: Sequence[str],
    published: Mapping[str, float | None] | None = None,
) -> dict[str, Any]:
    """A row of a table: mean and standard deviation over the seeds in which a figure is defined.

    `found` are the figures of each seed, `keys` those of the columns.
    """
    defined = {key: [v for f in found if (v := f[key]) is not None] for key in keys}
    return {
        "text": text,
        "seeds": len(found),
        "mean": {key: statistics.fmean(v) if v else None for key, v in defined.items()},
        "std": {key: statistics.stdev(v) if len(v) > 1 else None for key, v in defined.items()},
        "published": {key: (published or {}).get(key) for key in keys},
    }


def markdown(content: Mapping[str, Any]) -> str:
    """A table for people, such as of `paper_results.content`."""
    columns = content["columns"]
    known = [c for c in columns if any(r["published"][c] is not None for r in content["rows"])]
    headings = [_HEADINGS[c][0] for c in columns] + [f"published {_HEADINGS[c][0]}" for c in known]
    head = ["", *headings, "seeds"]
    lines = [f"## {content['title']}", "", f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for row in content["rows"]:
        cells = [_cell(row["mean"][c], row["std"][c], _HEADINGS[c][1]) for c in columns]
        cells += [_cell(row["published"][c], None, _HEADINGS[c][1]) for c in known]
        lines.append(f"| {' | '.join([row['text'], *cells, str(row['seeds'])])} |")
    if content["note"]:
        lines += ["", content["note"]]
    return "\n".join(lines) + "\n"


def _cell(value: float | None, std: float | None, form: str) -> str:
    if value is None:
        return "–"
    return f"{value:{form}}" + ("" if std is None else f" ± {std:{form}}")
