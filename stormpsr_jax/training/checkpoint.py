"""Checkpoints of a stage, and its best weights.

STAGE_DIR/checkpoints/STEP    everything that resuming needs, by orbax; the last two are kept
STAGE_DIR/best.safetensors    parameters and batch statistics of the best evaluation
"""

import errno
import functools
import itertools
import logging
import os
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import preservation_policy

from stormpsr_jax.training import hosts
from stormpsr_jax.weights.parameters import load_params, save_params

BEST = "best.safetensors"
SECONDS = 600.0  # after which a checkpoint is overdue


class Checkpoints:
    """Asynchronous checkpoints: train state and loop values as one unit.

    The position in the data is the step: a batch is a function of the seed and the step alone. So
    a checkpoint suits any number of devices, processes and loaders.
    """

    def __init__(self, workdir: Path):
        _quieten_orbax()
        self.directory = workdir.absolute() / "checkpoints"
        self._saved = time.monotonic()
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
        self._saved = time.monotonic()

    def overdue(self) -> bool:
        """Whether the last one, or the start, is SECONDS ago; all processes ask together."""
        return bool(hosts.of_process_0(time.monotonic() - self._saved > SECONDS))

    def latest(self) -> Path | None:
        """Returns the folder of the newest complete checkpoint, None without any."""
        self._manager.wait_until_finished()
        step = self._manager.latest_step()
        return None if step is None else self.directory / str(step)

    def restore(self, abstract_state: Any) -> tuple[int, Any, dict] | None:
        """Restores (step, state, values) of the newest readable checkpoint; None if there is none.

        A damaged checkpoint is named in a warning, moved aside (`STEP.damaged`), and the one before
        it is used; so is one whose best weights are damaged or gone.

        Args:
            abstract_state: tree of jax.ShapeDtypeStruct with the shardings wanted now, which may
                differ from those it was saved with.

        Raises:
            ValueError: a sound one holds other arrays (another architecture or optimiser).
        """
        for step in sorted(map(int, self._manager.all_steps()), reverse=True):
            error = None
            try:
                state, values = self._read(step, abstract_state)
            except Exception as any_error:  # a damaged file surfaces as almost any type
                if isinstance(any_error, _MismatchError) or _is_of_the_machine(any_error):
                    raise
                error = any_error
            # Each process reads its own part, and all must come to the same step.
            if not hosts.where(error is not None):
                return step, state, values
            self._set_aside(step, error or ValueError("another process cannot read it"))
        return None

    def _read(self, step: int, abstract_state: Any) -> tuple[Any, dict]:
        """Reads this process's part of a checkpoint."""
        folder = self.directory / str(step)
        saved = _shapes(self._manager.item_metadata(step)["state"].tree)
        wanted = _shapes(abstract_state)
        differing = [
            f"{name}: {saved.get(name, 'absent')} saved, {wanted.get(name, 'absent')} wanted"
            for name in sorted(saved.keys() | wanted.keys())
            if saved.get(name) != wanted.get(name)
        ]
        if differing:
            raise _MismatchError(
                f"checkpoint {folder} is of another model or optimiser "
                f"({len(differing)} arrays differ: {'; '.join(differing[:4])}); use another "
                "--workdir, or the config that this one was started with"
            )
        # The manager's own restore waits for the other processes, also where one has failed.
        args = ocp.args.StandardRestore(abstract_state)
        state = ocp.StandardCheckpointHandler().restore(folder / "state", args=args)
        values = ocp.JsonCheckpointHandler().restore(folder / "values")
        if values.get("best_step") is not None:
            wanted = _shapes((abstract_state.params, abstract_state.batch_stats))
            if _shapes(load_best(folder.parents[1])) != wanted:
                raise ValueError(f"{folder.parents[1] / BEST} holds weights of another network")
        return state, values

    def _set_aside(self, step: int, error: Exception) -> None:
        folder = self.directory / str(step)
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        names = itertools.chain((f"{step}.damaged",), (f"{step}.damaged-{i}" for i in range(2, 99)))
        aside = next(p for name in names if not os.path.lexists(p := folder.with_name(name)))
        warnings.warn(
            f"checkpoint {folder} is damaged ({reason}); moved to {aside.name}, using the one "
            "before, if there is any",
            stacklevel=3,
        )
        if jax.process_index() == 0:
            os.replace(folder, aside)
        hosts.wait_for_all(f"checkpoint {step} set aside")
        self._manager.reload()

    def close(self) -> None:
        """Waits for the save in flight and releases the threads."""
        self._manager.close()


class _Manager(ocp.CheckpointManager):
    def reached_preemption(self, step: int) -> bool:
        """Leaves JAX's count of calls to `interruption.all_stop`: orbax counts steps of a stage."""
        return False


class _MismatchError(ValueError):
    pass


def _is_of_the_machine(error: Exception) -> bool:
    """True if an error says nothing about the checkpoint."""
    if isinstance(error, MemoryError | PermissionError | jax.errors.JaxRuntimeError):
        return True
    if isinstance(error, OSError) and error.errno in (errno.EIO, errno.EMFILE, errno.ENFILE):
        return True
    return any(code in str(error) for code in ("RESOURCE_EXHAUSTED", "PERMISSION_DENIED"))


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


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    # Orbax hands tuples and dataclasses back as dicts and lists: only the names survive.
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): tuple(leaf.shape)
        for path, leaf in jax.tree.leaves_with_path(tree, is_leaf=lambda a: hasattr(a, "shape"))
    }


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
