"""Which stages a run makes again, and why; what becomes of what they made before.

Trained weights that depend on a change are not thrown away unasked: `--remake` throws them away.
What other code of the package has made is kept, and a line says so; `--remake` makes that again
too. A record lists all trainings that its weights went through, those of the weights that they
started from too, with the recordings that each of them saw.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import stormpsr_jax
from stormpsr_jax.base import files, installed, results
from stormpsr_jax.base.errors import raise_all
from stormpsr_jax.base.results import Record
from stormpsr_jax.configs.default import Config
from stormpsr_jax.stages import config_flag
from stormpsr_jax.stages.rendering import Rendering
from stormpsr_jax.stages.stage import Run, Stage, Training
from stormpsr_jax.training.checkpoint import BEST

# Of what a training before saw as the first, the second must not be made of now: what has been
# learnt from chooses nothing, and what has chosen weights is not scored on.
_LEAKS = (("train", "val"), ("train", "test"), ("val", "test"))


def package() -> dict[str, str]:
    """The version of the package, and the checksum of its code."""
    return {"version": stormpsr_jax.__version__, "digest": installed.code()}


def changes(run: Run, stage: Stage, record: Record) -> list[str]:
    """Says in what a stage was made from something else, for people; code makes no difference."""
    if damage := record.facts.get("damage"):
        return [damage]
    now = stage.made_from(run)
    # A field that a record lacks is newer than it: what was done then is its default. One that it
    # has and its stage takes no more was another stage's, whose result tells.
    on_record = record.made_from.get("config", {})
    # What is no field of the config, and what once was on record of few stages, changed nothing.
    usual = {**now["config"], **_defaults(), "seed": run.config.seed, "dtype": run.config.dtype}
    before = {field: on_record.get(field, usual[field]) for field in now["config"]}
    return results.differences({**record.made_from, "config": before}, now)


@functools.cache
def _defaults() -> dict[str, Any]:
    return config_flag.flat(Config())


def is_made(run: Run, stage: Stage) -> bool:
    """Whether a run has finished a stage, made from what it would be made from now."""
    record = results.found(run.workdir / stage.name)
    if record is None or record.results is None:
        return False
    before = (results.of_results(run.workdir / other.name) for other in stage.after)
    return None not in before and not changes(run, stage, record)


# --- Before a run ---------------------------------------------------------------------------------


def stale(run: Run, stages: Sequence[Stage]) -> dict[Stage, list[str]]:
    """Says which of the stages that have been made would be made again, and why.

    A stage also counts if one before it will have another result.
    """
    again: dict[Stage, list[str]] = {}
    for stage in stages:
        record = results.found(run.workdir / stage.name)
        if record is None or (record.facts.get("damage") and not stage.trains):
            continue  # what is damaged may come out as it was
        before = [o for o in again if isinstance(o, Rendering) or o in stage.after]
        why = changes(run, stage, record) + [f"{other.name} is made again" for other in before]
        if why:
            again[stage] = why
    return again


def check(run: Run, stages: Sequence[Stage], remake: bool) -> None:
    """Raises ValueError for results that the stages of a run must not use, or throw away."""
    again, kept = stale(run, stages), list[str]()
    wrong = [
        f"{run.workdir / stage.name}: leads to the folder of another run, which has not made this "
        "yet; give its command first, or remove the link"
        for stage in stages
        if (run.workdir / stage.name).is_symlink() and not is_made(run, stage)
    ]
    before = [other for stage in stages for other in stage.after if other not in stages]
    needed = [*stages]
    for stage in needed:  # and what they come after, which is added on the way
        needed += [other for other in stage.after if other not in needed]
        record = results.found(run.workdir / stage.name)
        if record is not None or stage in stages:
            wrong += _leaks(run, stage)
        if record is None or stage not in (*stages, *before):
            continue
        if stage in before and (
            why := changes(run, stage, record) or results.damage(run.workdir, record)
        ):
            wrong.append(
                f"the result of stage {stage.name!r} in {run.workdir} cannot be used as it is "
                f"({_first(why)}); add {stage.name!r} to --config.stages, or undo the change"
            )
        makes = stage in again or (remake and stage in stages and not _is_users(run, stage))
        if not makes and _is_of_other_code(record):
            kept.append(stage.name)
    raise_all(wrong)
    if kept:
        remedy = "" if remake else "; --remake makes it again"
        print(f"made by other code of the package, and kept: {', '.join(kept)}{remedy}", flush=True)
    if not remake:
        _ask(run, again)


def _is_of_other_code(record: Record) -> bool:
    return record.made_from.get("package", {}).get("digest") != package()["digest"]


def _is_users(run: Run, stage: Stage) -> bool:
    """Whether its results are in a folder that no run removes."""
    return isinstance(stage, Rendering) and bool(run.config.data.dir)


def _ask(run: Run, again: Mapping[Stage, Sequence[str]]) -> None:
    """Raises ValueError if trained weights, or the way to them, are to be made again."""

    def has_weights(stage: Stage) -> bool:
        folder = run.workdir / stage.name
        there = (folder / BEST).is_file() or any((folder / "checkpoints").glob("[0-9]*"))
        return stage.trains and there

    trained = [stage for stage in again if has_weights(stage)]
    if trained:
        lost = ", ".join(f"{stage.name} ({'; '.join(again[stage])})" for stage in trained)
        others = ", ".join(stage.name for stage in again if stage not in trained)
        raise ValueError(
            f"this would throw the weights in {run.workdir} away and train again: {lost}; "
            + (f"then {others} would be made again; " if others else "")
            + "give --remake to train anew, or another --workdir to keep them"
        )


def _trainings_before(stage: Stage) -> list[results.Training]:
    """Those that the weights went through which a stage starts from, if they are of a run."""
    path = stage.start_file() if isinstance(stage, Training) else None
    record = results.read(path.parent) if path is not None and path.name == BEST else None
    return [] if record is None else record.trained


def _leaks(run: Run, stage: Stage) -> list[str]:
    """Says which recordings the weights that a stage starts from saw, but must not have seen."""
    if not run.data.is_there or not (trainings := _trainings_before(stage)):
        return []
    assert isinstance(stage, Training)  # as it starts from weights
    now = run.data.recordings()
    lines = []
    for seen, asked in _LEAKS:
        names = {name for one in trainings for name in one.recordings.get(seen, ())}
        if both := sorted(names & set(now.get(asked, ()))):
            lines.append(
                f"--config.{stage.start}={stage.start_file()}: these weights saw "
                f"{', '.join(both)} in split {seen}, and now {'they are' if both[1:] else 'it is'} "
                f"in {asked}; start from other weights, or leave recordings in their splits"
            )
    return lines


def _first(reasons: Sequence[str]) -> str:
    more = f" and {len(reasons) - 3} more" if len(reasons) > 3 else ""
    return "; ".join(reasons[:3]) + more


# --- A stage --------------------------------------------------------------------------------------


def prepare(run: Run, stage: Stage, remake: bool) -> bool:
    """Clears what is not to be kept of a stage; returns whether all of it is.

    ValueError: weights that depend on a change, without `remake`, or that would start from what has
    seen recordings that it must not have seen.
    """
    folder = run.workdir / stage.name
    raise_all(_leaks(run, stage))
    if (before := results.found(folder)) is not None:
        why = changes(run, stage, before)
        if why and not remake:
            _ask(run, {stage: why})
        if remake and _is_of_other_code(before) and not _is_users(run, stage):
            why.append("other code of the package")
        if not (why := why + results.damage(run.workdir, before)):
            return before.results is not None
        print(f"{stage.name}: made again ({_first(why)})", flush=True)
    if not (_is_users(run, stage) if before else isinstance(stage, Rendering)):
        for name in reversed(stage.folders):
            files.remove(run.workdir / name)
    trained = []
    if isinstance(stage, Training):
        known = run.data.recordings()
        splits = dict.fromkeys(split for read in stage.reads(run) for split in read.splits)
        seen = {split: known[split] for split in splits if split in known}
        own = results.Training(stage.learning.steps, seen)
        trained = [*_trainings_before(stage), own]
    results.write(folder, Record({**stage.made_from(run), "package": package()}, trained))
    return False


def finish(run: Run, stage: Stage, facts: Mapping[str, Any]) -> None:
    """Records that a stage is finished, with the checksums of its results."""
    folder = run.workdir / stage.name
    record = results.read(folder)
    assert record is not None  # `prepare` wrote it
    paths = {path for pattern in stage.results for path in run.workdir.glob(pattern)}
    record.results = results.checksums(run.workdir, sorted(paths))
    record.facts = dict(facts)
    if record.trained and "best_step" in facts:
        record.trained[-1].steps = facts["best_step"]
    results.write(folder, record)
