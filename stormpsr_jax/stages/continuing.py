"""What trained weights saw, and stages that go on from theirs: --remake=continue.

WORKDIR/<stage>/start.safetensors    the weights that a stage goes on from

A stage that goes on takes a share of its steps, config.continue_share, with a schedule that is
shortened as a whole; warm-up and decay too. The old weights are judged on the new data first, so
that a stage never hands on worse ones. Its record lists all trainings that its weights went
through, with the recordings that each of them saw.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import shutil
from pathlib import Path

import jax
import numpy as np

from stormpsr_jax.base import files, results
from stormpsr_jax.base.results import MadeFrom, Record, Training
from stormpsr_jax.stages import provenance
from stormpsr_jax.stages.context import Context
from stormpsr_jax.stages.stage import Stage
from stormpsr_jax.training.checkpoint import BEST
from stormpsr_jax.training.loop import Definition, Params
from stormpsr_jax.weights.parameters import load_params

START = "start.safetensors"
# Of what an earlier training saw as the first, the second must not be made of later: what has been
# learnt from chooses nothing, and what has chosen weights is not scored on.
_LEAKS = (("train", "val"), ("train", "test"), ("val", "test"))


def training(context: Context, stage: Stage, steps: int) -> Training:
    """What a stage that trains now sees."""
    known = provenance.recordings(context)
    splits = dict.fromkeys(split for read in stage.reads(context) for split in read.splits)
    return Training(steps, {split: known[split] for split in splits if split in known})


def has_weights(context: Context, stage: Stage) -> bool:
    """Whether a stage has trained weights, or is on the way to them."""
    folder = context.workdir / stage.name
    there = any((folder / name).is_file() for name in (BEST, START))
    return stage.costly and (there or any((folder / "checkpoints").glob("[0-9]*")))


def other_recordings(context: Context, record: Record) -> list[str]:
    """Says which recordings the last training of weights did not see yet, and which are gone."""
    if not record.trained or not context.has_data:
        return []
    known, found = provenance.recordings(context), []
    for split, names in record.trained[-1].recordings.items():
        now = known.get(split, [])
        for what, some, others in (("new", now, names), ("gone", names, now)):
            if listed := [name for name in some if name not in others]:
                shown = ", ".join(listed[:5]) + (", …" if len(listed) > 5 else "")
                found.append(f"{what} in split {split}: {shown}")
    return found


def leaks(context: Context, stage: Stage, trainings: list[Training]) -> list[str]:
    """Says which recordings weights have learnt from, or were chosen by, that must be unseen.

    Of weights that are kept, the last training saw what is there now: these are all but that one.
    """
    if not trainings or not context.has_data:
        return []
    now = provenance.recordings(context)
    lines = []
    for seen, asked in _LEAKS:
        names = {name for one in trainings for name in one.recordings.get(seen, ())}
        if both := sorted(names & set(now.get(asked, ()))):
            lines.append(
                f"the weights of stage {stage.name!r} saw {', '.join(both)} in split {seen}, and "
                f"now {'they are' if len(both) > 1 else 'it is'} in {asked}; give --remake with "
                f"{stage.name!r} in --config.stages, which trains it anew, or use another --workdir"
            )
    return lines


def find(context: Context, stage: Stage, record: Record) -> tuple[Path, list[Training]] | None:
    """Finds weights that a stage can go on from, and the trainings that they went through."""
    best, start = (context.workdir / stage.name / name for name in (BEST, START))
    if not stage.costly or not context.config[stage.name].steps:
        return None
    known = (record.results or {}).get(f"{stage.name}/{BEST}")
    if known is not None and best.is_file() and files.checksum(best) == known:
        return best, record.trained
    if len(record.trained) > 1 and start.is_file():
        return start, record.trained[:-1]
    return None


def errors(context: Context, stage: Stage, record: Record, now: MadeFrom) -> list[str]:
    """Says why a stage whose data have changed must not go on from its weights."""
    if (found := find(context, stage, record)) is None:
        return []
    sections = ("config", "procedure", "files")
    if others := results.differences(record.made_from, now, sections):
        return [
            f"--remake=continue: stage {stage.name!r} has other things changed than its data "
            f"({'; '.join(others)}); give --remake, which trains it anew, or use another --workdir"
        ]
    return leaks(context, stage, found[1])


def begin(folder: Path, weights: Path, record: Record) -> None:
    """Empties a stage's folder but for the weights that it goes on from, and its new record.

    In an order in which nothing is lost when it is interrupted: the old record and weights count
    until all else is gone.
    """
    if weights.name != START:
        with files.replacing(folder / START) as part:
            shutil.copyfile(weights, part)
    for path in folder.iterdir():
        if path.name not in (results.RECORD, BEST, START):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    results.write(folder, record)
    (folder / BEST).unlink(missing_ok=True)


def prepared(context: Context, stage: Stage) -> Context:
    """The context in which a stage trains: with fewer steps, if it goes on from old weights.

    Its schedule is as much shorter.
    """
    record = provenance.read(context.workdir / stage.name)
    if record is None or len(record.trained) < 2:
        return context
    steps, config = record.trained[-1].steps, context.config.copy_and_resolve_references()
    with config.unlocked():
        section = config[stage.name]
        warmup = section.optimizer.warmup_steps * (steps / section.steps)
        section.steps, section.optimizer.warmup_steps = steps, round(warmup)
    start = context.workdir / stage.name / START
    return dataclasses.replace(
        context, config=config, adapt=lambda definition: going_on(definition, start)
    )


def going_on(definition: Definition, start: Path) -> Definition:
    """What trains on from the weights in a file; ValueError if they are of another network."""

    def init() -> tuple[Params, Params]:
        with contextlib.redirect_stdout(io.StringIO()):  # where fresh weights come from
            fresh = definition.init()
        found = load_params(start)
        there, wanted = (jax.tree.map(np.shape, weights[0]) for weights in (found, fresh))
        if there != wanted:
            raise ValueError(
                f"{start}: the data now ask for another network than the one that these weights "
                "are of; give --remake, which trains it anew"
            )
        return found

    return dataclasses.replace(definition, init=init, evaluate_start=True)
