"""Trained stages that go on from their old weights after a change of the data: --remake=continue.

WORKDIR/<stage>/start.safetensors    the weights that a stage goes on from

They take a share of the stage's steps, config.continue_share, with a schedule that is shortened as
a whole; warm-up and decay too. The old weights are judged on the new data first, so that a stage
never hands on worse ones. Its record lists all trainings that its weights went through, with the
recordings that each of them saw.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from stormpsr_jax.base import files
from stormpsr_jax.stages import provenance
from stormpsr_jax.stages.context import Context
from stormpsr_jax.stages.provenance import START, Training
from stormpsr_jax.stages.stage import Stage
from stormpsr_jax.training.checkpoint import BEST
from stormpsr_jax.training.loop import Definition, Params
from stormpsr_jax.weights.parameters import load_params

# Of what an earlier training saw as the first, the second must not be made of later: what has been
# learnt from chooses nothing, and what has chosen weights is not scored on.
_LEAKS = (("train", "val"), ("train", "test"), ("val", "test"))


def find(
    context: Context, stage: Stage, record: Mapping[str, Any]
) -> tuple[Path, list[Training]] | None:
    """Finds weights that a stage can go on from: sound ones of a finished training.

    Returns:
        Their file, and the trainings that they went through; None if there are none.
    """
    folder = context.workdir / stage.name
    if not stage.costly or not context.config[stage.name].steps:
        return None
    known = record.get("results", {}).get(f"{stage.name}/{BEST}")
    best = folder / BEST
    if known is not None and best.is_file() and files.checksum(best) == known:
        return best, record["trained"]
    if len(record["trained"]) > 1 and (folder / START).is_file():
        return folder / START, record["trained"][:-1]
    return None


def mistakes(context: Context, stage: Stage) -> list[str]:
    """Says why a stage whose data have changed must not go on from its weights."""
    record = provenance.read(context.workdir / stage.name)
    if record is None or (found := find(context, stage, record)) is None:
        return []
    now = provenance.made_from(context, stage)
    others = provenance.changes(record, now, ("config", "procedure"))
    if "data" in now:  # where the checksums of files stand that the config names
        before = record["made_from"].get("data", {})
        names = [provenance.of_file(field) for field in stage.file_fields]
        others += [f"other {name}" for name in names if before.get(name) != now["data"].get(name)]
    advice = "give --remake, which trains it anew, or use another --workdir"
    if others:
        return [
            f"--remake=continue: stage {stage.name!r} has other things changed than its data "
            f"({'; '.join(others)}); {advice}"
        ]
    if not found[1]:
        return [
            f"--remake=continue: the record of stage {stage.name!r} does not say which recordings "
            f"its weights saw; {advice}"
        ]
    return leaks(context, stage, found[1])


def kept_leaks(context: Context, stage: Stage, record: Mapping[str, Any]) -> list[str]:
    """Says what is wrong with weights that are kept as they are: see `leaks`.

    Their last training saw what is there now, or they would not be kept.
    """
    return leaks(context, stage, record["trained"][:-1])


def leaks(context: Context, stage: Stage, trainings: list[Training]) -> list[str]:
    """Says which recordings weights have learnt from, or were chosen by, that must be unseen."""
    if not context.has_data:
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


def steps(context: Context, stage: Stage) -> int:
    """How many steps a stage takes that goes on."""
    return max(1, round(context.config[stage.name].steps * context.config.continue_share))


def begin(folder: Path, weights: Path, record: Mapping[str, Any]) -> None:
    """Empties a stage's folder but for the weights that it goes on from, and its new record.

    In an order in which nothing is lost when it is interrupted: the old record counts until all is
    gone that does not fit the new one.
    """
    if weights.name != START:
        with files.replacing(folder / START) as part:
            shutil.copyfile(weights, part)
    files.write_json(folder / provenance.MADE_FROM, record)
    last = (folder / provenance.DONE, folder / BEST)
    for path in folder.iterdir():
        if path in (*last, folder / START, folder / provenance.MADE_FROM):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    for path in last:
        path.unlink(missing_ok=True)


def prepared(context: Context, stage: Stage) -> Context:
    """The context in which a stage trains: with fewer steps, if it goes on from old weights."""
    record = provenance.read(context.workdir / stage.name)
    if record is None or len(record["trained"]) < 2:
        return context
    config = shortened(context.config, stage.name, record["trained"][-1].steps)
    start = context.workdir / stage.name / START
    return dataclasses.replace(
        context, config=config, adapt=lambda definition: going_on(definition, start)
    )


def shortened(config: ConfigDict, name: str, number: int) -> ConfigDict:
    """A config in which a stage takes so many steps, and its schedule is as much shorter."""
    short = config.copy_and_resolve_references()
    with short.unlocked():
        section = short[name]
        share = number / section.steps
        section.steps = number
        section.optimizer.warmup_steps = round(section.optimizer.warmup_steps * share)
    return short


def going_on(definition: Definition, start: Path) -> Definition:
    """What trains on from the weights in a file; ValueError if they are of another network."""

    def init() -> tuple[Params, Params]:
        with contextlib.redirect_stdout(io.StringIO()):  # where fresh weights come from
            fresh = definition.init()
        found = load_params(start)
        there, wanted = map(_shapes, (found, fresh))
        differing = [name for name in there | wanted if there.get(name) != wanted.get(name)]
        if differing:
            name = differing[0]
            raise ValueError(
                f"{start}: the data now ask for another network than the one that these weights "
                f"are of ({len(differing)} arrays differ: {name} {there.get(name, 'absent')}, now "
                f"{wanted.get(name, 'absent')}); give --remake, which trains it anew"
            )
        return found

    return dataclasses.replace(definition, init=init, evaluate_start=True)


def _shapes(weights: tuple[Params, Params]) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree_util.tree_leaves_with_path(weights[0])
    return {jax.tree_util.keystr(path): np.shape(leaf) for path, leaf in leaves}
