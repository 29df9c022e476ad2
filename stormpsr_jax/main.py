"""Trains both streams, recognises, scores: the stages named in config.stages, in order.

    python -m stormpsr_jax.main --config=configs/synthetic.py --workdir=runs/synthetic

A finished stage is skipped and an interrupted one resumes, so running the same command again is
always right.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib
import json
import os
import secrets
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import jax
from absl import app, flags, logging
from ml_collections import ConfigDict

from stormpsr_jax import config_flag
from stormpsr_jax.stages.context import Context
from stormpsr_jax.training import hosts, interruption
from stormpsr_jax.training.checkpoint import is_done, mark_done
from stormpsr_jax.training.sharding import make_mesh

STAGES = (
    "data",
    "general",
    "pretrain",
    "embed",
    "temporal",
    "finetune",
    "detector",
    "predict",
    "evaluate",
)
# Fields that change how a run goes and not what comes out; they may differ from an earlier start.
_FREE_FIELDS = (
    "stages",
    "mesh",
    "data.workers",
    "data.synthetic.workers",
    "encoder.remat",
    "encoder.microbatches",
    "pretrain.supcon_block",
)

_CONFIG = config_flag.define_config()
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Folder of this run: checkpoints, predictions, report."
)
_DISTRIBUTED = flags.DEFINE_bool(
    "distributed", False, "Several processes, which Slurm, Open MPI, GKE or a TPU pod started."
)
_COORDINATOR = flags.DEFINE_string(
    "coordinator", None, "host:port of process 0, for several processes started by hand."
)
_PROCESSES = flags.DEFINE_integer("num_processes", None, "Number of processes.")
_PROCESS = flags.DEFINE_integer("process_id", None, "Number of this process.")
_PROFILE = flags.DEFINE_list(
    "profile_steps", None, "first,last: record a profile of these steps of every trained stage."
)
_TIMEOUT = flags.DEFINE_integer("connect_timeout", 120, "Seconds to wait for the other processes.")


def run(config: ConfigDict, workdir: Path, profile_steps: tuple[int, int] | None = None) -> None:
    """Runs the stages of a config in a working directory.

    Args:
      config: what to run.
      workdir: where.
      profile_steps: steps (first, last) of every trained stage to record a profile of.

    Raises:
      ValueError: an unknown stage, a workdir made with another config, and whatever a stage says
        about its input.
    """
    unknown = [stage for stage in config.stages if stage not in STAGES]
    if unknown:
        raise ValueError(f"stages names {unknown}; known are {list(STAGES)}")
    fields = _flatten(json.loads(config.to_json()))  # through JSON: tuples and lists compare alike
    hosts.check_agreement({k: v for k, v in fields.items() if not k.endswith(".workers")})
    workdir.mkdir(parents=True, exist_ok=True)
    with _claimed(workdir), interruption.ends_the_run():
        _check_config(config, fields, workdir)
        mesh = make_mesh(config.mesh.data, config.mesh.fsdp)
        context = Context(config, workdir, mesh, profile_steps)
        # Mistakes show now, not after hours of work.
        _ = context.procedure, context.num_frames, context.dtype
        if mesh.size > 1:
            _say(f"mesh {dict(mesh.shape)} over {jax.process_count()} processes")
        for name in config.stages:
            if interruption.all_stop():
                interruption.end(f"stopped before {name}; run again")
            _run_stage(name, context)


def _say(text: str) -> None:
    if jax.process_index() == 0:
        print(text, flush=True)


def _run_stage(name: str, context: Context) -> None:
    folder = context.workdir / name
    stage = importlib.import_module(f"stormpsr_jax.stages.{name}")
    if hosts.agreed(is_done(folder)):
        _say(f"{name}: done before")
    else:
        start = time.monotonic()
        _say(f"{name} …")
        stage.run(context)
        hosts.wait_for_all(f"{name} run")
        if not hosts.agreed(
            is_done(folder)
        ):  # stages on the loop mark themselves, with their metrics
            mark_done(folder)
        hosts.wait_for_all(f"{name} marked")
        _say(f"{name}: {time.monotonic() - start:.0f} s")
    if hasattr(stage, "show"):
        stage.show(context)


@contextlib.contextmanager
def _claimed(workdir: Path) -> Iterator[None]:
    """Holds WORKDIR/lock, so that no other run writes there; the system lets go of it at the end.

    Raises:
      ValueError: another run holds it, or WORKDIR is not the folder that process 0 has there.
    """
    if jax.process_index() != 0:
        token = str(hosts.of_process_0(0))
        lock = workdir / "lock"
        if not lock.exists() or lock.read_text() != token:
            raise ValueError(
                f"process {jax.process_index()} has another {workdir} than process 0; give all the "
                "same --workdir, on a disk that they share"
            )
        yield
        return
    with (workdir / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(
                f"another run is writing to {workdir}; wait for its end, stop it, or use another "
                "--workdir"
            ) from None
        except OSError as error:  # a network disk without locks
            logging.warning("%s cannot be locked (%s)", workdir, error)
        if jax.process_count() > 1:
            token = secrets.randbits(31)
            file.write(str(token))
            file.flush()
            os.fsync(file.fileno())
            hosts.of_process_0(token)
        yield


def _is_free(field: str) -> bool:
    return any(field == free or field.startswith(f"{free}.") for free in _FREE_FIELDS)


def _check_config(config: ConfigDict, now: dict, workdir: Path) -> None:
    """Keeps the config in WORKDIR/config.json, and refuses a workdir made with another one."""
    path = workdir / "config.json"
    if path.exists():
        before = _flatten(json.loads(path.read_text()))
        differing = [
            f"{field}: {before.get(field, 'absent')} before, {now.get(field, 'absent')} now"
            for field in sorted(before.keys() | now.keys())
            if before.get(field) != now.get(field) and not _is_free(field)
        ]
        if differing:
            raise ValueError(
                f"{workdir} was made with another config ({'; '.join(differing)}); use another "
                "--workdir, or the same values"
            )
    elif jax.process_index() == 0:
        part = path.with_suffix(".part")
        part.write_text(config.to_json_best_effort(indent=2) + "\n")
        os.replace(part, path)


def _flatten(tree: dict, prefix: str = "") -> dict:
    flat = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat.update(_flatten(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value
    return flat


def _steps(texts: list[str] | None) -> tuple[int, int] | None:
    if not texts:
        return None
    try:
        first, last = map(int, texts)
        if not 1 <= first <= last:
            raise ValueError
    except ValueError:
        raise ValueError(
            f"--profile_steps={','.join(texts)} is not two step numbers, first,last from 1 on"
        ) from None
    return first, last


def main(argv: list[str]) -> None:
    """Command line."""
    logging.set_verbosity(logging.WARNING)
    if len(argv) > 1:
        sys.exit(f"error: unknown argument {argv[1]!r}; options look like --config.seed=1")
    by_hand = (_COORDINATOR.value, _PROCESSES.value, _PROCESS.value)
    try:
        if _DISTRIBUTED.value or any(value is not None for value in by_hand):
            hosts.connect(*by_hand, timeout=_TIMEOUT.value)
        run(_CONFIG.value, Path(_WORKDIR.value), _steps(_PROFILE.value))
    except SystemExit:
        raise
    except BaseException as error:
        expected = isinstance(error, ValueError | OSError | MemoryError | FloatingPointError)
        with_traceback = not expected or bool(os.environ.get("STORMPSR_TRACEBACK"))
        if jax.process_count() > 1:
            hosts.fail(error, with_traceback)
        if with_traceback:
            raise
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    flags.mark_flags_as_required(["config", "workdir"])
    app.run(main, flags_parser=config_flag.parse_flags)
