"""Trains both streams, recognises, scores: the stages named in config.stages, in order.

    python -m stormpsr_jax.main --config=configs/synthetic.py --workdir=runs/synthetic

A finished stage is skipped, an interrupted one resumes, and one that depends on a change is made
again, so running the same command again is always right.
"""

from __future__ import annotations

from stormpsr_jax.base import interruption

if __name__ == "__main__":  # before the imports below, which take a second
    interruption.install()

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from absl import app, flags, logging
from ml_collections import ConfigDict

from stormpsr_jax.base import config_flag, memory
from stormpsr_jax.base.mistakes import message_of, one_line
from stormpsr_jax.psr.cli import print_anything

_CONFIG = config_flag.define_config()
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Folder of this run: checkpoints, predictions, report, model."
)
_REMAKE = flags.DEFINE_bool(
    "remake", False, "Throw trained weights away that depend on a change, and train again."
)
_FROM = flags.DEFINE_list(
    "from", None, "Work folders whose finished stages are taken over where they are the very same."
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


def run(
    config: ConfigDict,
    workdir: Path,
    profile_steps: tuple[int, int] | None = None,
    remake: bool = False,
    others: Sequence[Path] = (),
) -> None:
    """Runs the stages of a config in a working directory; see `stages.run.run`."""
    # JAX takes seconds to import: flags are read, and Ctrl-C is handled, before.
    from stormpsr_jax.stages.run import run

    run(config, workdir, profile_steps, remake, others)


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
    print_anything()
    if len(argv) > 1:
        sys.exit(f"error: unknown argument {argv[1]!r}; options look like --config.seed=1")
    for name, value in (("config", _CONFIG.value), ("workdir", _WORKDIR.value)):
        if not value:
            sys.exit(f"error: --{name} is missing; see --help")
    try:
        memory.check_start()  # before JAX is imported, which may not even fit
    except MemoryError as error:
        sys.exit(f"error: {error}")
    with interruption.handled():
        _run_command()


def _run_command() -> None:
    import jax

    from stormpsr_jax.training import hosts

    by_hand = (_COORDINATOR.value, _PROCESSES.value, _PROCESS.value)
    try:
        if _DISTRIBUTED.value or any(value is not None for value in by_hand):
            hosts.connect(*by_hand, timeout=_TIMEOUT.value)
            interruption.connected(jax.process_count())
        others = [Path(folder) for folder in _FROM.value or ()]
        run(_CONFIG.value, Path(_WORKDIR.value), _steps(_PROFILE.value), _REMAKE.value, others)
    except SystemExit:
        raise
    except BaseException as error:
        expected = isinstance(error, ValueError | OSError | MemoryError | FloatingPointError)
        with_traceback = not expected or bool(os.environ.get("STORMPSR_TRACEBACK"))
        if hosts.several():
            hosts.fail(error, with_traceback)
        if with_traceback:
            raise
        sys.exit("\n".join(f"error: {one_line(line)}" for line in message_of(error).split("\n")))


if __name__ == "__main__":
    app.run(main, flags_parser=config_flag.parse_flags)
