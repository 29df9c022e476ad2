"""The figures of the paper's tables, from finished runs."""

import dataclasses
import functools
import itertools
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from stormpsr_jax.base import files
from stormpsr_jax.experiments import paper_plan
from stormpsr_jax.experiments.paper_plan import TABLES, Entry
from stormpsr_jax.experiments.runs import Run, Runs
from stormpsr_jax.psr import analysis, headline, streams
from stormpsr_jax.recordings.evaluation_set import load_recordings
from stormpsr_jax.serving.folder import load_model
from stormpsr_jax.serving.frames import stack
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
    "live": ("one by one", ".1f"),
    "batch": ("in batches", ".1f"),
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


_SETTINGS = (
    "by the papers' settings (of other products T is 6, or 1 if 6 finds no step on validation; on "
    "**test** for streams of which the run itself predicts nothing on validation)"
)


def content(
    table: str, runs: Runs, seeds: Sequence[int], asd: Path | None = None
) -> dict[str, Any]:
    """A table as WORKDIR/tables/<table>.json has it, of runs by (variant, seed) that are finished.

    `asd`: detections from elsewhere. "rendered" says whether the recordings are. Each of "rows" has
    "text", "seeds" (how many have it), "mean" and "std" by column, and "published" by column (None
    where it is not known).
    """
    plan = TABLES[table]
    (run, *_) = runs.values()
    procedure = run.opened.procedure.name
    if plan.rows:
        chosen = paper_plan.rows_of(plan, run.config, procedure, asd is not None)
        rows = [_row(row, runs, seeds, procedure, asd) for row in chosen]
        where = "" if asd is None else f"Detections of --asd: {asd}, {_SETTINGS}."
        note = f"{plan.note} {where}".strip()
        table_content = {"columns": list(KEYS), "rows": rows, "note": note}
    else:
        base = [runs[paper_plan.BASE, seed] for seed in seeds if (paper_plan.BASE, seed) in runs]
        table_content = _detector(base, procedure) if table == "detector" else _speed(base[0])
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


def _row(
    row: Entry, runs: Runs, seeds: Sequence[int], procedure: str, asd: Path | None
) -> dict[str, Any]:
    there = [runs[row.variant, seed] for seed in seeds if (row.variant, seed) in runs]
    if row.given and row.stream == streams.BASELINE.name:
        there = there[:1]  # no network of ours has a part in it, so seeds do not differ
    found = [figures(run, row, asd) for run in there]
    published = dict(zip(KEYS, row.published.get(procedure, ()), strict=False))
    return spread(row.text, found, KEYS, published)


def figures(run: Run, row: Entry, asd: Path | None = None) -> dict[str, float | None]:
    """POS, F1 and delay in seconds of a row, means over the recordings of the test split."""
    decoder = row.decoder or run.config.evaluate.decoder
    changed = {"threshold": row.threshold, "confidence": row.confidence}
    others = tuple((key, value) for key, value in changed.items() if value is not None)
    if row.given:
        result = _decoded(run, decoder, others, asd)
    elif decoder == run.config.evaluate.decoder and not others:
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
def _decoded(
    run: Run, decoder: str, others: tuple[tuple[str, float], ...] = (), asd: Path | None = None
) -> dict[str, Any]:
    """The predictions of a run by another decoder, chosen as the run chooses, or by `others`.

    With detections from elsewhere, by the settings of the papers (`_SETTINGS`): of those there
    are none of the validation split to choose others on.
    """
    opened, evaluation = run.opened, run.stages["evaluate"]
    assert isinstance(evaluation, Evaluation)
    val, test = (read_split(opened, split, False) for split in ("val", "test"))
    if asd is None:
        chosen = evaluation.chosen_by(opened, val, decoder)
    else:
        test = read_split(opened, "test", False, asd)
        fixed = evaluation.chosen_by(opened, test, decoder, choose="paper")
        fixed |= evaluation.chosen_by(opened, val, decoder, choose="paper")  # of all that val has
        # What confidences mean would be learnt from what is scored.
        chosen = {name: dataclasses.replace(c, calibration=None) for name, c in fixed.items()}
    settings = {name: dataclasses.replace(c.settings, **dict(others)) for name, c in chosen.items()}
    chosen = {name: dataclasses.replace(c, settings=settings[name]) for name, c in chosen.items()}
    return evaluation.scored(opened, test, chosen)


def check_given(asd: Path, run: Run) -> None:
    """Raises ValueError if detections from elsewhere are not those of the test split of a run."""
    data = run.opened.data
    if data.is_there:  # stage `data` makes it, or a line of its own says that it is missing
        load_recordings(data.procedure, data.label_files("test"), asd)


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


def _speed(run: Run) -> dict[str, Any]:
    """Frames a second of the paper's streams, whole windows included.

    Pictures are noise of 720 × 1280 pixels, in memory. One by one, they are brought to the sizes
    that the networks look at, as those of a camera are; in batches they have these sizes already.
    """
    model = load_model(run.folder / "model")
    pictures = np.random.default_rng(0).integers(0, 256, (4, 720, 1280, 3), np.uint8)
    columns, rows = ["live", "batch"], []
    for stream in (name for name in model.streams if not streams.find(name).fitted):
        live = model.live(variant=next(iter(model.procedure.variants)), stream=stream).update
        sized = [*map(model.preparing(stream), pictures)]
        chunk = stack([sized[i % len(sized)] for i in range(model.batch)])
        shown = ((pictures[n % len(pictures)], n / model.fps) for n in itertools.count())
        parts = ((range(n, n + model.batch), chunk) for n in itertools.count(0, model.batch))
        chunks = _rate(next, itertools.repeat((model.frames(stream=stream).over(parts),)))
        rates = {"live": _rate(live, shown), "batch": model.batch * chunks}
        published = {"batch": paper_plan.SPEED_PUBLISHED.get(stream)}
        rows.append(spread(stream, [rates], columns, published))
    device = f"{len(jax.devices())} × {jax.devices()[0].device_kind}"
    note = f"Frames a second on {device}; published: on an A100."
    return {"columns": columns, "rows": rows, "note": note}


def _rate(call: Callable[..., Any], arguments: Iterator[tuple]) -> float:
    """Calls a second in three of them; the first call, which compiles, is not counted."""
    call(*next(arguments))
    start, count = time.perf_counter(), 0
    while (passed := time.perf_counter() - start) < 3:
        call(*next(arguments))
        count += 1
    return count / passed
