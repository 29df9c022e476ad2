"""Recordings on a Ray cluster of three nodes on this machine, of which one is killed."""

import contextlib
import os
import signal
import sys
import threading
import time
import types

import pytest

from stormpsr_jax.base import cluster
from tests.support import cluster_jobs, shards_data
from tests.support.model_data import video, write
from tests.support.processes import ROOT, environment, start, wait_until
from tests.support.recognise_data import HEIGHT, WIDTH, run, write_pictures

# Ray forks where it starts a node, and runs another program there at once.
pytestmark = pytest.mark.filterwarnings("ignore:os.fork")


@pytest.fixture(scope="module")
def nodes(system):
    """A cluster of three nodes, each of one CPU, of which a test kills one.

    The head says that it has a GPU, which is for Ray to believe.
    """
    utils = pytest.importorskip("ray.cluster_utils", reason="needs the extra ray")
    small = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "wait": False}
    # Of a node that is dead, within 2 s.
    quick = {"health_check_period_ms": 500, "health_check_failure_threshold": 4}
    first = {"include_dashboard": False, "_system_config": quick, "num_gpus": 1}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.setenv("RAY_worker_niceness", "0")  # else last in line on a busy machine
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        made = utils.Cluster()
        for _ in range(20):
            # Ray gives a node 30 s to start, which is little on a very busy machine.
            with contextlib.suppress(Exception):
                made.add_node(**small, **({} if made.head_node else first))
            if len(made.worker_nodes) == 2:
                break
        assert len(made.worker_nodes) == 2
    yield made
    made.shutdown()


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("local") / "data"
    shards_data.build(folder)
    return folder


def contents(folder):
    return {
        path.relative_to(folder): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


def test_build_a_killed_node_s_recordings_are_made_by_others(nodes, built, tmp_path, capsys):
    out, log = tmp_path / "out", tmp_path / "log"
    killed: list[tuple[str, int]] = []

    def kill_one() -> None:
        """Kills a node that makes something, and that this process is not connected to."""
        import ray

        while not killed:
            time.sleep(0.02)
            own = getattr(ray._private.worker.global_worker.node, "_raylet_socket_name", None)
            for node in nodes.worker_nodes if own else ():
                (raylet,) = node.all_processes["raylet"]
                mine = [
                    (name, process)
                    for name, process in cluster_jobs.begun(log)
                    if cluster_jobs.parent(process) == raylet.process.pid
                ]
                if mine and node._raylet_socket_name != own:
                    killed.extend(mine)
                    nodes.remove_node(node, allow_graceful=False)
                    break
        with contextlib.suppress(ProcessLookupError):
            os.kill(killed[-1][1], signal.SIGKILL)

    killer = threading.Thread(target=kill_one, daemon=True)
    killer.start()
    cluster_jobs.build(out, nodes.address, log, sleep=0.4)
    killer.join(60)
    name, process = killed[-1]
    assert {by for what, by in cluster_jobs.begun(log) if what == name} - {process}
    assert contents(out) == contents(built)
    said = capsys.readouterr().err
    assert "is lost; what it had begun is begun again elsewhere" in said
    frames = sum(len(shards_data.toy_recording(name).states) for name in "abcd")
    assert f" {frames}/{frames} [" in said


def test_build_errors_a_recording_that_fails_is_named_and_nothing_is_left(nodes, tmp_path):
    out, log = tmp_path / "out", tmp_path / "log"
    with pytest.raises(ValueError, match="recording train/b: no b here") as caught:
        cluster_jobs.build(out, nodes.address, log, sleep=0.2, fail="value,b")
    (where,) = caught.value.__cause__.__notes__
    assert "in make" in where
    assert not (out / "unfinished").exists()
    assert not (out / "dataset_info.json").exists()


def wait_until_gone(processes):
    deadline = time.monotonic() + 120
    while any(cluster_jobs.parent(process) for process in processes):
        assert time.monotonic() < deadline, "a worker outlived the run"
        time.sleep(0.1)


INTERRUPTED = """
import pathlib, sys
from tests.support import cluster_jobs
if __name__ == "__main__":
    out, log = map(pathlib.Path, sys.argv[1:3])
    cluster_jobs.build(out, sys.argv[3], log, sleep=0.3, endless="c")
"""


def test_build_interrupted_it_stops_everywhere_and_goes_on(nodes, built, tmp_path):
    out, log = tmp_path / "out", tmp_path / "log"
    (tmp_path / "script.py").write_text(INTERRUPTED)
    words = [sys.executable, tmp_path / "script.py", out, log, nodes.address]
    process = start(words, env=environment())
    wait_until(lambda: list(out.glob("clips-*")) and list(out.glob("unfinished/clips-*")), process)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == -signal.SIGINT, said  # and not that of a crash
    wait_until_gone({by for _, by in cluster_jobs.begun(log)})
    assert not (out / "unfinished").exists(), said
    finished = {path.name for path in out.glob("clips-*")}
    assert 0 < len(finished) < 4
    shards_data.build(out)
    assert contents(out) == contents(built)


def test_recognise_gives_the_same_results(nodes, tmp_path, capsys):
    write(tmp_path / "model")
    for i, name in enumerate(("a_up", "b_up", "c_up")):
        write_pictures(tmp_path / "in" / name, video(30 + i, HEIGHT, WIDTH), 1)
    damaged = tmp_path / "in/b_up/00015.jpg"
    damaged.write_bytes(damaged.read_bytes()[:200])
    outs = tmp_path / "here", tmp_path / "there"
    said = []
    for out, words in zip(outs, ([], [f"--ray={nodes.address}"]), strict=True):
        assert run(tmp_path / "model", tmp_path / "in", f"--out={out}", *words) == 1
        told = capsys.readouterr()
        said.append([line for line in told.err.splitlines() if "b_up" in line])
        assert "1 of 3 could not be recognised" in told.err
        assert len([line for line in told.out.splitlines() if " events in " in line]) == 2
    assert said[0][-1] == said[1][-1]
    assert sorted(p.name for p in outs[1].iterdir()) == [".lock", "a_up", "c_up"]
    assert contents(outs[1]) == contents(outs[0])
    assert len(contents(outs[0])) == 12
    whole = [tmp_path / "in" / name for name in ("a_up", "c_up")]
    assert run(tmp_path / "model", *whole, f"--out={outs[1]}") == 0  # goes on without the cluster
    assert capsys.readouterr().out.count("finished before") == 2


# --- Without a cluster ----------------------------------------------------------------------------


def test_auto_takes_the_address_that_this_user_or_root_has_written_alone(tmp_path, monkeypatch):
    path = tmp_path / "ray" / "ray_current_cluster"
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    with pytest.raises(ValueError, match="--ray=auto: no cluster was started here; start it"):
        cluster._found("--ray=auto")
    path.parent.mkdir()
    path.write_text("10.0.0.1:6379\n")
    assert cluster._found("--ray=auto") == "10.0.0.1:6379"
    with monkeypatch.context() as patch:
        patch.setattr(
            cluster.os, "fstat", lambda number: types.SimpleNamespace(st_uid=1234, st_mode=0o100600)
        )
        with pytest.raises(ValueError, match="ray_current_cluster: is of another user"):
            cluster._found("--ray=auto")
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="ray_current_cluster: cannot be read"):
        cluster._found("--ray=auto")
    path.unlink()
    os.mkfifo(path)  # which nobody writes to
    with pytest.raises(ValueError, match="ray_current_cluster: holds no address"):
        cluster._found("--ray=auto")
