"""A tenth of `python -m tests.hostile`: nothing hangs, escapes, crashes or is silently damaged."""

import faulthandler
import json
import os
import socket
import sys

import pytest

from tests.hostile import families, media, mutations, processes, runs
from tests.support.processes import environment, finish, start

pytestmark = pytest.mark.system


@pytest.fixture
def folder(finished, tmp_path):
    """That of the runner, with the finished run of all tests as the undisturbed one."""
    base = tmp_path / "base"
    base.mkdir()
    (base / "run").symlink_to(finished)
    (base / "seconds.json").write_text(json.dumps(dict.fromkeys(runs.STAGES, 3.0)))
    return tmp_path


@pytest.mark.parametrize(
    ("attempts", "names"), [(10, families.QUICK), (1, families.SLOW)], ids=["quick", "slow"]
)
def test_faults_nothing_goes_wrong(folder, attempts, names):
    words = [sys.executable, "-m", "tests.hostile", f"--folder={folder}", f"--attempts={attempts}"]
    said = finish(start([*words, f"--only={','.join(names)}"], env=environment()), timeout=600)
    rows = [json.loads(line) for line in (folder / "attempts.jsonl").read_text().splitlines()]
    assert {row["family"] for row in rows} == set(names)
    assert len(rows) == attempts * len(names)
    assert [row for row in rows if row["wrong"]] == []
    assert f"| all | {len(rows)} | 0 | 0 | 0 | 0 | 0 |" in said[0]


def test_faults_that_there_were_are_found_when_they_are_put_back(folder):
    words = [sys.executable, "-m", "tests.hostile.mutations", folder]
    lines = finish(start(words, env=environment()), timeout=600)[0].splitlines()
    found = [line.partition(": ")[0] for line in lines if ": found by attempt " in line]
    assert found == [fault.__name__ for fault in mutations.FAULTS], lines


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

    assert processes.call(bug, tmp_path).wrong == {"traceback"}
    assert processes.call(abort, tmp_path).wrong == {"traceback"}
    assert processes.call(hang, tmp_path, limit=0.5).wrong == {"hang"}
    good = processes.call(lambda: sys.exit("error: file x: one line"), tmp_path)
    assert good == processes.Outcome(1, "error: file x: one line\n")
    assert good.judged(["file x"]) == set()
    assert good.judged(["file y"]) == {"silent"}
    assert processes.Outcome(1, "no line of an error").judged([""]) == {"traceback"}
    assert processes.Outcome(0, "").judged([""]) == set()
    assert processes.Outcome(0, "").judged([""], sound=False) == {"silent"}


def test_listing_sees_what_is_written_beside_the_folder(tmp_path):
    place = tmp_path / "attempt" / "inside"
    place.mkdir(parents=True)
    before = families.listing(place)
    (place / "file").write_text("in its own folder")
    assert families.listing(place) == before
    (place.parent / "file").write_text("outside")
    assert families.listing(place) != before
    rows = [{"family": "kill", "wrong": ["hang", "outside"]}, {"family": "kill", "wrong": []}]
    assert "| kill | 2 | 1 | 1 | 0 | 0 | 0 |" in families.table(rows)


def test_watched_sees_what_is_opened_and_who_calls(tmp_path):
    (tmp_path / "video").write_bytes(b"a video")
    with media.watched([tmp_path / "secret"], tmp_path / "video") as (port, touched):
        assert not touched()
        (tmp_path / "secret").read_bytes()
        assert touched()
        assert not touched()
        socket.create_connection(("127.0.0.1", port)).close()
        assert touched()
