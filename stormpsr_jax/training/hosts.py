"""Several processes as one run: how they find each other, and what they share out."""

import contextlib
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from stormpsr_jax.base import files
from stormpsr_jax.base.errors import one_line

# Of a device: twice what decodes for the fastest stage on an H100, by docs/scale.md.
LOADERS = 4
HEARTBEAT_SECONDS = 30  # without a sign of life, after which JAX ends the others
_LAST_SECONDS = 4.0  # in which the others print their own errors, before process 0 ends them


def connect(
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    timeout: int = 120,
) -> None:
    """Joins the run's processes; call it before anything else of JAX.

    Args:
        coordinator: host:port of process 0. None: JAX reads it, and the two numbers, from what
            Slurm, Open MPI, Kubernetes or a TPU pod tell their processes.
        num_processes: of the run.
        process_id: of this process, from 0.
        timeout: seconds to wait for the others.

    Raises:
        ValueError: some of the three without the others, or none of those launchers. If the
            others do not come in time, JAX ends the process.
    """
    by_hand = coordinator, num_processes, process_id
    if any(value is not None for value in by_hand) and None in by_hand:
        raise ValueError(
            "give all of --coordinator, --num_processes and --process_id, or --distributed alone"
        )
    try:
        jax.distributed.initialize(
            *by_hand,
            # Inside a Slurm allocation, JAX would otherwise give this process a single GPU.
            cluster_detection_method=None if coordinator is None else "deactivate",
            initialization_timeout=timeout,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
        )
        jax.process_count()  # waits for all of them, of which some may expect another number
    except (ValueError, RuntimeError) as error:
        flag = "--distributed" if coordinator is None else f"--coordinator={coordinator}"
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(f"{flag}: the processes do not find each other ({reason})") from error


def of_process_0(number: int) -> int:
    """Returns process 0's number, of 31 bits: clocks, for one, differ between hosts."""
    if jax.process_count() == 1:
        return number
    return int(multihost_utils.broadcast_one_to_all(np.asarray(number)))


def on_process_0(function: Callable[[], Any]) -> bool:
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
    answer = of_process_0(answer)
    if error is not None:
        raise error
    if answer == 2:
        raise ValueError("process 0 stopped; it says why")
    return bool(answer)


@contextlib.contextmanager
def claimed(workdir: Path) -> Iterator[None]:
    """Holds WORKDIR/lock, so that no other run writes there; ValueError: another one holds it."""
    lock = workdir / "lock"
    with contextlib.ExitStack() as stack:
        only_writer = files.only_writer(lock, workdir, "--workdir")
        on_process_0(lambda: stack.enter_context(only_writer))
        try:
            yield
        finally:
            if jax.process_index() == 0:
                os.truncate(lock, 0)  # a run that makes nothing changes nothing


def wait_for_all(name: str) -> None:
    """Returns when every process has come here."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def part(total: int) -> slice:
    """Returns which of so many rows are this process's, of all that share them out."""
    i, count = jax.process_index(), jax.process_count()
    return slice(total * i // count, total * (i + 1) // count)


def together(local: Any, total: int) -> Any:
    """Returns all rows of arrays of which each process has computed its `part`.

    Args:
        local: tree of NumPy arrays (rows of the part, …) of at most 32 bits a number.
        total: rows of all.
    """
    count = jax.process_count()
    if count == 1:
        return local
    bounds = [total * i // count for i in range(count + 1)]
    most = -(-total // count)

    def whole(array: np.ndarray) -> np.ndarray:
        padded = np.zeros((most, *array.shape[1:]), array.dtype)
        padded[: len(array)] = array
        parts = np.asarray(multihost_utils.process_allgather(padded))
        lengths = np.diff(bounds).tolist()
        return np.concatenate([part[:n] for part, n in zip(parts, lengths, strict=True)])

    return jax.tree.map(whole, local)


def cores() -> int:
    """Returns how many cores of this machine the process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def loaders(count: int) -> int:
    """Returns how many loader processes this process starts when it is told to start so many.

    Of −1, so many that its devices need not wait, as far as there are cores.
    """
    return count if count >= 0 else max(1, min(cores(), LOADERS * jax.local_device_count()))


def on_every_host(tree: Any) -> Any:
    """Returns arrays that this process's devices can use alone, whatever they are spread over."""
    if jax.process_count() == 1:
        return tree
    return multihost_utils.process_allgather(tree, tiled=True)


def fail(error: BaseException, with_traceback: bool = False, status: int = 1) -> None:
    """Ends this process of several with a line, or a traceback, without waiting for the others.

    A regular exit would wait for them, and they may be waiting for this one.
    """
    lines = [f"error: {one_line(line)}" for line in str(error).split("\n")]
    text = "".join(traceback.format_exception(error)) if with_traceback else "\n".join(lines)
    print(text.rstrip(), file=sys.stderr, flush=True)
    if jax.process_index() == 0:
        time.sleep(_LAST_SECONDS)
    os._exit(status)
