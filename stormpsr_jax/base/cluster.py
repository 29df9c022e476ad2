"""Recordings on the machines of a Ray cluster: a task each, on whichever node is free.

The machines share a disk: tasks read and write the paths that they would on one machine. So what
comes out is what one machine makes, and what a killed node has begun another one begins anew.
"""

import argparse
import contextlib
import logging
import os
import pickle
import signal
import socket
import sys
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

from stormpsr_jax.base import files, installed
from stormpsr_jax.base.cluster_node import LOOK_SECONDS, Owner
from stormpsr_jax.base.errors import message_of
from stormpsr_jax.base.progress import UNKNOWN, JobsBar, Progress

AHEAD = 16  # tasks that are submitted beyond those that run; memory holds no more of them
RETRIES = 3  # of a task whose node or process died
STOP_SECONDS = 5.0  # in which tasks stop by themselves
KILL_SECONDS = 10.0  # in which the processes of the others end
CONNECT_SECONDS = 10.0
_MAX_ADDRESS = 1000  # bytes


def add_flag(parser: Any) -> None:
    """Adds --ray, which is None or the address of a cluster, to a parser or a group of it."""
    what = "run on a Ray cluster that shares a disk, a task for each recording (docs/scale.md)"
    parser.add_argument("--ray", type=_cluster, metavar="auto|HOST:PORT", help=what)


def _cluster(text: str) -> str:
    if text != "auto" and not _is_address(text):
        raise argparse.ArgumentTypeError(
            f"{text!r} is neither auto nor HOST:PORT, as `ray start --head` prints it"
        )
    return text


def _is_address(text: str) -> bool:
    host, _, port = text.rpartition(":")
    return bool(host) and port.isdecimal() and "/" not in text and int(port) <= 65535


def run(
    cluster: str,
    function: Callable[[Any, Progress], Any],
    jobs: Sequence[Any],
    *,
    lock: Path,
    desc: str,
    sizes: Sequence[int] | None = None,
    devices: int = 0,
) -> Generator[tuple[int, Any, Exception | None]]:
    """Calls function(job, progress) for every job, as tasks of a cluster that share a bar.

    A task is begun again, on another node, when its node or its process dies. The function calls
    progress.begin once and progress.advance for its frames, and leaves nothing behind when that is
    interrupted. Its warnings are logged here. Close the generator to give up the tasks that are
    left: none of them runs any more then, and one that no interrupt stopped was killed, so that the
    caller can remove what it left. A warning says so if a node did not answer. They end with this
    process too.

    Args:
        cluster: "auto" for the one that this machine belongs to, or HOST:PORT of its head.
        function: picklable, as are the jobs.
        jobs: begun in their order.
        lock: what this process has locked by `files.only_writer`; the nodes have to see it.
        sizes: frames of each job, if they are known beforehand.
        devices: GPUs that a task takes for itself, where the cluster has any.

    Yields:
        (index of a job, what the function returned, None), or its exception last, as they end.
        ChildProcessError: of a job whose process died again and again.

    Raises:
        ValueError: Ray is missing, there is no cluster, or a node has other code or libraries, or
            does not share the disk.
    """
    with _connected(cluster) as ray:
        of_device = devices and any("GPU" in node["Resources"] for node in _nodes(ray).values())
        kind = "GPU" if of_device else "CPU"
        counter = _counter(ray, len(jobs))
        owner = Owner(
            socket.gethostname(),
            installed.parts(),
            os.getcwd(),
            str(lock.absolute()),
            files.read_owner(lock),
        )
        # As bytes: Ray would unpickle them before the task can say that its node lacks the code.
        # By Ray's pickle, which also takes functions of the module that was started as a command.
        shared = ray.put(pickle.dumps((owner, ray.cloudpickle.dumps(function))))
        task = ray.remote(num_cpus=1, num_gpus=devices if of_device else 0, max_retries=RETRIES)(
            _task()
        )
        waiting: dict[Any, int] = {}  # the job of each task that is submitted
        left = list(range(len(jobs)))[::-1]  # those of the others, the next one last
        counts = [0, *(n for i in range(len(jobs)) for n in (sizes[i] if sizes else UNKNOWN, 0))]
        nodes, asked = _nodes(ray), counter.get.remote()
        with JobsBar(desc, counts) as bar:
            if not any(_slots(node, kind) for node in nodes.values()):
                bar.write(f"no node of the cluster has a {kind} for tasks yet", file=sys.stderr)
            try:
                while waiting or left:
                    slots = sum(_slots(node, kind) for node in nodes.values())
                    while left and len(waiting) < slots + AHEAD:
                        index = left.pop()
                        job = ray.cloudpickle.dumps(jobs[index])
                        waiting[task.remote(shared, job, index, counter)] = index
                    done, _ = ray.wait(list(waiting), timeout=LOOK_SECONDS)
                    if ray.wait([asked], timeout=0)[0]:
                        _read(ray.get(asked), counts, {*waiting.values(), *left})
                        asked = counter.get.remote()
                    before, nodes = nodes, _nodes(ray)
                    for lost in before.keys() - nodes.keys():
                        name = before[lost]["NodeManagerHostname"]
                        text = f"node {name} is lost; what it had begun is begun again elsewhere"
                        bar.write(text, file=sys.stderr)
                    bar.show()
                    for ref in done:
                        yield waiting.pop(ref), *_outcome(ray, ref)
                _read(ray.get(counter.get.remote()), counts, set())
                bar.show()
            finally:
                _cancel(ray, counter, list(waiting))


@contextlib.contextmanager
def _connected(cluster: str) -> Iterator[Any]:
    """Gives the module ray, connected to the cluster; ValueError says why it cannot be."""
    flag = f"--ray={cluster}"
    installed.check_extra("ray", ["ray"], flag)
    import ray

    if ray.is_initialized():  # by who calls this from Python
        yield ray
        return
    address = _found(flag) if cluster == "auto" else cluster
    _check_port(flag, address)
    before = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"{flag}: no Ray cluster that this machine can use ({reason}); see docs/scale.md"
        ) from error
    try:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)  # Ray has put its own in this place
        yield ray
    finally:
        ray.shutdown()


def _found(flag: str) -> str:
    """The address that "auto" stands for: as Ray says, in RAY_ADDRESS or where it was started.

    That is a file in a folder of all users, and a cluster can run any program on who connects to
    it. So only a file that this user or root has written counts. Ray would also take the address of
    whatever process looks like a cluster.

    Raises:
        ValueError: there is none.
    """
    if address := os.environ.get("RAY_ADDRESS"):
        return address
    folder = os.environ.get("TMPDIR", "/tmp") if sys.platform == "linux" else "/tmp"
    path = Path(os.environ.get("RAY_TMPDIR", folder), "ray", "ray_current_cluster")
    instead = "start it with `ray start`, or give its address, --ray=HOST:PORT"
    try:
        with open(path, "rb", opener=files.without_links) as file:
            owner, content = os.fstat(file.fileno()).st_uid, file.read(_MAX_ADDRESS)
    except (FileNotFoundError, NotADirectoryError):
        raise ValueError(f"{flag}: no cluster was started here; {instead}") from None
    except OSError as error:
        raise ValueError(f"{flag}: {path}: cannot be read ({error.strerror}); {instead}") from error
    if owner not in (0, os.getuid()):
        raise ValueError(f"{flag}: {path}: is of another user (number {owner}); {instead}")
    if not _is_address(address := content.decode("utf-8", "replace").strip()):
        raise ValueError(f"{flag}: {path}: holds no address of a cluster; {instead}")
    return address


def _check_port(flag: str, address: str) -> None:
    """Raises ValueError if nothing listens there; Ray itself would ask for minutes."""
    host, _, port = address.strip().rpartition(":")
    if not host or not port.isdecimal():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()
    except OSError as error:
        raise ValueError(
            f"{flag}: nothing answers at {address} ({message_of(error)}); start a cluster with "
            "`ray start --head`, which prints its address"
        ) from error


def _nodes(ray: Any) -> dict[str, Any]:
    """The nodes that are alive."""
    return {node["NodeID"]: node for node in ray.nodes() if node["Alive"]}


def _slots(node: Any, kind: str) -> int:
    return int(node["Resources"].get(kind, 0))


def _counter(ray: Any, num_jobs: int) -> Any:
    """An actor on this machine that knows how far every task is, and cancels tasks.

    A process that cancels a task of its own is at times ended by Ray (2.60: "Tried to complete task
    that was not pending"), if the task ends in this very moment: its main thread cancels while
    another thread takes the result. Asked by an actor, the other thread does both.
    """

    class Counter:  # here, so that Ray pickles it as a whole, not by the name of a module
        def __init__(self) -> None:
            self.frames: list[tuple[int | None, int]] = [(None, 0)] * num_jobs

        def tell(self, index: int, size: int, done: int) -> None:
            self.frames[index] = size, done

        def get(self) -> list[tuple[int | None, int]]:
            return self.frames

        def cancel(self, refs: list[Any], force: bool) -> None:
            import ray

            for ref in refs:
                ray.cancel(ref, force=force)

    here = ray.get_runtime_context().get_node_id()
    strategy = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(here, soft=False)
    return ray.remote(num_cpus=0, scheduling_strategy=strategy)(Counter).remote()


def _read(
    frames: Sequence[tuple[int | None, int]], counts: list[int], unfinished: set[int]
) -> None:
    """Reads what the counter says into the counts of a bar.

    Of a job that has ended nothing is left; one that has not said a word had nothing to do.
    """
    for i, (size, done) in enumerate(frames):
        if i not in unfinished:
            size = done = size or 0
        if size is not None:
            counts[1 + 2 * i] = size
        counts[2 + 2 * i] = done


def _task() -> Callable[[bytes, bytes, int, Any], tuple]:
    """The function of a task."""

    def task(shared: bytes, job: bytes, index: int, counter: Any) -> tuple:  # as is Counter
        try:
            from stormpsr_jax.base.cluster_node import work
        except ImportError as error:
            import socket

            misfit = f"node {socket.gethostname()} has no stormpsr_jax of this version ({error})"
            return f"{misfit}; install the same on all nodes", None, None, "", []
        return work(shared, job, lambda size, done: counter.tell.remote(index, size, done))

    return task


def _outcome(ray: Any, ref: Any) -> tuple[Any, Exception | None]:
    """What a task that has ended returned, or its exception; logs its warnings."""
    try:
        misfit, result, error, where, lines = ray.get(ref)
    except ray.exceptions.RayTaskError:
        raise
    except ray.exceptions.RayError as died:
        reason = str(died).strip().partition("\n")[0]
        return None, ChildProcessError(
            f"its process or node died {RETRIES + 1} times (killed, or no memory left?): {reason}; "
            "run the same command again, finished recordings are kept"
        )
    if misfit:
        raise ValueError(misfit)
    for level, line in lines:
        logging.log(level, "%s", line)
    if error is not None:
        error.add_note(where)
    return result, error


def _cancel(ray: Any, counter: Any, refs: list[Any]) -> None:
    """Gives tasks up: those that run have a moment to leave nothing behind, then are killed."""
    for force, seconds in ((False, STOP_SECONDS), (True, KILL_SECONDS)):
        if not refs:
            return
        counter.cancel.remote(refs, force)
        _, refs = ray.wait(refs, num_returns=len(refs), timeout=seconds)
    if refs:
        logging.warning(
            "%d of the tasks could not be stopped within %g s and may still write (does a node not "
            "answer?); what they leave unfinished the next run removes",
            len(refs),
            STOP_SECONDS + KILL_SECONDS,
        )
