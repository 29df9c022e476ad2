import dataclasses
import functools
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from array_record.python import array_record_module

from data_prep import check, check_recording, check_statistics, records, shards
from data_prep.check_folder import check_folder
from stormpsr_jax.data.clips import Recording
from stormpsr_jax.psr import labels
from stormpsr_jax.psr.procedure import Procedure, load_procedure

SHARED = Path(__file__).parents[2] / "../shared/data"
SIZE = (16, 24)
SPLITS = {"train": ["a", "b"], "val": ["c"], "test": ["d"]}
PROCEDURE = Procedure.from_json(
    {
        "name": "toy",
        "fps": 5,
        "components": ["base", "wheel", "lid"],
        "states": ["100", "110", "111"],
        "variants": {"all": {"initial_state": "000", "expected": [0, 3, 6], "recordings": ["*"]}},
    }
)


def _jpeg(seed, size=SIZE):
    image = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    return simplejpeg.encode_jpeg(image)


def _make(split, name, change=None):
    """11 frames 1…11 that a hand can count: 000, 100 from frame 4, 1-10 from 6, 111 from 8."""
    n = 11
    states = np.zeros((n, 3), int)
    states[3:, 0] = 1
    states[5:, 1] = -1
    states[7:, 1:] = 1
    boxes = np.full((n, 4), np.nan)
    boxes[[4, 6, 10]] = (0.5, 0.5, 0.4, 0.1)
    classes = np.full(n, -1)
    classes[[4, 6, 10]] = (1, 4, 3)
    visible = np.full(n, np.nan)
    visible[:2] = (0.2, 0.6)
    data = shards.RecordingData(
        name=name,
        first_frame=1,
        jpegs=[_jpeg([ord(name[0]), i]) for i in range(n)],
        states=states,
        boxes=boxes,
        classes=classes,
        visible=visible,
    )
    return change(data) if change is not None and name == "b" else data


def _build(out, change=None, splits=SPLITS):
    shards.build(
        out,
        procedure=PROCEDURE,
        fps=5,
        image_size=SIZE,
        splits=splits,
        make=functools.partial(_make, change=change),
        clip_length=4,
    )
    return out


@pytest.fixture(scope="session")
def whole(tmp_path_factory):
    return _build(tmp_path_factory.mktemp("data") / "shards")


@pytest.fixture
def folder(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "shards")


def _shard(folder, name="b"):
    place = {"a": "train.{}-00000-of-00002", "b": "train.{}-00001-of-00002"}[name]
    return folder / f"clips-{place.format('array_record')}"


def _rewrite_npz(path, **changes):
    with np.load(path) as file:
        arrays = dict(file)
    for key, change in changes.items():
        arrays[key] = change(arrays[key].copy())
    np.savez(path, **arrays)


def _rewrite_records(path, change):
    """Writes a shard anew, with its list of tf.train.Example changed."""
    from tensorflow_datasets.proto import tf_example_pb2

    reader = array_record_module.ArrayRecordReader(str(path))
    examples = [tf_example_pb2.Example.FromString(d) for d in reader.read_all()]
    reader.close()
    change([e.features.feature for e in examples])
    writer = array_record_module.ArrayRecordWriter(str(path), records.WRITER_OPTIONS)
    for example in examples:
        writer.write(example.SerializeToString())
    writer.close()


def _set(row, value):
    def change(array):
        array[row] = value
        return array

    return change


@pytest.mark.parametrize("arguments", [[], ["--all"]])
def test_check_property_whole_folder_has_no_problem(folder, arguments, capsys):
    assert check.main([str(folder), *arguments]) == 0
    out = capsys.readouterr().out
    assert "0 problems, 0 warnings" in out
    assert "problem:" not in out
    page = (folder / "check.html").read_text()
    assert "No problems found" in page
    assert not re.search(r'(src|href)="(?!data:|#)', page)  # opens offline
    assert page.count("data:image/jpeg") == 4 * 3 * 3  # 4 recordings, 3 completions each, around
    assert (folder / "SHA256SUMS").exists() == (arguments == ["--all"])


def _truncate(path):
    path.write_bytes(path.read_bytes()[:-40_000])


def _flip(path):
    data = bytearray(path.read_bytes())
    data[1000] ^= 1
    path.write_bytes(data)


def _edit_json(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


LABELS = "labels/train/b"
FRAMES = f"{LABELS}/frames.npz"

# What is done to the folder, and what a line must say (file or recording, frame, what).
CORRUPTIONS = {
    "no dataset_info": (lambda f: (f / "dataset_info.json").unlink(), "dataset_info.json: missing"),
    "no features": (lambda f: (f / "features.json").unlink(), "features.json: missing"),
    "bad json": (lambda f: (f / "dataset_info.json").write_text("{"), "info.json: not readable"),
    "shard lengths": (
        lambda f: _edit_json(
            f / "dataset_info.json", lambda c: c["splits"][1].update(shardLengths=["3", "2"])
        ),
        "dataset_info.json: records per shard of split 'train'",
    ),
    "other features": (
        lambda f: _edit_json(
            f / "features.json", lambda c: c["featuresDict"]["features"].pop("jpeg")
        ),
        "features.json: names the features",
    ),
    "no procedure": (lambda f: (f / "procedure.json").unlink(), "procedure.json: missing"),
    "no settings": (lambda f: (f / "settings.json").unlink(), "settings.json: missing"),
    "bad settings": (
        lambda f: _edit_json(f / "settings.json", lambda c: c.pop("fps")),
        "settings.json: fps, image_size",
    ),
    "two splits": (
        lambda f: _edit_json(f / "settings.json", lambda c: c["splits"]["val"].append("a")),
        "a: recording is in split",
    ),
    "no variant": (
        lambda f: _edit_json(
            f / "procedure.json", lambda c: c["variants"]["all"].update(recordings=["[acd]"])
        ),
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
        lambda f: _rewrite_records(
            _shard(f), lambda e: e[1]["first_frame"].int64_list.value.__setitem__(0, 6)
        ),
        "train/b: frames 5…8: the record's first frame is 6 instead of 5",
    ),
    "state": (
        lambda f: _rewrite_records(
            _shard(f), lambda e: e[1]["state"].int64_list.value.__setitem__(3, -1)
        ),
        "train/b: frame 6: states differ",
    ),
    "box": (
        lambda f: _rewrite_records(
            _shard(f), lambda e: e[0]["box"].float_list.value.__setitem__(0, 0.5)
        ),
        "train/b: frame 1: boxes differ",
    ),
    "class": (
        lambda f: _rewrite_records(
            _shard(f), lambda e: e[2]["asd_class"].int64_list.value.__setitem__(2, 1)
        ),
        "train/b: frame 11: classes differ",
    ),
    "visible": (
        lambda f: _rewrite_records(
            _shard(f), lambda e: e[0]["visible"].float_list.value.__setitem__(1, 1)
        ),
        "train/b: frame 2: visible differ",
    ),
    "picture lost": (
        lambda f: _rewrite_records(_shard(f), lambda e: e[1]["jpeg"].bytes_list.value.pop()),
        "train/b: frames 5…8: the record has 3 pictures instead of 4",
    ),
    "no JPEG": (
        lambda f: _rewrite_records(
            _shard(f), lambda e: e[0]["jpeg"].bytes_list.value.__setitem__(3, b"\xff\xd8 no")
        ),
        "train/b: frame 4: not a readable JPEG",
    ),
    "truncated JPEG": (
        lambda f: _rewrite_records(
            _shard(f),
            lambda e: e[0]["jpeg"].bytes_list.value.__setitem__(0, _jpeg(1)[:-200]),
        ),
        "train/b: frame 1: not a readable JPEG",
    ),
    "picture size": (
        lambda f: _rewrite_records(
            _shard(f), lambda e: e[2]["jpeg"].bytes_list.value.__setitem__(2, _jpeg(1, (8, 24)))
        ),
        "train/b: frame 11: the picture is 8x24 (HxW) instead of 16x24",
    ),
    "no split labels": (lambda f: (f / "labels/val.npz").unlink(), "val.npz: missing"),
    "bad split labels": (
        lambda f: (f / "labels/val.npz").write_bytes(b"no"),
        "val.npz: not readable",
    ),
    "split recordings": (
        lambda f: _rewrite_npz(f / "labels/train.npz", recordings=_set(1, "x")),
        "train.npz: its recordings (a, x) are not those of settings.json (a, b)",
    ),
    "split differs": (
        lambda f: _rewrite_npz(f / "labels/train.npz", states=_set((14, 2), 1)),
        "train/b: states of frame 4 in frames.npz differ from labels/train.npz",
    ),
    "no frames.npz": (lambda f: (f / FRAMES).unlink(), "train/b/frames.npz: missing"),
    "bad frames.npz": (lambda f: _truncate(f / FRAMES), "train/b/frames.npz: not readable"),
    "wrong K": (
        lambda f: _rewrite_npz(f / FRAMES, states=lambda s: s[:, :2]),
        "frames.npz: states have shape (11, 2)",
    ),
    "state value": (
        lambda f: _rewrite_npz(f / FRAMES, states=_set((2, 0), 2)),
        "train/b: frame 3: states have values other than",
    ),
    "class value": (
        lambda f: _rewrite_npz(f / FRAMES, classes=_set(4, 5)),
        "train/b: frame 5: classes are outside -1…4",
    ),
    "half a box": (
        lambda f: _rewrite_npz(f / FRAMES, boxes=_set((4, 0), np.nan)),
        "train/b: frame 5: boxes have NaN",
    ),
    "flat box": (
        lambda f: _rewrite_npz(f / FRAMES, boxes=_set((4, 2), 0)),
        "train/b: frame 5: boxes have no width",
    ),
    "box without class": (
        lambda f: _rewrite_npz(f / FRAMES, classes=_set(4, -1)),
        "train/b: frame 5: a box without a class",
    ),
    "class without box": (
        lambda f: _rewrite_npz(f / FRAMES, classes=_set(0, 0)),
        "train/b: frame 1: a class without a box",
    ),
    "visible value": (
        lambda f: _rewrite_npz(f / FRAMES, visible=_set(1, 1.5)),
        "train/b: frame 2: visible fractions",
    ),
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


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_check_property_names_what_is_wrong(folder, name, capsys):
    corrupt, expected = CORRUPTIONS[name]
    corrupt(folder)
    assert check.main([str(folder), "--all"]) == 1
    captured = capsys.readouterr()
    problems = [line for line in captured.out.splitlines() if line.startswith("problem: ")]
    assert any(expected in line for line in problems), problems
    assert all(";" in line for line in problems)  # and what to do
    assert "Traceback" not in captured.err
    assert not (folder / "SHA256SUMS").exists()


def test_check_property_reports_all_problems(folder, capsys):
    _flip(_shard(folder))
    (folder / "labels/test/d/frames.npz").unlink()
    _rewrite_npz(folder / "labels/val/c/frames.npz", visible=_set(1, 2))
    assert check.main([str(folder)]) == 1
    out = capsys.readouterr().out
    for text in ("record 0 cannot", "d/frames.npz: missing", "val/c: frame 2: visible fractions"):
        assert text in out
    assert "val/c: frame 2: visible fractions" in (folder / "check.html").read_text()


def test_check_property_finds_the_same_recording_in_two_splits(tmp_path):
    def make(split, name):
        return dataclasses.replace(_make(split, "a"), name=name)

    splits = {"train": ["a", "b"], "test": ["d"]}
    shards.build(tmp_path, procedure=PROCEDURE, fps=5, image_size=SIZE, splits=splits, make=make)
    for everything in (False, True):
        checked = check_folder(tmp_path, everything=everything)
        assert len(checked.problems) == 2
        assert all("test/d" in line and "the same" in line for line in checked.problems)
        (warning,) = checked.warnings
        assert "train/a and train/b" in warning


def test_check_property_other_labels_than_the_states_are_a_warning(folder, capsys):
    (folder / LABELS / "PSR_labels.csv").write_text(
        "4.jpg,0,Install base\n8.jpg,3,Install wheel\n10.jpg,6,Install lid\n"
    )
    assert check.main([str(folder)]) == 0
    out = capsys.readouterr().out
    assert "PSR_labels.csv: 1 rows without a change of state: 10 Install lid" in out
    assert "PSR_labels.csv: 1 changes of state without a row: 8 Install lid" in out


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda d: d.boxes.__setitem__((4, 0), 0.05), "1 boxes reach out of the picture"),
        (lambda d: d.classes.__setitem__(4, 2), "1 boxes are of another assembly state"),
    ],
)
def test_check_property_warns_of_odd_boxes(tmp_path, change, expected):
    def changed(data):
        change(data)
        return data

    checked = check_folder(_build(tmp_path, changed))
    assert not checked.problems
    (warning,) = checked.warnings
    assert expected in warning
    assert warning.startswith("train/b")
    assert "frame 5" in warning


def test_check_property_warns_of_files_that_nothing_names(folder):
    shutil.copy(_shard(folder), folder / "clips-train.array_record-00000-of-00007")
    (folder / "labels/train/zz").mkdir()
    (folder / "unfinished").mkdir()
    (folder / "unfinished/x").touch()
    checked = check_folder(folder)
    assert not checked.problems
    assert len(checked.warnings) == 3


def test_check_property_sums_find_any_change(folder, capsys):
    assert check.main([str(folder), "--all"]) == 0
    assert check.main([str(folder), "--all"]) == 0  # the list is compared now
    path = folder / LABELS / "PSR_labels.csv"
    path.write_text(path.read_text().replace("base", "bass"))  # a description, which nobody reads
    capsys.readouterr()
    assert check.main([str(folder), "--all"]) == 1
    assert f"{path}: differs from its SHA-256" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [[], ["no/such"], ["{empty}"], ["{empty}", "--al"]])
def test_check_property_wrong_usage_is_one_line_and_exit_code_2(tmp_path, arguments, capsys):
    with pytest.raises(SystemExit) as exit_:
        check.main([a.format(empty=tmp_path) for a in arguments])
    assert exit_.value.code == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert err.count("\n") == 1


def test_check_property_page_goes_where_out_says(whole, tmp_path):
    assert check.main([str(whole), f"--out={tmp_path / 'page.html'}", "--all"]) == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["SHA256SUMS", "page.html"]
    assert not (whole / "check.html").exists()


def test_check_property_page_does_not_grow_with_the_data(tmp_path):
    names = [f"r{i:02d}" for i in range(12)]

    def make(split, name):
        n = 80
        states = np.zeros((n, 3), int)
        states[:, 0] = np.arange(n) % 2  # 79 completions
        nothing = np.full((n, 4), np.nan)
        jpegs = [_jpeg([int(name[1:]), i]) for i in range(n)]
        return shards.RecordingData(
            name, 0, jpegs, states, nothing, np.full(n, -1), np.full(n, np.nan)
        )

    shards.build(
        tmp_path, procedure=PROCEDURE, fps=5, image_size=SIZE, splits={"train": names}, make=make
    )
    assert check.main([str(tmp_path)]) == 0
    page = (tmp_path / "check.html").read_text()
    assert page.count("data:image/jpeg") == 6 * 10 * 3
    assert "6 of 12 recordings with completions" in page
    assert "10 of 79 completions shown" in page


def test_frame_ranges_property_joins_neighbours():
    assert check_recording.frame_ranges([7]) == "frame 7"
    assert check_recording.frame_ranges([4, 2, 1, 3, 9, 9]) == "frames 1…4, 9"
    text = check_recording.frame_ranges(range(0, 100, 2))
    assert text.endswith("14, 42 more ranges")


def test_split_statistics_matches_counts_by_hand():
    recordings = list(_recordings().values())
    s = check_statistics.split_statistics(recordings, PROCEDURE, 5.0)
    assert (s.recordings, s.frames, s.hours) == (2, 22, 22 / 5 / 3600)
    assert (s.installed, s.removed, s.incorrect, s.steps) == (6, 0, 2, 6)
    assert s.steps_by_recording.tolist() == [3, 3]
    # 000 is uncatalogued (3 frames), 100 state 1 (2), 1-10 error (2), 111 state 3 (4).
    assert s.frames_by_class.tolist() == [6, 4, 0, 8, 4]
    assert s.boxes_by_class.tolist() == [0, 2, 0, 2, 2]
    assert s.boxes == 6
    assert s.never_seen == [2]
    np.testing.assert_allclose(s.durations, [0.6, 0.8] * 2)  # frames 1 → 4 → 8 at 5 frames/s
    np.testing.assert_allclose(s.box_sizes, 0.2)
    np.testing.assert_allclose(s.visible, [0.2, 0.6] * 2)
    rows = dict(check_statistics.table({"train": s}))
    assert rows["Frames without a box"] == ["72.7%"]
    assert rows["Steps per recording"] == ["3.0 (3–3)"]
    assert rows["States never seen"] == ["2"]


def test_split_statistics_property_follows_label_files_where_given():
    steps = {"a": [(2, 0), (5, 2), (5, 4), (9, 3)]}
    s = check_statistics.split_statistics(list(_recordings().values()), PROCEDURE, 5.0, steps)
    assert (s.installed, s.removed, s.incorrect) == (2 + 3, 1, 1 + 1)
    np.testing.assert_allclose(s.durations, [0.2, 0.6, 0.8, 0.6, 0.8])


def _recordings():
    found = {}
    for name in ("a", "b"):
        d = _make("train", name)
        found[name] = Recording(name, 1, d.states, d.boxes, d.classes, d.visible)
    return found


@pytest.mark.skipif(not SHARED.exists(), reason="needs the MECCANO label files")
def test_split_statistics_matches_published_boxes_of_meccano():
    procedure = load_procedure("meccano")
    totals, catalogued, steps = {}, 0, 0
    for split in ("train", "val", "test"):
        recordings, listed, doubled = [], {}, 0
        for folder in sorted((SHARED / "meccano_psr_labels" / split).iterdir()):
            frames, states = labels.read_states(folder / "PSR_labels_raw.csv", procedure)
            path = SHARED / "meccano_asd_labels" / split / f"{folder.name}_GT.csv"
            rows = np.loadtxt(path, delimiter=",") if path.exists() else np.zeros((0, 7))
            at = rows[:, 0].astype(int)
            n = int(max(frames[-1], at.max(initial=0)))
            per_frame = labels.states_per_frame(frames, states, 1, n)
            boxes = np.full((n, 4), np.nan, np.float32)
            boxes[at - 1] = rows[:, 3:]
            annotated = ~np.isnan(boxes[:, 0])
            classes = np.where(annotated, procedure.state_classes(per_frame), -1)
            doubled += len(at) - annotated.sum()
            unknown = np.full(n, np.nan, np.float32)
            recordings.append(Recording(folder.name, 1, per_frame, boxes, classes, unknown))
            listed[folder.name] = labels.read_steps(
                folder / "PSR_labels_with_errors.csv", procedure
            )
            steps += len(labels.read_steps(folder / "PSR_labels.csv", procedure))
        s = check_statistics.split_statistics(recordings, procedure, 12.0, listed)
        # A few frames have two rows in the shipped files; a frame in a shard has one box.
        totals[split] = s.boxes + doubled
        catalogued += s.boxes_by_class[1:-1].sum()
        steps -= s.steps
    assert totals == {"train": 6948, "val": 3053, "test": 3656}
    assert steps == 0
    assert 11_224 - 30 <= catalogued <= 11_224  # of the rows, before doubled ones go
