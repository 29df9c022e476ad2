"""Clip shards: the same bytes however they are made, also after interruptions and changes."""

import dataclasses
import functools
import os
import shutil
import signal
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow_datasets as tfds
from array_record.python import array_record_module

from data_prep.writing import recording_shard, shards
from stormpsr_jax.base import files
from tests.support import shards_data
from tests.support.digests import digests
from tests.support.processes import is_gone, start, wait_until
from tests.support.shards_data import SPLITS, build, make, toy_procedure, toy_recording


def test_build_readable_by_tfds(built):
    builder = tfds.builder_from_directory(built)
    assert sorted(builder.info.splits) == ["test", "train"]
    for split in ("train", "test"):
        source = builder.as_data_source(split)
        records = iter([source[i] for i in range(len(source))])
        for name in sorted(SPLITS[split]):
            data = toy_recording(name)
            jpegs = list(data.jpegs)
            for first in range(0, len(jpegs), 4):
                clip = slice(first, first + 4)
                record = next(records)
                assert record["recording"] == name.encode()
                assert record["first_frame"] == 1 + first
                assert list(record["jpeg"]) == jpegs[clip]
                assert record["state"].dtype == np.int8
                np.testing.assert_array_equal(record["state"], data.states[clip])
                np.testing.assert_array_equal(record["box"], data.boxes[clip].astype(np.float32))
                np.testing.assert_array_equal(record["asd_class"], data.classes[clip])
                np.testing.assert_array_equal(
                    record["visible"], data.visible[clip].astype(np.float32)
                )
        assert next(records, None) is None
    assert "tensorflow" not in sys.modules


@pytest.mark.usefixtures("system")  # workers
def test_build_same_bytes_for_any_workers_and_order(built, tmp_path):
    reordered = {split: SPLITS[split][::-1] for split in ("val", "test", "train")}
    build(tmp_path / "other", workers=2, splits=reordered)
    assert digests(tmp_path / "other") == digests(built)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"procedure": toy_procedure().at(6)}, "fps 5.0 → 6.0"),
        ({"image_size": (24, 24)}, "image_size"),
        ({"splits": {"train": ["a", "b", "c"]}}, r"splits.test \['d'\] → absent"),
        ({"settings": {"seed": {"scene": 1}}}, "settings.seed.scene absent → 1"),
        ({"procedure": toy_procedure(name="other").at(5)}, "name toy → other"),
        ({"procedure": toy_procedure(states=["100"]).at(5)}, r"states \["),
    ],
)
def test_build_other_arguments_are_refused(built, change, message):
    before = digests(built)
    with pytest.raises(ValueError, match=f"made with other arguments .*{message}.*another folder"):
        build(built, **change)
    assert digests(built) == before


def pictures(change):
    """Makes another number of pictures for recording b than it has labels."""
    return {"change": lambda data: dataclasses.replace(data, jpegs=change(list(data.jpegs)))}


SYSTEM = {"marks": pytest.mark.system}  # workers


@pytest.mark.parametrize(
    ("options", "workers", "error", "message"),
    [
        ({"fail": "value,d"}, 1, ValueError, "test/d: no d here"),
        pytest.param({"fail": "value,d"}, 2, ValueError, "test/d: no d here", **SYSTEM),
        ({"fail": "key,d"}, 1, RuntimeError, "test/d: KeyError: 'no d here'"),
        (pictures(lambda jpegs: jpegs[:-2]), 1, ValueError, "train/b: it has 9 images for its 11"),
        (pictures(lambda jpegs: jpegs * 2), 1, ValueError, "train/b: .*more images than its 11"),
        ({}, 1, OSError, "train/c: no space left on the disk; free"),
    ],
)
def test_build_failure_names_the_recording_and_leaves_nothing_that_looks_whole(
    built, tmp_path, monkeypatch, options, workers, error, message
):
    out, log = tmp_path / "out", tmp_path / "log"
    with monkeypatch.context() as patch:
        if error is OSError:
            # What is written for recording c goes to a device that is always full.
            writer, name = array_record_module.ArrayRecordWriter, "/.c."
            patch.setattr(
                recording_shard.array_record_module,
                "ArrayRecordWriter",
                lambda path, options: writer("/dev/full" if name in path else path, options),
            )
        failing = functools.partial(make, log=log, **options)
        with pytest.raises(error, match=f"recording {message}"):
            build(out, make=failing, workers=workers)
    begun, failed = log.read_text().split(), message[message.index("/") + 1]
    assert workers > 1 or failed in begun[-2:], "the next may have begun, no other one"
    assert not (out / "dataset_info.json").exists()
    assert not (out / ".lock").exists()
    # What another worker had begun when it was ended stays under such a name until the next run.
    assert workers > 1 or not [*out.rglob("*.part")]
    build(out)
    assert digests(out) == digests(built)


@pytest.mark.usefixtures("system")  # workers
def test_build_killed_worker_is_an_error(tmp_path):
    failing = functools.partial(make, fail="die,b")
    with pytest.raises(ChildProcessError, match=r"worker process died.*run the same command again"):
        build(tmp_path / "out", make=failing, workers=2)


def test_build_makes_the_longest_first_and_nothing_twice(built, tmp_path):
    out, log = tmp_path / "out", tmp_path / "log"
    make = functools.partial(shards_data.make, log=log)
    build(out, make=make, num_frames={"a": 6, "b": 60, "c": 7, "d": 9})
    assert log.read_text().split() == ["b", "d", "c", "a"]
    assert digests(out) == digests(built)
    build(out, make=None)


@pytest.mark.system
def test_build_errors_a_second_run_is_told_who_has_the_folder(built, tmp_path):
    out, begun, go_on = tmp_path / "out", threading.Event(), threading.Event()

    def slow(split: str, name: str) -> shards.RecordingData:
        begun.set()
        assert go_on.wait(60)
        return toy_recording(name)

    first = threading.Thread(target=build, args=(out,), kwargs={"make": slow})
    first.start()
    assert begun.wait(60)
    with pytest.raises(ValueError, match=rf"another process \({os.getpid()} on .* writing to"):
        build(out)
    go_on.set()
    first.join(60)
    assert digests(out) == digests(built)  # the second one disturbed nothing
    assert not (out / ".lock").exists()
    with shards.only_writer(out):
        build(out)  # what is complete is only read


INTERRUPTED = """
import functools, pathlib, sys
from tests.support import shards_data
if __name__ == "__main__":
    out, log = map(pathlib.Path, sys.argv[1:3])
    make = functools.partial(shards_data.make, log=log, sleep=0.2)
    shards_data.build(out, make=make, workers=2)
"""


@pytest.mark.system
@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT])
def test_build_interrupted_and_run_again_gives_the_same_bytes(built, tmp_path, sent):
    script, out, log = tmp_path / "script.py", tmp_path / "out", tmp_path / "log"
    script.write_text(INTERRUPTED)
    process = start([sys.executable, script, out, log], start_new_session=True)
    # Until something is finished and the next recording has begun.
    wait_until(
        lambda: list(out.glob("recordings/?")) and list(out.glob("recordings/.*.part")), process
    )
    if sent == signal.SIGINT:  # what Ctrl-C does: to every process of the group
        os.killpg(process.pid, sent)
    else:
        process.kill()
    error = process.communicate(timeout=120)[0]
    finished = {path.name for path in out.glob("recordings/?")}
    assert 0 < len(finished) < 4
    assert not (out / "dataset_info.json").exists()
    if sent == signal.SIGINT:
        assert "KeyboardInterrupt" in error
        assert not (out / ".lock").exists()
    begun = {int(path.name.split(".")[-2]) for path in out.glob("recordings/.*.part")}
    wait_until(lambda: all(map(is_gone, begun)))
    assert {path.name for path in out.glob("recordings/?")} == finished  # workers died too

    log.unlink()
    build(out, make=functools.partial(make, log=log))
    assert sorted(log.read_text().split()) == sorted({*"abcd"} - finished)
    assert digests(out) == digests(built)


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


OLD = {"train": ["a", "b", "c"], "test": ["d"]}
# New are e and f, a is gone, b is corrected, c is in another split, and d has another shard name.
NEW = {"train": ["b", "e"], "val": ["c"], "test": ["d", "f"]}


def change(out: Path, splits=NEW, log: Path | None = None, **changed: str) -> None:
    """`changed` says which recordings have other sources than at first."""
    names = [name for of_split in splits.values() for name in of_split]
    shards_data.build(
        out,
        splits=splits,
        sources={name: {"labels": changed.get(name, "first")} for name in names},
        make=functools.partial(shards_data.make, log=log),
        remake=True,
    )


@pytest.fixture
def old(tmp_path) -> Path:
    change(tmp_path / "out", OLD)
    return tmp_path / "out"


@pytest.fixture(scope="module")
def anew(tmp_path_factory) -> dict[str, str]:
    out = tmp_path_factory.mktemp("anew") / "out"
    change(out, b="second")
    return digests(out)


def stopping_at(patch: pytest.MonkeyPatch, number: int) -> None:
    """Ctrl-C at one of the operations that change a folder, counted from 0."""
    calls = []

    def stopping(operation):
        def call(*args, **kwargs):
            calls.append(args)
            if len(calls) == number + 1:
                raise KeyboardInterrupt
            return operation(*args, **kwargs)

        return call

    patch.setattr(shards, "os", SimpleNamespace(replace=stopping(os.replace)))
    patch.setattr(shards, "shutil", SimpleNamespace(rmtree=stopping(shutil.rmtree)))
    patch.setattr(files, "replacing", stopping(files.replacing))
    patch.setattr(recording_shard, "write", stopping(recording_shard.write))


def stopped(out: Path, number: int) -> bool:
    """Whether a change was stopped at an operation; the folder does not look whole then."""
    with pytest.MonkeyPatch.context() as patch:
        stopping_at(patch, number)
        try:
            change(out, b="second")
        except (KeyboardInterrupt, RuntimeError):  # the latter from a worker
            assert not (out / "dataset_info.json").exists()
            return True
    return False


@pytest.mark.usefixtures("system")  # seconds
@pytest.mark.parametrize("back", [False, True])
def test_changes_stopped_anywhere_look_unfinished_and_go_on_or_back(old, anew, tmp_path, back):
    kept, number = shutil.copytree(old, tmp_path / "kept"), 0
    while stopped(old, number):
        change(old, **({"splits": OLD} if back else {"b": "second"}))
        assert digests(old) == (digests(kept) if back else anew), number
        shutil.rmtree(old)
        shutil.copytree(kept, old)
        number += 1
    assert number > 10
