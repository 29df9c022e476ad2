"""Which stages a run makes again, and why; what becomes of what they made before.

WORKDIR/<stage>/start.safetensors    the weights that a stage goes on from

Trained weights that depend on a change are not thrown away unasked, and nothing that other sources
made is used or made again unasked. With "anew" it is made again; with "continue" weights are
trained on from, if only data have changed: for a share of the steps, config.continue_share, with a
schedule that is shortened as a whole. The old weights are judged on the new data first, so that a
stage never hands on worse ones. A record lists all trainings that its weights went through, with
the recordings that each of them saw.
"""

import contextlib
import dataclasses
import io
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from stormpsr_jax.base import files, results
from stormpsr_jax.base.errors import raise_all
from stormpsr_jax.base.results import MadeFrom, Record, Training
from stormpsr_jax.stages import provenance
from stormpsr_jax.stages.context import Context
from stormpsr_jax.stages.stage import Stage
from stormpsr_jax.training.checkpoint import BEST
from stormpsr_jax.training.definition import Definition
from stormpsr_jax.training.step import Params
from stormpsr_jax.weights.parameters import load_params

ANEW, CONTINUE = "anew", "continue"
START = "start.safetensors"
# Of what an earlier training saw as the first, the second must not be made of later: what has been
# learnt from chooses nothing, and what has chosen weights is not scored on.
_LEAKS = (("train", "val"), ("train", "test"), ("val", "test"))

# --- Before a run ---------------------------------------------------------------------------------


def stale(context: Context, stages: Sequence[Stage]) -> dict[Stage, list[str]]:
    """Says which of the stages that have been made would be made again, and why.

    A stage also counts if one before it will have another result.
    """
    again: dict[Stage, list[str]] = {}
    for stage in stages:
        record = provenance.read(context.workdir / stage.name)
        if record is None or (record.facts.get("damage") and not stage.costly):
            continue  # what is damaged may come out as it was
        why = provenance.changes(context, stage, record, provenance.made_from(context, stage))
        why += _other_recordings(context, record) if why else []
        before = [other for other in again if other.makes_data or other in stage.after(context)]
        if why := why + [f"{other.name} is made again" for other in before]:
            again[stage] = why
    return again


def check(context: Context, stages: Sequence[Stage], remake: str) -> None:
    """Raises ValueError for results that the stages of a run must not use, or throw away."""
    again, needed, found = stale(context, stages), [*stages], []
    stay: dict[str, list[str]] = {}
    for stage in needed:  # and what they come after, which is added on the way
        needed += [other for other in stage.after(context) if other not in needed]
        record = provenance.read(context.workdir / stage.name)
        used = stage in stages or any(stage in other.after(context) for other in stages)
        if record is None:
            continue
        anew = stage in stages and remake == ANEW
        if used and not record.facts.get("damage"):
            others = provenance.other_sources(stage, record)
            if others and (why := provenance.kept(context, stage, record)):
                stay.setdefault(why, []).append(stage.name)
            elif others and not (anew and not _is_users(context, stage)):
                found.append(_by_other_sources(context, stage, others))
                continue
        if used and stage not in stages:
            found += _unusable(context, stage, record)
        if stage in again and remake == CONTINUE:
            found += _refused(context, stage, record, provenance.made_from(context, stage))
        if stage not in again and not anew:
            found += _leaks(context, stage, record.trained[:-1])
    raise_all(found)
    for why, names in stay.items():
        print(f"made by {why} of the package, and kept: {', '.join(names)}", flush=True)
    if not remake:
        _ask(context, again)


def _is_users(context: Context, stage: Stage) -> bool:
    """Whether its results are in a folder that no run removes."""
    return bool(stage.makes_data and context.config.data.dir)


def _by_other_sources(context: Context, stage: Stage, others: Sequence[str]) -> str:
    remedy = f"--remake with {stage.name!r} in --config.stages, which makes it again"
    if _is_users(context, stage):
        remedy = f"another --config.data.dir (or remove {context.data_dir})"
    return (
        f"stage {stage.name!r} in {context.workdir} was made by {_first(others)}, at the same "
        f"version of the package; give {remedy}, or --keep={stage.name}, which keeps what it made"
    )


def _unusable(context: Context, stage: Stage, record: Record) -> list[str]:
    """Says why the result of a stage that is left out cannot be used as it is."""
    which = f"the result of stage {stage.name!r} in {context.workdir}"
    add = f"add {stage.name!r} to --config.stages"
    now = provenance.made_from(context, stage)
    if why := provenance.changes(context, stage, record, now):
        return [f"{which} was made from something else ({_first(why)}); {add}, or undo the change"]
    if why := results.damage(context.workdir, record):
        return [f"{which} cannot be used ({_first(why)}); {add}, which makes it again"]
    return []


def _ask(context: Context, again: Mapping[Stage, Sequence[str]]) -> None:
    """Raises ValueError if trained weights are among what is to be made again."""
    trained = [stage for stage in again if _has_weights(context, stage)]
    if trained:
        lost = ", ".join(f"{stage.name} ({'; '.join(again[stage])})" for stage in trained)
        others = ", ".join(stage.name for stage in again if stage not in trained)
        raise ValueError(
            f"this would throw the weights in {context.workdir} away and train again: {lost}; "
            + (f"then {others} would be made again; " if others else "")
            + "give --remake=continue to train on from them where other data are all that has "
            "changed, --remake to train anew, or another --workdir to keep them"
        )


def _has_weights(context: Context, stage: Stage) -> bool:
    """Whether a stage has trained weights, or is on the way to them."""
    folder = context.workdir / stage.name
    there = any((folder / name).is_file() for name in (BEST, START))
    return stage.costly and (there or any((folder / "checkpoints").glob("[0-9]*")))


def _other_recordings(context: Context, record: Record) -> list[str]:
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


def _leaks(context: Context, stage: Stage, trainings: Sequence[Training]) -> list[str]:
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


def _first(reasons: Sequence[str]) -> str:
    more = f" and {len(reasons) - 3} more" if len(reasons) > 3 else ""
    return "; ".join(reasons[:3]) + more


# --- A stage --------------------------------------------------------------------------------------


def prepare(context: Context, stage: Stage, remake: str, others: Sequence[Path]) -> bool:
    """Clears what is not to be kept of a stage; returns whether all of it is.

    Raises:
        ValueError: weights that depend on a change, without `remake`, or that have seen what they
            must not have.
    """
    folder, now = context.workdir / stage.name, provenance.made_from(context, stage)
    if (other := _take_over(context, stage, now, remake, others)) is not None:
        print(f"{stage.name}: taken over from {other}", flush=True)
    before, trained = provenance.read(folder), []
    if before is not None:
        trained = before.trained
        changed = provenance.changes(context, stage, before, now)
        if changed and not remake:
            _ask(context, {stage: changed})
        why = changed + results.damage(context.workdir, before)
        if not why and (leaks := _leaks(context, stage, trained[:-1])):
            if remake != ANEW:
                raise_all(leaks)
            why = ["its weights saw recordings that are in another split now"]
        if not why and before.results is None and remake == ANEW and len(trained) > 1:
            why = ["it went on from older weights"]
        if not why:
            if provenance.other_sources(stage, before):  # from now on further ones are seen
                before.kept = {name: now[name] for name in ("package", "sources")}
                results.write(folder, before)
            return before.results is not None
        found = None
        if remake == CONTINUE or (len(trained) > 1 and not changed and not remake):
            raise_all(_refused(context, stage, before, now))
            found = _weights(context, stage, before)
        if found is not None:
            weights, trained = found
            steps = max(1, round(context.config[stage.name].steps * context.config.continue_share))
            print(
                f"{stage.name}: goes on from its weights for {steps} steps ({_first(why)})",
                flush=True,
            )
            begin(folder, weights, Record(now, [*trained, _training(context, stage, steps)]))
            return False
        print(f"{stage.name}: made again ({_first(why)})", flush=True)
        if not _is_users(context, stage):
            for name in reversed(stage.folders):
                files.remove(context.workdir / name)
    trained = []
    if stage.costly:
        trained = [_training(context, stage, context.config[stage.name].steps)]
    results.write(folder, Record(now, trained))
    return False


def _training(context: Context, stage: Stage, steps: int) -> Training:
    """What a stage that trains now sees."""
    known = provenance.recordings(context)
    splits = dict.fromkeys(split for read in stage.reads(context) for split in read.splits)
    return Training(steps, {split: known[split] for split in splits if split in known})


def claim(context: Context, stage: Stage, folder: Path, held: contextlib.ExitStack) -> bool:
    """Locks a stage that several runs may have, until `held` is closed; False if another has.

    The stages before it are finished.
    """
    if not (stage.taken_over or stage.makes_data):
        return True
    data = str(context.data_dir.resolve())
    what = results.of_json(data if stage.makes_data else provenance.made_from(context, stage))
    path = folder / f"{stage.name}-{what[:16]}"
    if (lock := files.open_locked(path, wait=False)) is None:
        print(f"{stage.name}: another run makes it, which has locked {path}", flush=True)
        return False
    held.enter_context(lock)
    return True


def _take_over(
    context: Context, stage: Stage, now: MadeFrom, remake: str, others: Sequence[Path]
) -> Path | None:
    """Links a stage that another work folder has finished, made from the very same.

    Returns:
        That work folder; None if there is none, or the run has made the stage itself and keeps it,
        or has begun it in another way.
    """
    own = context.workdir
    stays = (own / stage.name).exists() and not _is_same(context, stage, now, own, finished=False)
    if remake == ANEW and not is_made(context, stage, now):
        stays = False
    if not stage.taken_over or stays:
        return None
    for other in others:
        if is_made(context, stage, now, other):
            # Its record, which says that it is finished, comes last.
            for name in stage.folders:
                if (other / name).is_dir():
                    results.link(other / name, own / name)
            return other
    return None


def is_made(
    context: Context, stage: Stage, now: MadeFrom | None = None, workdir: Path | None = None
) -> bool:
    """Whether a work folder has finished a stage, made from just this and from no older weights.

    That is the run's own unless another is given, and what the stage would be made from `now`.
    """
    now, workdir = now or provenance.made_from(context, stage), workdir or context.workdir
    known = None not in now["stages"].values()
    return known and _is_same(context, stage, now, workdir, finished=True)


def _is_same(context: Context, stage: Stage, now: MadeFrom, workdir: Path, finished: bool) -> bool:
    record = provenance.read(workdir / stage.name)
    if record is None or (record.results is not None) != finished or len(record.trained) > 1:
        return False
    return not provenance.changes(context, stage, record, now)


def finish(context: Context, stage: Stage, facts: Mapping[str, Any]) -> None:
    """Records that a stage is finished, with the checksums of its results."""
    folder = context.workdir / stage.name
    record = results.read(folder)
    assert record is not None  # `prepare` wrote it
    record.results = results.checksums(context.workdir, stage.result_files(context.workdir))
    record.facts = dict(facts)
    if record.trained and "best_step" in facts:
        record.trained[-1].steps = facts["best_step"]
    results.write(folder, record)


# --- Training on ----------------------------------------------------------------------------------


def _weights(context: Context, stage: Stage, record: Record) -> tuple[Path, list[Training]] | None:
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


def _refused(context: Context, stage: Stage, record: Record, now: MadeFrom) -> list[str]:
    """Says why a stage whose data have changed must not go on from its weights."""
    if (found := _weights(context, stage, record)) is None:
        return []
    sections = ("config", "procedure", "files")
    if others := results.differences(record.made_from, now, sections):
        return [
            f"--remake=continue: stage {stage.name!r} has other things changed than its data "
            f"({'; '.join(others)}); give --remake, which trains it anew, or use another --workdir"
        ]
    return _leaks(context, stage, found[1])


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
        context, config=config, adapt=lambda definition: _going_on(definition, start)
    )


def _going_on(definition: Definition, start: Path) -> Definition:
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
