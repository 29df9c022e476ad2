import dataclasses
import functools
import re

import numpy as np
import pytest

from data_prep import check
from data_prep.writing import shards
from tests.support.commands import refused
from tests.support.damage import edited, removed, written
from tests.support.shards_data import build, jpeg, make

SHARD = "clips-train.array_record-00001-of-00003"  # of recording b


@pytest.mark.parametrize("arguments", [[], ["--all"]])
def test_check_whole_folder_has_no_problem(folder, arguments, capsys):
    page = folder.parent / "page.html"
    assert check.main([str(folder), f"--out={page}", *arguments]) == 0
    out = capsys.readouterr().out
    assert not (folder / "check.html").exists()
    assert f"0 problems, 0 warnings ({44 if arguments else 12} frames" in out
    assert "problem:" not in out
    page = page.read_text()
    assert "No problems found" in page
    assert not re.search(r'(src|href)="(?!data:|#)', page)  # opens offline
    # 4 recordings, 3 completions each, around; and 3 boxes of two states and of error states.
    assert page.count("data:image/jpeg") == 4 * 3 * 3 + 3 * 3
    assert re.findall(r'row">(.*?)</th><td><code>(.*?)</code></td><td>(.*?)</td>', page) == [
        ("uncatalogued", "", "9 · 0"),
        ("state 1", "100", "6 · 3"),
        ("state 2", "110", "0 · 0"),
        ("state 3", "111", "12 · 3"),
        ("error state", "", "6 · 3"),
    ]


def _flip(folder):
    data = bytearray((folder / SHARD).read_bytes())
    data[1000] ^= 1
    (folder / SHARD).write_bytes(data)


DAMAGE = {
    "missing": (removed(SHARD), f"{SHARD}: this shard is missing; delete it"),
    "truncated": (
        lambda f: (f / SHARD).write_bytes((f / SHARD).read_bytes()[:-40_000]),
        f"{SHARD}: has 0 records instead of 3: it is truncated",
    ),
    "flipped": (_flip, f"{SHARD}: damaged, cannot be read"),
    "no labels": (removed("labels/train.npz"), "train.npz: missing"),
    "other K": (
        written("labels/train/b/PSR_labels_raw.csv", "1.jpg,0,0\n"),
        "b/PSR_labels_raw.csv: has states of 2 components",
    ),
    "no variant": (edited("procedure.json", '"*"', '"[acd]"'), "no variant matches recording 'b'"),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_check_names_what_is_wrong(folder, what, capsys):
    damage, expected = DAMAGE[what]
    damage(folder)
    assert check.main([str(folder)]) == 1
    out = capsys.readouterr().out
    (line,) = [line for line in out.splitlines() if line.startswith("problem: ")]
    assert expected in line
    assert "1 problems" in out
    assert expected.partition(":")[0].partition("'")[0] in (folder / "check.html").read_text()


def test_check_unfinished_folder_or_one_of_another_version_is_refused(folder, capsys):
    edited("settings.json", '"version": 1', '"version": 2')(folder)
    assert "settings.json: version: 2 is not 1" in refused(capsys, check.main, [str(folder)])
    (folder / "dataset_info.json").unlink()
    assert "preparation was not finished" in refused(capsys, check.main, [str(folder)])


def test_check_finds_the_same_recording_in_two_splits(tmp_path, capsys):
    def copy(split, name):
        return dataclasses.replace(make(split, "a"), name=name)

    build(tmp_path, splits={"train": ["a", "b"], "test": ["d"]}, make=copy)
    assert check.main([str(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert "warning: train/a and train/b have the same pictures" in out
    assert "problem: train/a and test/d have the same pictures" in out


def test_check_labels_that_are_doubtful_are_a_warning(tmp_path, capsys):
    def other(data):
        return dataclasses.replace(data, states=np.repeat([[0, 0, 0], [1, 0, 1]], (5, 6), axis=0))

    build(tmp_path, make=functools.partial(make, change=other))
    assert check.main([str(tmp_path)]) == 0
    warning = "warning: state 101 (base, lid on) is not in the procedure's states: b at 0:01.2"
    assert warning in capsys.readouterr().out


def test_check_page_does_not_grow_with_the_data(tmp_path):
    names = [f"r{i:02d}" for i in range(7)]

    def one(split, name):
        n = 12
        states = np.zeros((n, 3), int)
        states[:, 0] = np.arange(n) % 2  # 11 completions
        nothing = np.full((n, 4), np.nan)
        jpegs = [jpeg([int(name[1:]), i]) for i in range(n)]
        return shards.RecordingData(
            name, 0, jpegs, states, nothing, np.full(n, -1), np.full(n, np.nan)
        )

    build(tmp_path, splits={"train": names}, make=one)
    assert check.main([str(tmp_path)]) == 0
    page = (tmp_path / "check.html").read_text()
    assert page.count("data:image/jpeg") == 6 * 10 * 3
    assert "6 of 7 recordings with completions" in page
    assert "10 of 11 completions shown" in page
