"""Trains both streams, recognises, scores: the stages named in config.stages, in order.

    python -m stormpsr_jax.main --config=configs/synthetic.py --workdir=runs/synthetic

A finished stage is skipped and an interrupted one resumes, so running the same command again is
always right.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from pathlib import Path

import jax
from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from stormpsr_jax.stages.context import Context
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
_FREE_FIELDS = ("stages", "mesh", "data.workers", "data.synthetic.workers")

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Config file, such as configs/synthetic.py."
)
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Folder of this run: checkpoints, predictions, report."
)
_COORDINATOR = flags.DEFINE_string(
    "coordinator", None, "host:port of process 0, for runs of several processes."
)
_PROCESSES = flags.DEFINE_integer("num_processes", None, "Number of processes.")
_PROCESS = flags.DEFINE_integer("process_id", None, "Number of this process.")


def run(config: ConfigDict, workdir: Path) -> None:
    """Runs the stages of a config in a working directory.

    Raises:
      ValueError: an unknown stage, a workdir made with another config, and whatever a stage says
        about its input.
    """
    unknown = [stage for stage in config.stages if stage not in STAGES]
    if unknown:
        raise ValueError(f"stages names {unknown}; known are {list(STAGES)}")
    workdir.mkdir(parents=True, exist_ok=True)
    _check_config(config, workdir)
    mesh = make_mesh(config.mesh.data, config.mesh.fsdp)
    context = Context(config, workdir, mesh)
    _ = context.procedure, context.num_frames  # mistakes show now, not after hours of work
    for name in config.stages:
        folder = workdir / name
        stage = importlib.import_module(f"stormpsr_jax.stages.{name}")
        if is_done(folder):
            print(f"{name}: done before")
        else:
            start = time.monotonic()
            print(f"{name} …", flush=True)
            stage.run(context)
            if not is_done(folder):  # stages on the loop mark themselves, with their metrics
                mark_done(folder)
            print(f"{name}: {time.monotonic() - start:.0f} s", flush=True)
        if hasattr(stage, "show"):
            stage.show(context)


def _check_config(config: ConfigDict, workdir: Path) -> None:
    """Keeps the config in WORKDIR/config.json, and refuses a workdir made with another one."""
    path = workdir / "config.json"
    # Through JSON, so that tuples and lists compare alike.
    now = _flatten(json.loads(config.to_json()))
    if path.exists():
        before = _flatten(json.loads(path.read_text()))
        differing = [
            f"{field}: {before.get(field, 'absent')} before, {now.get(field, 'absent')} now"
            for field in sorted(before.keys() | now.keys())
            if before.get(field) != now.get(field)
            and not any(field == free or field.startswith(f"{free}.") for free in _FREE_FIELDS)
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


def main(argv: list[str]) -> None:
    """Command line."""
    logging.set_verbosity(logging.WARNING)
    if len(argv) > 1:
        sys.exit(f"error: unknown argument {argv[1]!r}; options look like --config.seed=1")
    if _COORDINATOR.value or _PROCESSES.value:
        jax.distributed.initialize(_COORDINATOR.value, _PROCESSES.value, _PROCESS.value)
    try:
        run(_CONFIG.value, Path(_WORKDIR.value))
    except (ValueError, OSError, MemoryError, FloatingPointError) as error:
        if os.environ.get("STORMPSR_TRACEBACK"):
            raise
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    flags.mark_flags_as_required(["config", "workdir"])
    app.run(main)
