"""Recordings on the machines of a Ray cluster, which share a disk and all paths on it."""

import contextlib
import functools
import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any

from stormpsr_jax.base import files, installed
from stormpsr_jax.base.progress import Bar

End = tuple[int, Any, Exception | None]  # number, result and exception of a job that has ended
WAIT_SECONDS = 10.0  # until a cluster answers, and a network disk shows what another has written


def run(
    head: str, function: Callable, jobs: Sequence[Any], *, lock: Path, gpus: bool = False
) -> Generator[End]:
    """Calls function(job) for every job; yields (index, result, its exception).

    `lock` is what `files.only_writer` has locked. With `gpus` a task has one for itself, if there
    are any. Closing the generator ends all tasks.

    Raises:
        ValueError: Ray or the cluster is missing, or a machine has other code or another disk.
        ChildProcessError: a task or its machine died.
    """
    flag = f"--ray={head}"
    installed.check_extra("ray", ["ray"], flag)
    import ray
    from ray.util.multiprocessing.pool import Pool, PoolTaskError

    of_caller, (host, _, port) = signal.getsignal(signal.SIGTERM), head.rpartition(":")
    try:  # Ray itself would ask for minutes
        socket.create_connection((host, port), WAIT_SECONDS).close()
        ray.init(head, logging_level=logging.ERROR)
    except (OSError, RuntimeError, ValueError) as error:
        what = "no cluster answers at HOST:PORT, as `ray start --head` prints it"
        raise ValueError(f"{flag}: {what} ({error})") from error
    with contextlib.ExitStack() as ends, Bar(total=len(jobs), unit="recording") as bar:
        ends.callback(ray.shutdown)
        signal.signal(signal.SIGTERM, of_caller)  # Ray has put its own in this place
        there = ray.cluster_resources()
        kind = "GPU" if gpus and there.get("GPU") else "CPU"
        pool = Pool(min(len(jobs), int(there[kind])), ray_remote_args={f"num_{kind.lower()}s": 1})
        ends.callback(pool.join)
        ends.callback(pool.terminate)
        owner = _parts(), os.getcwd(), str(lock.absolute()), files.read_owner(lock)
        call = functools.partial(_call, owner, ray.put(function))
        for end in pool.imap_unordered(call, list(enumerate(jobs)), chunksize=1):
            if isinstance(end, PoolTaskError):
                raise end.underlying
            if isinstance(end, ray.exceptions.RayError):
                why = str(end).strip().partition("\n")[0]
                raise ChildProcessError(f"{flag}: a task died ({why}); run the same command again")
            bar.update()
            yield end


def _parts() -> dict[str, str]:
    return {**installed.versions(), "stormpsr_jax": installed.code()}


def _call(owner: tuple, function: Any, job: tuple[int, Any]) -> tuple[int, Any, Exception | None]:
    """What a machine does for a task; ValueError if it is not like the one that asks."""
    import ray

    parts, folder, lock, line = owner
    if other := sorted(name for name, part in _parts().items() if parts[name] != part):
        raise ValueError(f"{socket.gethostname()} has another {', '.join(other)} installed")
    end = time.monotonic() + WAIT_SECONDS
    while not os.path.isdir(folder) or files.read_owner(Path(lock)) != line:
        if time.monotonic() > end:
            raise ValueError(f"{socket.gethostname()} does not share {Path(lock).parent}, {folder}")
        time.sleep(0.1)
    os.chdir(folder)
    try:
        return job[0], ray.get(function)(job[1]), None
    except Exception as error:
        return job[0], None, error
