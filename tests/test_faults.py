"""A tenth of benchmarks/faults.py: nothing hangs, escapes, crashes, or is silently damaged."""

import faulthandler
import json
import os
import socket
import sys

import pytest

from tests.support.processes import ROOT, environment, finish, start

sys.path.append(str(ROOT / "benchmarks"))
import fault_media
import fault_processes
import fault_runs
import faults

# (attempts of each, families); forks of one process that has imported everything.
QUICK = (10, ("damaged model", "damaged input", "damaged weights", "crafted data",
              "checkpoints of others", "hostile media", "damaged labels", "configs",
              "damaged scores", "damaged fusion", "damaged state"))  # fmt: skip
SLOW = (1, ("kill", "terminate", "interrupt", "full disk", "damaged run", "damaged data",
            "environment", "processes"))  # fmt: skip


@pytest.fixture
def folder(finished, tmp_path):
    """That of the harness, with the finished run of all tests as the undisturbed one."""
    base = tmp_path / "base"
    base.mkdir()
    (base / "run").symlink_to(finished)
    (base / "seconds.json").write_text(json.dumps(dict.fromkeys(fault_runs.STAGES, 3.0)))
    return tmp_path


@pytest.mark.parametrize(("attempts", "families"), [QUICK, SLOW], ids=["quick", "slow"])
def test_faults_nothing_goes_wrong(folder, attempts, families):
    script = ROOT / "benchmarks" / "faults.py"
    words = [sys.executable, script, f"--folder={folder}", f"--attempts={attempts}"]
    said = finish(start([*words, f"--only={','.join(families)}"], env=environment()), timeout=600)
    rows = [json.loads(line) for line in (folder / "attempts.jsonl").read_text().splitlines()]
    assert {row["family"] for row in rows} == set(families)
    assert len(rows) == attempts * len(families)
    assert [row for row in rows if row["wrong"]] == []
    assert f"| all | {len(rows)} | 0 | 0 | 0 | 0 | 0 |" in said[0]


@pytest.mark.filterwarnings("ignore:os.fork")  # what is called there starts nothing of JAX
def test_outcome_faults_are_seen(tmp_path):
    """Else the table would always be full of zeros."""

    def bug():
        raise KeyError("a bug")

    def hang():
        while True:
            pass

    def abort():
        faulthandler.disable()  # pytest's
        os.abort()

    assert fault_processes.call(bug, tmp_path).crashed
    assert fault_processes.call(abort, tmp_path).crashed
    assert fault_processes.call(hang, tmp_path, limit=0.5).hung
    good = fault_processes.call(lambda: sys.exit("error: one line"), tmp_path)
    assert (good.code, good.crashed, good.hung) == (1, False, False)
    assert good.output == "error: one line\n"


def test_listing_sees_what_is_written_beside_the_folder(tmp_path):
    place = tmp_path / "attempt" / "inside"
    place.mkdir(parents=True)
    before = faults.listing(place)
    (place / "file").write_text("in its own folder")
    assert faults.listing(place) == before
    (place.parent / "file").write_text("outside")
    assert faults.listing(place) != before
    rows = [{"family": "kill", "wrong": ["hang", "outside"]}, {"family": "kill", "wrong": []}]
    assert "| kill | 2 | 1 | 1 | 0 | 0 | 0 |" in faults.table(rows)


def test_watched_sees_what_is_opened_and_who_calls(tmp_path):
    (tmp_path / "video").write_bytes(b"a video")
    with fault_media.watched([tmp_path / "secret"], tmp_path / "video") as (port, touched):
        assert not touched()
        (tmp_path / "secret").read_bytes()
        assert touched()
        assert not touched()
        socket.create_connection(("127.0.0.1", port)).close()
        assert touched()
