import functools
import os
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest
from array_record.python import array_record_module

from data_prep.writing import recording_shard
from tests.support.digests import digests
from tests.support.processes import start, wait_until
from tests.support.shards_data import build, make

INTERRUPTED = """
import functools, pathlib, sys
from tests.support import shards_data
if __name__ == "__main__":
    out, log = map(pathlib.Path, sys.argv[1:3])
    make = functools.partial(shards_data.make, log=log, sleep=0.2)
    shards_data.build(out, make=make, workers=2)
"""


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT])
def test_build_interrupted_and_run_again_gives_the_same_bytes(built, tmp_path, sent):
    script, out, log = tmp_path / "script.py", tmp_path / "out", tmp_path / "log"
    script.write_text(INTERRUPTED)
    process = start([sys.executable, script, out, log], start_new_session=True)
    # Until something is finished and the next recording has begun.
    wait_until(lambda: list(out.glob("clips-*")) and list(out.glob("unfinished/clips-*")), process)
    if sent == signal.SIGINT:  # what Ctrl-C does: to every process of the group
        os.killpg(process.pid, sent)
    else:
        process.kill()
    error = process.communicate(timeout=120)[0]
    finished = sorted(path.name for path in out.glob("clips-*"))
    assert 0 < len(finished) < 4
    assert not (out / "dataset_info.json").exists()
    if sent == signal.SIGINT:
        assert "KeyboardInterrupt" in error
        assert not list(out.glob("unfinished/*"))
    wait_until_gone(out)
    assert sorted(path.name for path in out.glob("clips-*")) == finished  # workers died too

    log.unlink()
    build(out, make=functools.partial(make, log=log))
    shards = {f"clips-train.array_record-{i:05d}-of-00003": name for i, name in enumerate("abc")}
    shards["clips-test.array_record-00000-of-00001"] = "d"
    remaining = {name for shard, name in shards.items() if shard not in finished}
    assert sorted(log.read_text().split()) == sorted(remaining)
    assert digests(out) == digests(built)


def wait_until_gone(out: Path) -> None:
    deadline = time.monotonic() + 60
    for pid in {int(path.suffix[1:]) for path in out.glob("unfinished/*[0-9]")}:
        while is_running(pid):
            assert time.monotonic() < deadline, "a worker outlived its parent"
            time.sleep(0.02)


def is_running(pid: int) -> bool:
    try:
        return bool(Path(f"/proc/{pid}/cmdline").read_bytes())  # empty for a zombie
    except FileNotFoundError:
        return False


@pytest.mark.parametrize(
    ("file", "size", "made"),
    [
        ("clips-train.array_record-00001-of-00003", 0, ["b"]),
        ("clips-test.array_record-00000-of-00001", -100, ["d"]),
        ("labels/train/b/frames.npz", -100, ["b"]),
        ("features.json", 0, []),
        ("labels/test.npz", 0, []),
    ],
)
def test_build_what_is_deleted_or_truncated_is_made_again_alone(built, tmp_path, file, size, made):
    out, log = shutil.copytree(built, tmp_path / "out"), tmp_path / "log"
    content = (out / file).read_bytes()
    (out / file).unlink()
    if size:
        (out / file).write_bytes(content[:size])
    log.touch()
    build(out, make=functools.partial(make, log=log))
    assert log.read_text().split() == made
    assert digests(out) == digests(built)


def test_build_full_disk_leaves_nothing_that_looks_whole(built, tmp_path, monkeypatch):
    out = tmp_path / "out"
    name = "clips-train.array_record-00002-of-00003"
    with monkeypatch.context() as patch:
        # What is written for recording c goes to a device that is always full.
        writer = array_record_module.ArrayRecordWriter
        patch.setattr(
            recording_shard.array_record_module,
            "ArrayRecordWriter",
            lambda path, options: writer("/dev/full" if name in path else path, options),
        )
        with pytest.raises(OSError, match="recording train/c: no space left on the disk; free"):
            build(out)
    assert not (out / name).exists()
    assert not list(out.glob("unfinished/*"))
    assert not (out / "dataset_info.json").exists()
    build(out)
    assert digests(out) == digests(built)


@pytest.mark.usefixtures("system")  # workers
def test_build_killed_worker_is_an_error(tmp_path):
    failing = functools.partial(make, fail="die,b")
    with pytest.raises(ChildProcessError, match=r"worker process died.*run the same command again"):
        build(tmp_path / "out", make=failing, workers=2)
