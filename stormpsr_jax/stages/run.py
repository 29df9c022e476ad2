"""Runs the stages of a config: mistakes first, then what is not made yet or depends on a change."""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import msgspec
from ml_collections import ConfigDict

from stormpsr_jax.base import files, hardware, interruption, memory
from stormpsr_jax.base.errors import raise_all, tell
from stormpsr_jax.stages import checks, continuing, order, provenance, take_over
from stormpsr_jax.stages.context import Context
from stormpsr_jax.stages.stage import Stage
from stormpsr_jax.training import compiled, hosts
from stormpsr_jax.training.sharding import make_mesh

REMAKE = ANEW, CONTINUE = "anew", "continue"  # of weights that depend on a change


def run(
    config: ConfigDict,
    workdir: Path,
    profile_steps: tuple[int, int] | None = None,
    remake: str = "",
    others: Sequence[Path] = (),
    on_start: Callable[[], None] = lambda: None,
) -> None:
    """Runs the stages of a config in a working directory.

    Args:
        config: what to run.
        workdir: where.
        profile_steps: steps (first, last) of every trained stage to record a profile of.
        remake: what becomes of trained weights that depend on a change: "anew" throws them away,
            "continue" trains on from them where nothing but data has changed, "" asks.
        others: work folders whose finished stages are taken over where they are the very same.
        on_start: called once no mistake was found, before anything is computed.

    Raises:
        ValueError: all mistakes that can be found before anything is computed; a change after which
            weights would be trained again, without `remake`; whatever a stage says about its input.
        SystemExit: after SIGTERM or Ctrl-C; see `interruption`.
    """
    memory.keep_freed()
    raise_all([f"--from={other}: no such work folder" for other in others if not other.is_dir()])
    hosts.check_agreement(
        {k: v for k, v in provenance.flat_config(config).items() if not k.endswith(".workers")}
    )
    workdir.mkdir(parents=True, exist_ok=True)
    with _claimed(workdir), compiled.kept():
        mesh = make_mesh(config.mesh.data, config.mesh.fsdp)
        context = Context(config, workdir, mesh, profile_steps)
        _on_process_0(lambda: _check(context, remake))
        if mesh.size > 1:
            _say(f"mesh {dict(mesh.shape)} over {jax.process_count()} processes")
        if context.extra is not None:
            _say(str(context.extra))
        on_start()
        for stage in order.chosen(config):
            stopped = f"stopped before {stage.name}; run the same command again"
            interruption.end_if_asked(stopped)
            if interruption.all_stop():
                interruption.end(stopped)
            _run_stage(stage, context, remake, others)
        interruption.end_if_asked("all stages are done")


def _check(context: Context, remake: str) -> None:
    raise_all(checks.find_mistakes(context) or _stale_results(context))
    stages = order.chosen(context.config)
    stale = provenance.stale(context, stages)
    if not remake:
        _ask(context, stale)
    if remake == CONTINUE:
        of_stale = (stage for stage in stages if stage.name in stale)
        raise_all([line for stage in of_stale for line in continuing.mistakes(context, stage)])
    raise_all(_kept_leaks(context, stale, remake))
    _warn(hardware.unused({device.platform for device in jax.local_devices()}))
    files.write_text(
        context.workdir / "config.json", context.config.to_json_best_effort(indent=2) + "\n"
    )


def _kept_leaks(context: Context, stale: Mapping[str, list[str]], remake: str) -> list[str]:
    """Weights that would be kept, and have seen recordings that are validated or scored on now."""
    stages = order.chosen(context.config)
    used, found = [*stages], []
    for stage in used:  # and what they come after, which is added on the way
        used += [other for other in stage.after(context) if other not in used]
        if stage.name in stale or (remake == ANEW and stage in stages):
            continue  # `_prepare` makes it again
        record = provenance.read(context.workdir / stage.name)
        if record is not None:
            found += continuing.kept_leaks(context, stage, record)
    return found


def _warn(texts: list[str]) -> None:
    for text in texts:
        tell("warning", text)


def _ask(context: Context, stale: Mapping[str, list[str]]) -> None:
    """Raises ValueError if trained weights are among what is stale, {stage: why}."""
    trained = [name for name in stale if provenance.has_weights(context, order.named(name))]
    if trained:
        lost = ", ".join(f"{name} ({'; '.join(stale[name])})" for name in trained)
        others = ", ".join(name for name in stale if name not in trained)
        raise ValueError(
            f"this would throw the weights in {context.workdir} away and train again: {lost}; "
            + (f"then {others} would be made again; " if others else "")
            + "give --remake=continue to train on from them where other data are all that has "
            "changed, --remake to train anew, or another --workdir to keep them"
        )


def _stale_results(context: Context) -> list[str]:
    """Results of stages that are left out now, and that were made from something else."""
    stages, found = order.chosen(context.config), []
    before = {other.name: other for stage in stages for other in stage.after(context)}
    for name, stage in sorted(before.items()):
        record = None if stage in stages else provenance.read(context.workdir / name)
        if record is not None:
            why = provenance.changes(record, provenance.made_from(context, stage))
            if why:
                found.append(
                    f"the result of stage {name!r} in {context.workdir} was made from something "
                    f"else ({_first(why)}); add {name!r} to --config.stages, or undo the change"
                )
            elif why := provenance.damage(context, stage, record):
                found.append(
                    f"the result of stage {name!r} in {context.workdir} cannot be used "
                    f"({_first(why)}); add {name!r} to --config.stages, which makes it again"
                )
    return found


def _first(reasons: list[str]) -> str:
    return "; ".join(reasons[:3]) + (f" and {len(reasons) - 3} more" if len(reasons) > 3 else "")


def _run_stage(stage: Stage, context: Context, remake: str, others: Sequence[Path]) -> None:
    name = stage.name
    record: dict[str, Any] = {}
    if _on_process_0(lambda: _prepare(stage, context, remake, others, record)):
        _say(f"{name}: done before")
    else:
        start = time.monotonic()
        _say(f"{name} …")
        facts = stage.make(continuing.prepared(context, stage))
        hosts.wait_for_all(f"{name} run")
        _on_process_0(lambda: provenance.finish(context, stage, record, facts))
        if stage.makes_data:
            context.forget_data()
            _on_process_0(lambda: raise_all(checks.find_mistakes(context)))
        _say(f"{name}: {time.monotonic() - start:.0f} s")
    if stage.show and jax.process_index() == 0:
        stage.show(context)


def _prepare(
    stage: Stage, context: Context, remake: str, others: Sequence[Path], record: dict[str, Any]
) -> bool:
    """Clears what is not to be kept of a stage; returns whether all of it is.

    Fills `record` with that of the stage from now on.
    """
    name, folder = stage.name, context.workdir / stage.name
    if (other := take_over.take(context, stage, others)) is not None:
        _say(f"{name}: taken over from {other}")
    provenance.check_kinds(context, stage)
    made_from = provenance.made_from(context, stage)
    before = provenance.read(folder)
    trained: list[provenance.Training] = []
    if before is not None:
        for text in before["damage"]:
            _say(f"{name}: {text}")
        changed = provenance.changes(before, made_from)
        if changed and not remake:
            _ask(context, {name: changed})
        why = changed + provenance.damage(context, stage, before)
        went_on = len(before["trained"]) > 1
        if "results" not in before and went_on and remake == ANEW:
            why.append("it went on from older weights")
        if not why and (leaks := continuing.kept_leaks(context, stage, before)):
            if remake != ANEW:
                raise_all(leaks)
            why.append("its weights saw recordings that are in another split now")
        if not why and "results" in before:
            for text in provenance.damaged_log(context, stage, before):
                _say(f"{name}: {text}")
            return True
        trained = before["trained"]
        if why:
            weights, trained = None, []
            if remake == CONTINUE or (went_on and not changed and remake != ANEW):
                raise_all(continuing.mistakes(context, stage))
                weights, trained = continuing.find(context, stage, before) or (None, [])
            if weights is None:
                _say(f"{name}: made again ({_first(why)})")
                provenance.clear(context, stage)
            else:
                steps = continuing.steps(context, stage)
                _say(f"{name}: goes on from its weights for {steps} steps ({_first(why)})")
                trained = [*trained, provenance.this_training(context, stage, steps)]
                record |= _record(made_from, trained)
                continuing.begin(folder, weights, record)
    if stage.costly and not trained:
        steps = context.config[name].steps
        trained = [provenance.this_training(context, stage, steps)]
    record |= _record(made_from, trained)
    provenance.begin(context, stage, record)
    return False


def _record(made_from: dict[str, Any], trained: list[provenance.Training]) -> dict[str, Any]:
    return {"made_from": made_from, "trained": msgspec.to_builtins(trained)}


def _say(text: str) -> None:
    if jax.process_index() == 0:
        print(text, flush=True)


def _on_process_0(function: Callable[[], bool | None]) -> bool:
    """Calls the function on process 0; all processes return what it returns, or fail with it.

    Raises:
        ValueError: on the other processes, if process 0 fails; it says why.
    """
    if jax.process_count() == 1:
        return bool(function())
    answer, error = 0, None
    if jax.process_index() == 0:
        try:
            answer = int(bool(function()))
        except Exception as any_error:
            answer, error = 2, any_error
    answer = hosts.of_process_0(answer)
    if error is not None:
        raise error
    if answer == 2:
        raise ValueError("process 0 stopped; it says why")
    return bool(answer)


@contextlib.contextmanager
def _claimed(workdir: Path) -> Iterator[None]:
    """Holds WORKDIR/lock, so that no other run writes there; the system lets go of it at the end.

    Raises:
        ValueError: another run holds it, or WORKDIR is not the same folder on all processes.
    """
    with contextlib.ExitStack() as stack:
        token = secrets.randbits(31) if jax.process_count() > 1 else 0

        def claim() -> None:
            file = files.open_locked(workdir / "lock", wait=False)
            if file is None:
                raise ValueError(
                    f"another run is writing to {workdir}; wait for its end, stop it, or use "
                    "another --workdir"
                )
            stack.enter_context(file)
            if token:
                file.truncate(0)
                file.write(str(token).encode())
                file.flush()
                os.fsync(file.fileno())

        _on_process_0(claim)
        token = hosts.of_process_0(token)
        if token:
            without = hosts.where(not _holds(workdir / "lock", token))
            if without:
                raise ValueError(
                    f"process {', '.join(map(str, without))} has another {workdir} than process 0; "
                    "give all the same --workdir, on a disk that they share"
                )
        yield


def _holds(lock: Path, token: int) -> bool:
    try:
        return lock.read_text() == str(token)
    except (OSError, ValueError):
        return False
