import dataclasses
import functools
import os
import threading

import pytest

from data_prep.writing import output, shards
from tests.support import shards_data
from tests.support.digests import digests
from tests.support.shards_data import build, toy_recording

RAW = b"00001.jpg,0,0,0\n00004.jpg,1,0,0\n00006.jpg,1,-1,0\n00008.jpg,1,1,1\n00010.jpg,1,1,0\n"


def test_build_only_the_glob_is_made_and_the_longest_first(built, tmp_path, capsys):
    out, log = tmp_path / "out", tmp_path / "log"
    make = functools.partial(shards_data.make, log=log)
    assert not build(
        out, make=make, recordings="[ac]", num_frames={"a": 6, "b": 60, "c": 7, "d": 9}
    )
    assert log.read_text().split() == ["c", "a"]
    assert "2 of 4 recordings are still missing (d, b)" in capsys.readouterr().out
    assert not (out / "dataset_info.json").exists()
    assert not build(out, make=make, recordings="test/*")
    assert build(out, make=make, recordings="train/*")  # completes the folder
    assert log.read_text().split() == ["c", "a", "d", "b"]
    assert digests(out) == digests(built)
    assert build(out, make=None, recordings="a")
    with pytest.raises(ValueError, match=r"--recordings=x\* matches none of the 4"):
        build(tmp_path / "other", recordings="x*")


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
    assert not (out / "unfinished").exists()
    with output.only_writer(out):
        assert build(out)  # what is complete is only read


def test_build_shipped_label_files_are_kept_byte_for_byte(tmp_path):
    shipped = {
        "PSR_labels_raw.csv": RAW,
        "PSR_labels.csv": b"000003.jpg,0,put the base there\n",
    }

    def shipping(data):
        return dataclasses.replace(data, label_files=shipped)

    make = functools.partial(shards_data.make, change=shipping)
    assert build(tmp_path / "out", make=make, splits={"train": ["b"]})
    folder = tmp_path / "out/labels/train/b"
    for file, content in shipped.items():
        assert (folder / file).read_bytes() == content
    derived = (folder / "PSR_labels_with_errors.csv").read_text().splitlines()
    assert [line.split(",")[:2] for line in derived][:2] == [["00004.jpg", "0"], ["00006.jpg", "4"]]
