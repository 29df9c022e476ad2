"""Recordings on a Ray cluster of one machine, this one."""

import signal
import sys
from pathlib import Path

import pytest

from data_prep import meccano, own
from tests.support import own_data, shards_data
from tests.support.digests import digests
from tests.support.model_data import video, write
from tests.support.processes import (
    ROOT,
    environment,
    free_address,
    is_gone,
    refused,
    start,
    wait_until,
)
from tests.support.recognise_data import HEIGHT, WIDTH, run, write_pictures

# Ray forks where it starts a node, and runs another program there at once.
pytestmark = pytest.mark.filterwarnings("ignore:os.fork")


@pytest.fixture(scope="module")
def head(system):
    """The address of a cluster; it says that it has a GPU, which is for Ray to believe."""
    utils = pytest.importorskip("ray.cluster_utils", reason="needs the extra ray")
    node = {"num_cpus": 2, "num_gpus": 1, "include_dashboard": False}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.setenv("RAY_worker_niceness", "0")  # else last in line on a busy machine
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        made = utils.Cluster(True, head_node_args=node | {"object_store_memory": 80 * 2**20})
    yield made.address
    made.shutdown()


def test_own_makes_the_same_bytes_on_a_cluster(head, tmp_path, monkeypatch):
    own_data.make_data(tmp_path)
    monkeypatch.chdir(tmp_path)  # relative paths are those of this process
    for out, flag in (("here", "--workers=1"), ("there", f"--ray={head}")):
        assert own.main(own_data.words(Path(), Path(out), "--size=32", flag)) == 0
    assert digests(tmp_path / "there") == digests(tmp_path / "here")


INTERRUPTED = """
import functools, pathlib, sys
from tests.support import shards_data
if __name__ == "__main__":
    make = functools.partial(shards_data.make, sleep=0.5)
    shards_data.build(pathlib.Path(sys.argv[1]), make=make, workers=sys.argv[2])
"""


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_command_ends_its_tasks_and_goes_on(head, tmp_path, sent):
    out = tmp_path / "out"
    (tmp_path / "script.py").write_text(INTERRUPTED)
    process = start([sys.executable, tmp_path / "script.py", out, head], env=environment())
    wait_until(
        lambda: list(out.glob("recordings/?")) and list(out.glob("recordings/.*.part")), process
    )
    begun = {int(path.name.split(".")[-2]) for path in out.glob("recordings/.*.part")}
    process.send_signal(sent)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == -sent, said
    assert (out / ".lock").exists() == (sent == signal.SIGKILL), said
    assert begun
    wait_until(lambda: all(map(is_gone, begun)))  # Ray ends those of a process that was killed
    assert 0 < len(list(out.glob("recordings/?"))) < 4
    shards_data.build(out)
    shards_data.build(tmp_path / "whole")
    assert digests(out) == digests(tmp_path / "whole")


def test_recognise_gives_the_same_results(head, tmp_path, capsys):
    write(tmp_path / "model")
    for i, name in enumerate(("a_up", "b_up", "c_up")):
        write_pictures(tmp_path / "in" / name, video(30 + i, HEIGHT, WIDTH), 1)
    damaged = tmp_path / "in/b_up/00015.jpg"
    damaged.write_bytes(damaged.read_bytes()[:200])
    outs, said = (tmp_path / "here", tmp_path / "there"), []
    for out, words in zip(outs, ([], [f"--ray={head}"]), strict=True):
        assert run(tmp_path / "model", tmp_path / "in", f"--out={out}", *words) == 1
        told = capsys.readouterr()
        said.append([line for line in told.err.splitlines() if line.startswith("error")])
        assert "1 of 3 could not be recognised" in told.err
        assert len([line for line in told.out.splitlines() if " events in " in line]) == 2
    assert said[0] == said[1]
    assert "b_up" in said[0][0]
    for out in outs:
        (out / ".lock").unlink()
    assert digests(outs[1]) == digests(outs[0])


# --- Without a cluster ----------------------------------------------------------------------------


@pytest.mark.system
def test_without_a_cluster_an_error_is_a_line(tmp_path, capsys, monkeypatch):
    pytest.importorskip("ray", reason="needs the extra ray")
    own_data.make_data(tmp_path)
    words = own_data.words(tmp_path, tmp_path / "out", "--size=32")
    nobody = free_address()
    for flag in (f"--ray={nobody}", "--ray=auto"):
        line = refused(capsys, own.main, [*words, flag])
        assert f"{flag}: no cluster answers at HOST:PORT, as `ray start --head` prints" in line
    line = refused(capsys, own.main, [*words, f"--ray={nobody}", "--workers=3"])
    assert "argument --workers: not allowed with argument --ray" in line
    assert "unrecognized arguments: --ray" in refused(capsys, meccano.main, [f"--ray={nobody}"])
    assert not list((tmp_path / "out").glob(".lock"))
    monkeypatch.setitem(sys.modules, "ray", None)
    says = f"--ray={nobody} needs 'ray': pip install '.[ray]' in the clone"
    assert says in refused(capsys, own.main, [*words, f"--ray={nobody}"])
