"""Stage `evaluate`: decode, fuse and score the test split; metrics.json, report.html, a table.

Thresholds, floor and fusion weight are chosen on the validation split alone.
"""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import jax

from stormpsr_jax import report
from stormpsr_jax.figures import analysis_figures
from stormpsr_jax.psr import analysis, decoding, tables
from stormpsr_jax.psr.recordings import LabelledPredictions, load_recordings
from stormpsr_jax.psr.scoring import evaluate_recordings
from stormpsr_jax.psr.select import select
from stormpsr_jax.stages.context import Context
from stormpsr_jax.training.metrics import read_metrics


def run(context: Context) -> None:
    """Writes WORKDIR/metrics.json and WORKDIR/report.html."""
    if jax.process_index() != 0:
        return
    config, workdir = context.config, context.workdir
    val, test = (read_split(context, split) for split in ("val", "test"))
    source = context.source("test")
    base = decoding.Settings(
        decoder=config.evaluate.decoder, decay=config.evaluate.decay, window=config.window.frames
    )
    chosen = select(context.procedure, val, base, source.fps)
    result = evaluate_recordings(
        context.procedure,
        test,
        {stream: choice.settings for stream, choice in chosen.items()},
        fps=source.fps,
    )
    result["split"] = "test"
    result["validation"] = {
        stream: {key: value for key, value in dataclasses.asdict(choice).items() if key != "score"}
        for stream, choice in chosen.items()
    }
    report.write_report(
        workdir / "report.html",
        title=f"STORM-PSR on {context.procedure.name}",
        metrics=result,
        procedure=context.procedure,
        truth={name: r.truth for name, r in test.items()},
        visible={name: r.visibility for name, r in test.items() if r.visibility},
        thumbnails=lambda name, frame: source.jpegs(name, [frame])[0],
        curves={
            stage: read_metrics(workdir / stage / "metrics.jsonl")
            for stage in config.stages
            if (workdir / stage / "metrics.jsonl").exists()
        },
        figures=analysis_figures(result),
        notes=[
            "Thresholds, confidence floor and fusion weight were chosen on the validation split "
            "by one rule for all streams.",
        ],
    )
    part = workdir / "metrics.json.part"
    part.write_text(json.dumps(result, indent=1) + "\n")
    os.replace(part, workdir / "metrics.json")


def show(context: Context) -> None:
    """Prints the table of a finished run, and where to look further."""
    if jax.process_index() == 0:
        result = json.loads((context.workdir / "metrics.json").read_text())
        print(tables.format_rows(analysis.summary_table(result)))
        for note in analysis.notes(result):
            print(note)
        print(f"{context.workdir / 'metrics.json'}\n{context.workdir / 'report.html'}")


def read_split(context: Context, split: str) -> dict[str, LabelledPredictions]:
    """The labels and predictions of a split."""
    folder = context.workdir / "predictions" / split

    def there(name: str) -> Path | None:
        return folder / name if (folder / name).is_dir() else None

    if not there("asd") and not there("temporal"):
        raise ValueError(f"{folder}: no predictions; run stage 'predict' on split {split!r} first")
    return load_recordings(
        context.procedure,
        context.data_dir / "labels" / split,
        there("asd"),
        there("temporal"),
        visibility_dir=there("visibility"),
    )
