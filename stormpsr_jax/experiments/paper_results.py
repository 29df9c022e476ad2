"""The figures of the paper's tables, from finished runs."""

import dataclasses
import functools
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from stormpsr_jax.base import files
from stormpsr_jax.experiments import paper_plan
from stormpsr_jax.experiments.paper_plan import TABLES, Entry
from stormpsr_jax.experiments.runs import Run, Runs
from stormpsr_jax.psr import analysis, headline
from stormpsr_jax.stages.evaluate import Evaluation
from stormpsr_jax.stages.predict import read_split

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
}


def spread(
    text: str,
    of_seeds: Sequence[Mapping[str, float | None]],
    keys: Sequence[str],
    published: Mapping[str, float | None] | None = None,
) -> dict[str, Any]:
    """A row of a table: mean and standard deviation over the seeds in which a figure is defined.

    `of_seeds` are the figures of each seed, `keys` those of the columns.
    """
    defined = {key: [v for f in of_seeds if (v := f[key]) is not None] for key in keys}
    return {
        "text": text,
        "seeds": len(of_seeds),
        "mean": {key: statistics.fmean(v) if v else None for key, v in defined.items()},
        "std": {key: statistics.stdev(v) if len(v) > 1 else None for key, v in defined.items()},
        "published": {key: (published or {}).get(key) for key in keys},
    }


def markdown(content: Mapping[str, Any]) -> str:
    """A table for people, such as of `paper_results.content`."""
    columns = content["columns"]
    published = [c for c in columns if any(r["published"][c] is not None for r in content["rows"])]
    headings = [_HEADINGS[c][0] for c in columns] + [
        f"published {_HEADINGS[c][0]}" for c in published
    ]
    head = ["", *headings, "seeds"]
    lines = [f"## {content['title']}", "", f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for row in content["rows"]:
        cells = [_cell(row["mean"][c], row["std"][c], _HEADINGS[c][1]) for c in columns]
        cells += [_cell(row["published"][c], None, _HEADINGS[c][1]) for c in published]
        lines.append(f"| {' | '.join([row['text'], *cells, str(row['seeds'])])} |")
    if content["note"]:
        lines += ["", content["note"]]
    return "\n".join(lines) + "\n"


def _cell(value: float | None, std: float | None, form: str) -> str:
    if value is None:
        return "–"
    return f"{value:{form}}" + ("" if std is None else f" ± {std:{form}}")


def content(table: str, runs: Runs, seeds: Sequence[int]) -> dict[str, Any]:
    """A table as WORKDIR/tables/<table>.json has it, of runs by (variant, seed) that are finished.

    "rendered" says whether the recordings are. Each of "rows" has "text", "seeds" (how many have
    it), "mean" and "std" by column, and "published" by column (None where it is not known).
    """
    plan = TABLES[table]
    (run, *_) = runs.values()
    procedure = run.opened.procedure.name
    if plan.rows:
        chosen = [row for row in plan.rows if row.only in ("", procedure)]
        rows = [_row(row, runs, seeds, procedure) for row in chosen]
        table_content = {"columns": list(KEYS), "rows": rows, "note": plan.note}
    else:
        base = [runs[paper_plan.BASE, seed] for seed in seeds if (paper_plan.BASE, seed) in runs]
        table_content = _detector(base, procedure)
    origin = files.read_json(run.folder / "model" / "model.json")["origin"]["data"]
    if origin["rendered"]:
        world = "Our figures are of **rendered** recordings, and none of real ones."
        table_content["note"] = f"{world} {table_content['note']}".strip()
    return {
        "table": table,
        "title": plan.title,
        "procedure": procedure,
        "rendered": origin["rendered"],
        "seeds": list(seeds),
        **table_content,
    }


def _row(row: Entry, runs: Runs, seeds: Sequence[int], procedure: str) -> dict[str, Any]:
    there = [runs[row.variant, seed] for seed in seeds if (row.variant, seed) in runs]
    published = dict(zip(KEYS, row.published.get(procedure, ()), strict=False))
    return spread(row.text, [figures(run, row) for run in there], KEYS, published)


def figures(run: Run, row: Entry) -> dict[str, float | None]:
    """POS, F1 and delay in seconds of a row, means over the recordings of the test split."""
    decoder = row.decoder or run.config.evaluate.decoder
    changed = {"threshold": row.threshold, "confidence": row.confidence}
    others = tuple((key, value) for key, value in changed.items() if value is not None)
    if decoder == run.config.evaluate.decoder and not others:
        result = analysis.load_result(run.folder / "metrics.json")
    else:
        result = _decoded(run, decoder, others)
    recordings = [
        entry
        for entry in result["streams"][row.stream]["recordings"].values()
        if row.errors is None or entry["contains_errors"] == row.errors
    ]
    found = headline.over_recordings(recordings, statistics.fmean)
    return {key: found[key] for key in KEYS}


@functools.lru_cache
def _decoded(run: Run, decoder: str, others: tuple[tuple[str, float], ...]) -> dict[str, Any]:
    """The predictions of a run by another decoder, chosen as the run chooses, or by `others`."""
    opened, evaluation = run.opened, run.stages["evaluate"]
    assert isinstance(evaluation, Evaluation)
    val, test = (read_split(opened, split, False) for split in ("val", "test"))
    chosen = {
        name: dataclasses.replace(c, settings=dataclasses.replace(c.settings, **dict(others)))
        for name, c in evaluation.chosen_by(opened, val, decoder).items()
    }
    return evaluation.scored(opened, test, chosen)


def _detector(runs: Sequence[Run], procedure: str) -> dict[str, Any]:
    """All classes, then each one that occurs, of detections.json."""
    paths = [run.folder / "detections.json" for run in runs]
    results_of = [files.read_json(path) for path in paths if path.is_file()]
    columns = ["ap", "ap_all"]
    published = {"ap": paper_plan.DETECTOR_PUBLISHED.get(procedure)}
    means = [{"ap": result["map"], "ap_all": result["map_all"]} for result in results_of]
    rows = [spread("all classes (mAP)", means, columns, published)]
    for i, of_class in enumerate(results_of[0]["classes"] if results_of else ()):
        if of_class["boxes"]:
            by_seed = [result["classes"][i] for result in results_of]
            rows.append(spread(of_class["name"], by_seed, columns))
    note = "On frames with a box, and on all annotated frames."
    return {"columns": columns, "rows": rows, "note": note}
