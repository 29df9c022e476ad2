"""Which stages a run makes again, and why; what becomes of what they made before.

Trained weights that depend on a change are not thrown away unasked: `--remake` throws them away.
What other code of the package has made is kept, and a line says so; `--remake` makes that again
too. A record lists all trainings that its weights went through, those of the weights that they
started from too, with the recordings that each of them saw.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from stormpsr_jax.base import files, results
from stormpsr_jax.base.errors import raise_all
from stormpsr_jax.base.results import Record, Training
from stormpsr_jax.stages import provenance
from stormpsr_jax.stages.context import Context
from stormpsr_jax.stages.stage import Stage
from stormpsr_jax.training.checkpoint import BEST

# Of what a training before saw as the first, the second must not be made of now: what has been
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
        why = provenance.changes(record, provenance.made_from(context, stage))
        why += _other_recordings(context, record) if why else []
        before = [other for other in again if other.makes_data or other in stage.after(context)]
        if why := why + [f"{other.name} is made again" for other in before]:
            again[stage] = why
    return again


def check(context: Context, stages: Sequence[Stage], remake: bool) -> None:
    """Raises ValueError for results that the stages of a run must not use, or throw away."""
    again, needed, found = stale(context, stages), [*stages], []
    kept: list[str] = []  # though other code made them
    for stage in needed:  # and what they come after, which is added on the way
        needed += [other for other in stage.after(context) if other not in needed]
        used = stage in stages or any(stage in other.after(context) for other in stages)
        record = provenance.read(context.workdir / stage.name)
        if record is not None or stage in stages:
            found += _leaks(context, stage)
        if record is None or not used:
            continue
        if stage not in stages:
            found += _unusable(context, stage, record)
        makes = stage in again or (remake and stage in stages and not _is_users(context, stage))
        if not makes and provenance.is_of_other_code(record):
            kept.append(stage.name)
    raise_all(found)
    if kept:
        remedy = "" if remake else "; --remake makes it again"
        print(f"made by other code of the package, and kept: {', '.join(kept)}{remedy}", flush=True)
    if not remake:
        _ask(context, again)


def _is_users(context: Context, stage: Stage) -> bool:
    """Whether its results are in a folder that no run removes."""
    return bool(stage.makes_data and context.config.data.dir)


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
    trained = [stage for stage in again if _has_weights(context, stage)]
    if trained:
        lost = ", ".join(f"{stage.name} ({'; '.join(again[stage])})" for stage in trained)
        others = ", ".join(stage.name for stage in again if stage not in trained)
        raise ValueError(
            f"this would throw the weights in {context.workdir} away and train again: {lost}; "
            + (f"then {others} would be made again; " if others else "")
            + "give --remake to train anew, or another --workdir to keep them"
        )


def _has_weights(context: Context, stage: Stage) -> bool:
    """Whether a stage has trained weights, or is on the way to them."""
    folder = context.workdir / stage.name
    there = (folder / BEST).is_file() or any((folder / "checkpoints").glob("[0-9]*"))
    return stage.costly and there


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


def _trainings_before(context: Context, stage: Stage) -> list[Training]:
    """Those that the weights went through which a stage starts from, if they are of a run."""
    path = stage.start_file(context)
    record = results.read(path.parent) if path is not None and path.name == BEST else None
    return [] if record is None else record.trained


def _leaks(context: Context, stage: Stage) -> list[str]:
    """Says which recordings the weights that a stage starts from saw, but must not have seen."""
    if not context.has_data or not (trainings := _trainings_before(context, stage)):
        return []
    now = provenance.recordings(context)
    lines = []
    for seen, asked in _LEAKS:
        names = {name for one in trainings for name in one.recordings.get(seen, ())}
        if both := sorted(names & set(now.get(asked, ()))):
            lines.append(
                f"--config.{stage.start}={stage.start_file(context)}: these weights saw "
                f"{', '.join(both)} in split {seen}, and now {'they are' if both[1:] else 'it is'} "
                f"in {asked}; start from other weights, or leave recordings in their splits"
            )
    return lines


def _first(reasons: Sequence[str]) -> str:
    more = f" and {len(reasons) - 3} more" if len(reasons) > 3 else ""
    return "; ".join(reasons[:3]) + more


# --- A stage --------------------------------------------------------------------------------------


def prepare(context: Context, stage: Stage, remake: bool) -> bool:
    """Clears what is not to be kept of a stage; returns whether all of it is.

    Raises:
        ValueError: weights that depend on a change, without `remake`, or that would start from what
            has seen recordings that it must not have seen.
    """
    folder, now = context.workdir / stage.name, provenance.made_from(context, stage)
    raise_all(_leaks(context, stage))
    if (before := provenance.read(folder)) is not None:
        why = provenance.changes(before, now)
        if why and not remake:
            _ask(context, {stage: why})
        if remake and provenance.is_of_other_code(before) and not _is_users(context, stage):
            why.append("other code of the package")
        if not (why := why + results.damage(context.workdir, before)):
            return before.results is not None
        print(f"{stage.name}: made again ({_first(why)})", flush=True)
        if not _is_users(context, stage):
            for name in reversed(stage.folders):
                files.remove(context.workdir / name)
    trained = []
    if stage.costly:
        known = provenance.recordings(context)
        splits = dict.fromkeys(split for read in stage.reads(context) for split in read.splits)
        seen = {split: known[split] for split in splits if split in known}
        own = Training(context.config[stage.name].steps, seen)
        trained = [*_trainings_before(context, stage), own]
    results.write(folder, Record(now, trained))
    return False


def is_made(context: Context, stage: Stage) -> bool:
    """Whether a run has finished a stage, made from what it would be made from now."""
    record = provenance.read(context.workdir / stage.name)
    if record is None or record.results is None:
        return False
    now = provenance.made_from(context, stage)
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
