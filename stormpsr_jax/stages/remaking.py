"""Which stages a run makes again, and why; what becomes of what they made before.

Trained weights that depend on a change are not thrown away unasked. With "anew" they are, with
"continue" they are trained on from, see `continuing`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stormpsr_jax.base import files, results
from stormpsr_jax.base.errors import raise_all
from stormpsr_jax.base.results import MadeFrom, Record
from stormpsr_jax.stages import continuing, provenance
from stormpsr_jax.stages.context import Context
from stormpsr_jax.stages.stage import Stage

ANEW, CONTINUE = "anew", "continue"


def stale(context: Context, stages: Sequence[Stage]) -> dict[Stage, list[str]]:
    """Says which of the stages that have been made would be made again, and why.

    A stage also counts if one before it will have another result.
    """
    again: dict[Stage, list[str]] = {}
    for stage in stages:
        record = provenance.read(context.workdir / stage.name)
        if record is None or (record.facts.get("damage") and not stage.costly):
            continue  # what is damaged may come out as it was
        why = provenance.changes(record, provenance.made_from(context, stage))
        why += continuing.other_recordings(context, record) if why else []
        before = [other for other in again if other.makes_data or other in stage.after(context)]
        if why := why + [f"{other.name} is made again" for other in before]:
            again[stage] = why
    return again


def check(context: Context, stages: Sequence[Stage], remake: str) -> None:
    """Raises ValueError for results that the stages of a run must not use, or throw away."""
    again, needed, found = stale(context, stages), [*stages], []
    for stage in needed:  # and what they come after, which is added on the way
        needed += [other for other in stage.after(context) if other not in needed]
        record = provenance.read(context.workdir / stage.name)
        if record is None:
            continue
        if stage not in stages and any(stage in other.after(context) for other in stages):
            found += _unusable(context, stage, record)
        if stage in again and remake == CONTINUE:
            now = provenance.made_from(context, stage)
            found += continuing.errors(context, stage, record, now)
        if stage not in again and not (stage in stages and remake == ANEW):
            found += continuing.leaks(context, stage, record.trained[:-1])
    raise_all(found)
    if not remake:
        _ask(context, again)


def _unusable(context: Context, stage: Stage, record: Record) -> list[str]:
    """Says why the result of a stage that is left out cannot be used as it is."""
    which = f"the result of stage {stage.name!r} in {context.workdir}"
    add = f"add {stage.name!r} to --config.stages"
    if why := provenance.changes(record, provenance.made_from(context, stage)):
        return [f"{which} was made from something else ({_first(why)}); {add}, or undo the change"]
    if why := results.damage(context.workdir, record):
        return [f"{which} cannot be used ({_first(why)}); {add}, which makes it again"]
    return []


def _ask(context: Context, again: Mapping[Stage, Sequence[str]]) -> None:
    """Raises ValueError if trained weights are among what is to be made again."""
    trained = [stage for stage in again if continuing.has_weights(context, stage)]
    if trained:
        lost = ", ".join(f"{stage.name} ({'; '.join(again[stage])})" for stage in trained)
        others = ", ".join(stage.name for stage in again if stage not in trained)
        raise ValueError(
            f"this would throw the weights in {context.workdir} away and train again: {lost}; "
            + (f"then {others} would be made again; " if others else "")
            + "give --remake=continue to train on from them where other data are all that has "
            "changed, --remake to train anew, or another --workdir to keep them"
        )


def _first(reasons: Sequence[str]) -> str:
    more = f" and {len(reasons) - 3} more" if len(reasons) > 3 else ""
    return "; ".join(reasons[:3]) + more


def prepare(context: Context, stage: Stage, remake: str, others: Sequence[Path]) -> bool:
    """Clears what is not to be kept of a stage; returns whether all of it is.

    Raises:
        ValueError: weights that depend on a change, without `remake`, or that have seen what they
            must not have.
    """
    folder = context.workdir / stage.name
    now = provenance.made_from(context, stage)
    if (other := _take_over(context, stage, now, others)) is not None:
        print(f"{stage.name}: taken over from {other}", flush=True)
    before = provenance.read(folder)
    trained = before.trained if before else []
    if before is not None:
        changed = provenance.changes(before, now)
        if changed and not remake:
            _ask(context, {stage: changed})
        why = changed + results.damage(context.workdir, before)
        if not why and (leaks := continuing.leaks(context, stage, trained[:-1])):
            if remake != ANEW:
                raise_all(leaks)
            why = ["its weights saw recordings that are in another split now"]
        if not why and before.results is not None:
            return True
        if remake == ANEW and before.results is None and len(trained) > 1:
            why.append("it went on from older weights")
        found = None
        if why and (remake == CONTINUE or (len(trained) > 1 and not changed and not remake)):
            raise_all(continuing.errors(context, stage, before, now))
            found = continuing.find(context, stage, before)
        if found is not None:
            weights, trained = found
            steps = max(1, round(context.config[stage.name].steps * context.config.continue_share))
            print(
                f"{stage.name}: goes on from its weights for {steps} steps ({_first(why)})",
                flush=True,
            )
            trained = [*trained, continuing.training(context, stage, steps)]
            continuing.begin(folder, weights, Record(now, trained))
            return False
        if why:
            print(f"{stage.name}: made again ({_first(why)})", flush=True)
            if not (stage.makes_data and context.config.data.dir):  # a user's
                for name in reversed(stage.folders):
                    files.remove(context.workdir / name)
            trained = []
    if stage.costly and not trained:
        trained = [continuing.training(context, stage, context.config[stage.name].steps)]
    results.write(folder, Record(now, trained))
    return False


def claim(context: Context, stage: Stage, folder: Path, held: contextlib.ExitStack) -> bool:
    """Locks a stage that several runs may have, until `held` is closed; False if another has.

    Args:
        context: of the run, in which the stages before this one are finished.
        stage: to be made.
        held: is given the lock.
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
    context: Context, stage: Stage, now: MadeFrom, others: Sequence[Path]
) -> Path | None:
    """Links a stage that another work folder has finished, made from the very same.

    Returns:
        That work folder; None if there is none, or the run has made the stage itself, or has begun
        it in another way.
    """
    own = context.workdir / stage.name
    if not stage.taken_over or (own.exists() and not _begun(own, now)):
        return None
    for other in others:
        if is_made(other, stage, now):
            # Its record, which says that it is finished, comes last.
            for name in stage.folders:
                if (other / name).is_dir():
                    results.link(other / name, context.workdir / name)
            return other
    return None


def _begun(folder: Path, now: MadeFrom) -> bool:
    """Whether a stage was begun, from just this and from no older weights, and not finished."""
    record = provenance.read(folder)
    if record is None or record.results is not None or len(record.trained) > 1:
        return False
    return not provenance.changes(record, now)


def is_made(workdir: Path, stage: Stage, now: MadeFrom) -> bool:
    """Whether a work folder has finished a stage, made from just this and from no older weights."""
    record = provenance.read(workdir / stage.name)
    if record is None or record.results is None or len(record.trained) > 1:
        return False
    return None not in now["stages"].values() and not provenance.changes(record, now)


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
