"""Checkpoints of a stage, and its best weights.

STAGE_DIR/checkpoints/STEP    everything that resuming needs, by orbax; the last two are kept
STAGE_DIR/best.safetensors    parameters and batch statistics of the best evaluation
"""

import errno
import functools
import logging
import os
import sys
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import preservation_policy

from stormpsr_jax.training import hosts
from stormpsr_jax.weights.parameters import load_params, save_params

BEST = "best.safetensors"


class Checkpoints:
    """Asynchronous checkpoints: train state and loop values as one unit.

    The position in the data is the step: a batch is a function of the seed and the step alone. So
    a checkpoint suits any number of devices, processes and loaders.
    """

    def __init__(self, workdir: Path):
        _quieten_orbax()
        self.directory = workdir.absolute() / "checkpoints"
        self._manager = _Manager(
            self.directory,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=preservation_policy.LatestN(2),
                cleanup_tmp_directories=True,
                single_host_load_and_broadcast=True,
            ),
            item_handlers={
                "state": ocp.StandardCheckpointHandler(),
                "values": ocp.JsonCheckpointHandler(),
            },
        )

    def save(self, step: int, state: Any, values: dict) -> None:
        """Starts saving and returns; the state may be donated at once, `values` are for JSON."""
        both = {"state": ocp.args.StandardSave(state), "values": ocp.args.JsonSave(values)}
        self._manager.save(step, args=ocp.args.Composite(**both))

    def latest(self) -> Path | None:
        """Returns the folder of the newest complete checkpoint, None without any."""
        self._manager.wait_until_finished()
        step = self._manager.latest_step()
        return None if step is None else self.directory / str(step)

    def restore(self, abstract_state: Any) -> tuple[int, Any, dict] | None:
        """Restores (step, state, values) of the newest checkpoint; None if there is none.

        Args:
            abstract_state: tree of jax.ShapeDtypeStruct with the shardings wanted now, which may
                differ from those it was saved with.

        Raises:
            ValueError: it is damaged, its best weights are, or it holds other arrays (of another
                architecture or optimiser).
        """
        if (step := self._manager.latest_step()) is None:
            return None
        folder = self.directory / str(step)
        try:
            # The manager's own restore waits for the other processes, also where one fails.
            args = ocp.args.StandardRestore(abstract_state)
            state = ocp.StandardCheckpointHandler().restore(folder / "state", args=args)
            values = ocp.JsonCheckpointHandler().restore(folder / "values")
            if values.get("best_step") is not None:
                load_best(folder.parents[1])
        except Exception as error:  # a damaged file surfaces as almost any type
            reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
            raise ValueError(
                f"checkpoint {folder} cannot be read ({reason}); if it is damaged, remove it and "
                "run the same command again, which goes on from the one before; if it is of "
                "another model or optimiser, use another --workdir"
            ) from error
        return step, state, values

    def close(self) -> None:
        """Waits for the save in flight and releases the threads."""
        self._manager.close()


class _Manager(ocp.CheckpointManager):
    def reached_preemption(self, step: int) -> bool:
        """Leaves JAX's count of calls to `interruption.all_stop`: orbax counts steps of a stage."""
        return False


@functools.cache
def _quieten_orbax() -> None:
    """Leaves out what orbax reports: every phase of a save, and, with tracebacks, what it raises.

    Its threads go on for a moment after an error such as a full disk, and report that as well; C++
    reports writes that end after orbax has given up, one by one.
    """
    full = [os.strerror(number) for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)]
    report = sys.unraisablehook

    def says(record: logging.LogRecord) -> bool:
        error = record.exc_info and record.exc_info[1]
        return not any(what in str(error) for what in full)

    def hook(unraisable: Any) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            report(unraisable)

    logging.getLogger("absl").addFilter(lambda record: "orbax" not in record.pathname)
    logging.getLogger("asyncio").addFilter(says)
    sys.unraisablehook = hook


def save_best(workdir: Path, params: Any, batch_stats: Any) -> None:
    """Replaces WORKDIR/best.safetensors atomically, in the format of `parameters.save_params`."""
    tree = hosts.on_every_host((params, batch_stats))
    if jax.process_index() == 0:
        save_params(workdir / BEST, *tree)


def load_best(workdir: Path) -> tuple[dict, dict]:
    """(params, batch_stats) of a stage's best evaluation as nested dicts of host arrays.

    ValueError if the stage has not saved any, or the file is damaged.
    """
    path = workdir / BEST
    if not path.exists():
        raise ValueError(
            f"{path} does not exist: run stage {workdir.name!r} first (--config.stages)"
        )
    return load_params(path)
