import functools
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from data_prep.writing import output, recording_shard, shards
from tests.support import shards_data
from tests.support.digests import digests

OLD = {"train": ["a", "b", "c"], "test": ["d"]}
# New are e and f, a is gone, b is corrected, c is in another split, and d has another shard name.
NEW = {"train": ["b", "e"], "val": ["c"], "test": ["d", "f"]}


def build(out: Path, splits=NEW, log: Path | None = None, **changed: str) -> None:
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
    build(tmp_path / "out", OLD)
    return tmp_path / "out"


@pytest.fixture(scope="module")
def anew(tmp_path_factory) -> dict[str, str]:
    out = tmp_path_factory.mktemp("anew") / "out"
    build(out, b="second")
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
    patch.setattr(output, "write_atomically", stopping(output.write_atomically))
    patch.setattr(recording_shard, "write", stopping(recording_shard.write))


def stopped(out: Path, number: int) -> bool:
    """Whether a change was stopped at an operation; the folder does not look whole then."""
    with pytest.MonkeyPatch.context() as patch:
        stopping_at(patch, number)
        try:
            build(out, b="second")
        except (KeyboardInterrupt, RuntimeError):  # the latter from a worker
            assert not (out / "dataset_info.json").exists()
            return True
    return False


@pytest.mark.usefixtures("system")  # seconds
@pytest.mark.parametrize("back", [False, True])
def test_changes_stopped_anywhere_look_unfinished_and_go_on_or_back(old, anew, tmp_path, back):
    kept, number = shutil.copytree(old, tmp_path / "kept"), 0
    while stopped(old, number):
        build(old, **({"splits": OLD} if back else {"b": "second"}))
        assert digests(old) == (digests(kept) if back else anew), number
        shutil.rmtree(old)
        shutil.copytree(kept, old)
        number += 1
    assert number > 10
