"""What a check finds: each way of damaging a folder is named."""

import dataclasses
import json
import os
import shutil

import numpy as np
import pytest
from array_record.python import array_record_module

from data_prep import check
from data_prep.checking import recording_checks as check_recording
from data_prep.checking.folder import check_folder
from data_prep.writing import recording_shard, shards
from stormpsr_jax.base import memory
from tests.support.arrays import filled, rewrite
from tests.support.check_data import PROCEDURE, SIZE, build, jpeg, make
from tests.support.commands import refused


def _shard(folder, name="b"):
    place = {"a": "train.{}-00000-of-00002", "b": "train.{}-00001-of-00002"}[name]
    return folder / f"clips-{place.format('array_record')}"


def _rewrite_records(path, change):
    """Writes a shard anew, with its list of tf.train.Example changed."""
    from tensorflow_datasets.proto import tf_example_pb2

    reader = array_record_module.ArrayRecordReader(str(path))
    examples = [tf_example_pb2.Example.FromString(d) for d in reader.read_all()]
    reader.close()
    change([e.features.feature for e in examples])
    writer = array_record_module.ArrayRecordWriter(str(path), recording_shard.WRITER_OPTIONS)
    for example in examples:
        writer.write(example.SerializeToString())
    writer.close()


def _truncate(path):
    path.write_bytes(path.read_bytes()[:-40_000])


def _halve(path):
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def _flip(path):
    data = bytearray(path.read_bytes())
    data[1000] ^= 1
    path.write_bytes(data)


LABELS = "labels/train/b"
FRAMES = f"{LABELS}/frames.npz"


def _edited(file, change):
    def corrupt(folder):
        content = json.loads((folder / file).read_text())
        change(content)
        (folder / file).write_text(json.dumps(content))

    return corrupt


def _frames(file=FRAMES, **changes):
    """Other arrays in the labels of recording b."""
    return lambda folder: rewrite(folder / file, **changes)


def _of_split(**changes):
    return _frames("labels/train.npz", **changes)


def _stored(record, feature, kind, index, value):
    """Another value in a record of recording b."""

    def change(records):
        getattr(records[record][feature], f"{kind}_list").value[index] = value

    return lambda folder: _rewrite_records(_shard(folder), change)


# What is done to the folder, and what a line must say (file or recording, frame, what).
CORRUPTIONS = {
    "no dataset_info": (lambda f: (f / "dataset_info.json").unlink(), "dataset_info.json: missing"),
    "no features": (lambda f: (f / "features.json").unlink(), "features.json: missing"),
    "bad json": (
        lambda f: (f / "dataset_info.json").write_text("{"),
        "info.json: line 1: not JSON",
    ),
    "shard lengths": (
        _edited("dataset_info.json", lambda c: c["splits"][1].update(shardLengths=["3", "2"])),
        "dataset_info.json: records per shard of split 'train'",
    ),
    "other features": (
        _edited("features.json", lambda c: c["featuresDict"]["features"].pop("jpeg")),
        "features.json: names the features",
    ),
    "no procedure": (lambda f: (f / "procedure.json").unlink(), "procedure.json: missing"),
    "bad procedure": (
        lambda f: (f / "procedure.json").write_text("{"),
        "in double quotes); delete it, then run the same data_prep command again",
    ),
    "no settings": (lambda f: (f / "settings.json").unlink(), "settings.json: missing"),
    "bad settings": (
        _edited("settings.json", lambda c: c.pop("fps")),
        "settings.json: fps: is missing",
    ),
    "two splits": (
        _edited("settings.json", lambda c: c["splits"]["val"].append("a")),
        "a: recording is in split",
    ),
    "no variant": (
        _edited("procedure.json", lambda c: c["variants"]["all"].update(recordings=["[acd]"])),
        "train/b: no variant matches",
    ),
    "no shard": (lambda f: _shard(f).unlink(), "the shard of train/b is missing"),
    "truncated": (lambda f: _truncate(_shard(f)), "train/b has 0 records instead of 3"),
    "flipped bit": (lambda f: _flip(_shard(f)), "00001-of-00002: train/b: frames 1…4: record 0"),
    "swapped shards": (
        lambda f: shutil.copy(_shard(f, "a"), _shard(f)),
        "train/b: frames 1…11: the record says that it is of recording 'a'",
    ),
    "first frame": (
        _stored(1, "first_frame", "int64", 0, 6),
        "train/b: frames 5…8: the record's first frame is 6 instead of 5",
    ),
    "state": (_stored(1, "state", "int64", 3, -1), "train/b: frame 6: states differ"),
    "box": (_stored(0, "box", "float", 0, 0.5), "train/b: frame 1: boxes differ"),
    "class": (_stored(2, "asd_class", "int64", 2, 1), "train/b: frame 11: classes differ"),
    "visible": (_stored(0, "visible", "float", 1, 1), "train/b: frame 2: visible differ"),
    "picture lost": (
        lambda f: _rewrite_records(_shard(f), lambda e: e[1]["jpeg"].bytes_list.value.pop()),
        "train/b: frames 5…8: the record has 3 pictures instead of 4",
    ),
    "no JPEG": (
        _stored(0, "jpeg", "bytes", 3, b"\xff\xd8 no"),
        "train/b: frame 4: not a readable JPEG",
    ),
    "truncated JPEG": (
        _stored(0, "jpeg", "bytes", 0, jpeg(1)[:-200]),
        "train/b: frame 1: not a readable JPEG",
    ),
    "picture size": (
        _stored(2, "jpeg", "bytes", 2, jpeg(1, (8, 24))),
        "train/b: frame 11: the picture is 8x24 (HxW) instead of 16x24",
    ),
    "no split labels": (lambda f: (f / "labels/val.npz").unlink(), "val.npz: missing"),
    "bad split labels": (
        lambda f: (f / "labels/val.npz").write_bytes(b"no"),
        "val.npz: damaged",
    ),
    "split recordings": (
        _of_split(recordings=filled(1, "x")),
        "train.npz: its recordings (a, x) are not those of settings.json (a, b)",
    ),
    "split differs": (
        _of_split(states=filled((14, 2), 1)),
        "train/b: states of frame 4 in frames.npz differ from labels/train.npz",
    ),
    "poses differ": (
        _of_split(poses=filled((14, 2), 1)),
        "train/b: poses of frame 4 in frames.npz differ from labels/train.npz",
    ),
    "pose shape": (_frames(poses=lambda p: p[:, :2]), "frames.npz: poses have shape (11, 2)"),
    "no frames.npz": (lambda f: (f / FRAMES).unlink(), "train/b/frames.npz: missing"),
    "bad frames.npz": (lambda f: _truncate(f / FRAMES), "train/b/frames.npz: not readable"),
    "half of frames.npz": (lambda f: _halve(f / FRAMES), "train/b/frames.npz: not readable (File"),
    "a pipe": (
        lambda f: ((f / FRAMES).unlink(), os.mkfifo(f / FRAMES)),
        "train/b/frames.npz: is not a regular file",
    ),
    "wrong K": (_frames(states=lambda s: s[:, :2]), "frames.npz: states have shape (11, 2)"),
    "state value": (
        _frames(states=filled((2, 0), 2)),
        "train/b: frame 3: states have values other than",
    ),
    "class value": (_frames(classes=filled(4, 5)), "train/b: frame 5: classes are outside -2…4"),
    "half a box": (_frames(boxes=filled((4, 0), np.nan)), "train/b: frame 5: boxes have NaN"),
    "flat box": (_frames(boxes=filled((4, 2), 0)), "train/b: frame 5: boxes have no width"),
    "box without class": (
        _frames(classes=filled(4, -1)),
        "train/b: frame 5: a box without a class",
    ),
    "class without box": (_frames(classes=filled(0, 0)), "train/b: frame 1: a class without a box"),
    "visible value": (_frames(visible=filled(1, 1.5)), "train/b: frame 2: visible fractions"),
    "no raw labels": (
        lambda f: (f / LABELS / "PSR_labels_raw.csv").unlink(),
        "PSR_labels_raw.csv: cannot be read",
    ),
    "raw labels differ": (
        lambda f: (f / LABELS / "PSR_labels_raw.csv").write_text("1.jpg,0,0,0\n9.jpg,1,1,1\n"),
        "train/b: PSR_labels_raw.csv: frames 4…8 have other states",
    ),
    "unknown step": (
        lambda f: (f / LABELS / "PSR_labels.csv").write_text("4.jpg,9,Install roof\n"),
        "PSR_labels.csv: line 1: step id",
    ),
    "step past the end": (
        lambda f: (f / LABELS / "PSR_labels.csv").write_text("12.jpg,6,Install lid\n"),
        "train/b: PSR_labels.csv: frame 12: steps outside of the recording, 1…11",
    ),
}


@pytest.fixture
def no_page(monkeypatch):
    """For tests that look at what is printed: the page's figures take most of the time."""
    monkeypatch.setattr(check, "write_page", lambda *_: None)


@pytest.mark.usefixtures("no_page")
@pytest.mark.parametrize("name", CORRUPTIONS)
def test_check_names_what_is_wrong(folder, name, capsys):
    corrupt, expected = CORRUPTIONS[name]
    corrupt(folder)
    assert check.main([str(folder), "--all"]) == 1
    captured = capsys.readouterr()
    problems = [line for line in captured.out.splitlines() if line.startswith("problem: ")]
    assert any(expected in line for line in problems), problems
    assert all(";" in line for line in problems)  # and what to do
    assert "Traceback" not in captured.err
    assert not (folder / "SHA256SUMS").exists()


def test_check_reports_all_problems(folder, capsys):
    _flip(_shard(folder))
    (folder / "labels/test/d/frames.npz").unlink()
    rewrite(folder / "labels/val/c/frames.npz", visible=filled(1, 2))
    assert check.main([str(folder)]) == 1
    out = capsys.readouterr().out
    for text in ("record 0 cannot", "d/frames.npz: missing", "val/c: frame 2: visible fractions"):
        assert text in out
    assert "val/c: frame 2: visible fractions" in (folder / "check.html").read_text()


def test_check_finds_the_same_recording_in_two_splits(tmp_path):
    def copy(split, name):
        return dataclasses.replace(make(split, "a"), name=name)

    splits = {"train": ["a", "b"], "test": ["d"]}
    shards.build(tmp_path, procedure=PROCEDURE, fps=5, image_size=SIZE, splits=splits, make=copy)
    for everything in (False, True):
        checked = check_folder(tmp_path, everything=everything)
        assert len(checked.problems) == 2
        assert all("test/d" in line and "the same" in line for line in checked.problems)
        (warning,) = checked.warnings
        assert "train/a and train/b" in warning


@pytest.mark.usefixtures("no_page")
def test_check_other_labels_than_the_states_are_a_warning(folder, capsys):
    (folder / LABELS / "PSR_labels.csv").write_text(
        "4.jpg,0,Install base\n8.jpg,3,Install wheel\n10.jpg,6,Install lid\n"
    )
    assert check.main([str(folder)]) == 0
    out = capsys.readouterr().out
    assert "PSR_labels.csv: 1 rows without a change of state: 10 Install lid" in out
    assert "PSR_labels.csv: 1 changes of state without a row: 8 Install lid" in out


@pytest.mark.usefixtures("no_page")
def test_a_part_that_becomes_wrong_need_not_be_removed_in_the_file_with_errors(tmp_path, capsys):
    """The authors' files have one row where 1 becomes -1; ours have a removal too."""

    def change(data):
        data.states[9:, 1] = -1  # from frame 10 on
        return data

    folder = build(tmp_path / "shards", change)
    path = folder / LABELS / "PSR_labels_with_errors.csv"
    whole = path.read_text()
    removed, wrong = ("00010.jpg,5,Remove wheel\n", "00010.jpg,4,Incorrectly installed wheel\n")
    for left_out, warned in (("", False), (removed, False), (wrong, True)):
        assert left_out in whole
        path.write_text(whole.replace(left_out, ""))
        assert check.main([str(folder)]) == 0
        assert ("with_errors.csv: 1 changes of state" in capsys.readouterr().out) == warned


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda d: d.boxes.__setitem__((4, 0), 0.05), "1 boxes reach out of the picture"),
        (lambda d: d.classes.__setitem__(4, 2), "1 boxes are of another assembly state"),
    ],
)
def test_check_warns_of_odd_boxes(tmp_path, change, expected):
    def changed(data):
        change(data)
        return data

    checked = check_folder(build(tmp_path, changed))
    assert not checked.problems
    (warning,) = checked.warnings
    assert expected in warning
    assert warning.startswith("train/b")
    assert "frame 5" in warning


def test_check_warns_of_files_that_nothing_names(folder):
    shutil.copy(_shard(folder), folder / "clips-train.array_record-00000-of-00007")
    (folder / "labels/train/zz").mkdir()
    (folder / "unfinished").mkdir()
    (folder / "unfinished/x").touch()
    checked = check_folder(folder)
    assert not checked.problems
    assert len(checked.warnings) == 3


@pytest.mark.usefixtures("no_page")
def test_check_sums_find_any_change(folder, capsys):
    assert check.main([str(folder), "--all"]) == 0
    assert check.main([str(folder), "--all"]) == 0  # the list is compared now
    path = folder / LABELS / "PSR_labels.csv"
    path.write_text(path.read_text().replace("base", "bass"))  # a description, which nobody reads
    capsys.readouterr()
    assert check.main([str(folder), "--all"]) == 1
    assert f"{path}: differs from its SHA-256" in capsys.readouterr().out


@pytest.mark.usefixtures("no_page")
def test_check_errors_a_pipe_in_place_of_the_list_of_sums(folder, capsys):
    os.mkfifo(folder / "SHA256SUMS")
    said = refused(capsys, check.main, [str(folder), "--all"], lines=None)
    assert "SHA256SUMS: is not a regular file; remove it" in said


@pytest.mark.usefixtures("no_page")
def test_check_sums_are_compared_though_the_procedure_is_damaged(folder, capsys):
    assert check.main([str(folder), "--all"]) == 0
    (folder / "procedure.json").write_text("{")
    capsys.readouterr()
    assert check.main([str(folder), "--all"]) == 1
    said = capsys.readouterr().out
    assert f"{folder}/procedure.json: differs from its SHA-256" in said
    assert "is missing" not in said


def test_check_labels_larger_than_memory_are_not_read(folder, monkeypatch):
    monkeypatch.setattr(memory, "available_bytes", lambda: 2**25)
    np.savez_compressed(folder / FRAMES, states=np.zeros(2**26, np.int8))
    (line,) = [line for line in check_folder(folder).problems if FRAMES in line]
    assert f"{FRAMES}: not readable (what is in it needs 0.1 GiB, 0.0 GiB are free)" in line


def test_frame_ranges_joins_neighbours():
    assert check_recording.frame_ranges([7]) == "frame 7"
    assert check_recording.frame_ranges([4, 2, 1, 3, 9, 9]) == "frames 1…4, 9"
    text = check_recording.frame_ranges(range(0, 100, 2))
    assert text.endswith("14, 42 more ranges")
