import functools
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
import tensorflow_datasets as tfds
from array_record.python import array_record_module
from tensorflow_datasets.proto import tf_example_pb2

from data_prep import output, records, shards
from stormpsr_jax.psr import labels
from stormpsr_jax.psr.procedure import Procedure

SIZE = (16, 24)
SPLITS = {"train": ["b", "a", "c"], "test": ["d"], "val": []}


def toy_procedure(**changes) -> Procedure:
    content = {
        "name": "toy",
        "fps": 5,
        "components": ["base", "wheel", "lid"],
        "states": ["100", "110", "111"],
        "variants": {"all": {"initial_state": "000", "expected": [0, 3, 6], "recordings": ["*"]}},
    }
    return Procedure.from_json(content | changes)


def toy_jpegs(name: str, count: int) -> list[bytes]:
    rng = np.random.default_rng(ord(name[0]))
    return [
        simplejpeg.encode_jpeg(rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8))
        for _ in range(count)
    ]


def toy_recording(name: str) -> shards.RecordingData:
    n = 11 + ord(name[0]) % 7
    rng = np.random.default_rng(1000 + ord(name[0]))
    boxes = rng.uniform(0, 1, (n, 4))
    boxes[rng.uniform(size=n) < 0.5] = np.nan
    visible = rng.uniform(0, 1, n)
    visible[::3] = np.nan
    states = np.zeros((n, 3), int)
    states[3:, 0] = 1
    states[5:, 1] = -1
    states[7:, 1:] = 1
    states[9:, 2] = 0
    return shards.RecordingData(
        name=name,
        first_frame=1,
        jpegs=iter(toy_jpegs(name, n)),
        states=states,
        boxes=boxes,
        classes=rng.integers(-1, 5, n),
        visible=visible,
    )


def make(split: str, name: str, log: Path | None = None, sleep: float = 0, fail: str = ""):
    """Toy recordings; module level, so that worker processes can import it."""
    if log is not None:
        with log.open("a") as file:
            file.write(f"{name}\n")
    if name in fail.split(","):
        if fail.startswith("die"):
            os._exit(3)
        raise {"value": ValueError, "key": KeyError}[fail.split(",")[0]](f"no {name} here")
    data = toy_recording(name)
    if sleep and name != "d":  # the first one made is quick, so that something is finished
        data.jpegs = slowly(data.jpegs, sleep)
    return data


def slowly(jpegs, sleep):
    for jpeg in jpegs:
        time.sleep(sleep)
        yield jpeg


def build(out: Path, **changes):
    arguments = {
        "procedure": toy_procedure(),
        "fps": 5,
        "image_size": SIZE,
        "splits": SPLITS,
        "make": make,
        "clip_length": 4,
    }
    shards.build(out, **(arguments | changes))


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("shards") / "data"
    build(folder)
    return folder


def test_build_property_readable_by_tfds(built):
    builder = tfds.builder_from_directory(built)
    assert sorted(builder.info.splits) == ["test", "train"]
    for split in ("train", "test"):
        source = builder.as_data_source(split)
        records = iter([source[i] for i in range(len(source))])
        for name in sorted(SPLITS[split]):
            data = toy_recording(name)
            jpegs = list(data.jpegs)
            for start in range(0, len(jpegs), 4):
                clip = slice(start, start + 4)
                record = next(records)
                assert record["recording"] == name.encode()
                assert record["first_frame"] == 1 + start
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


def test_build_property_readable_by_plain_array_record(built):
    for index, name in enumerate(["a", "b", "c"]):
        path = built / f"clips-train.array_record-{index:05d}-of-00003"
        reader = array_record_module.ArrayRecordReader(str(path))
        assert reader.ok()
        assert "group_size:1," in reader.writer_options_string()
        assert "uncompressed" in reader.writer_options_string()
        jpegs = []
        for record in reader.read_all():
            feature = tf_example_pb2.Example.FromString(record).features.feature
            assert feature["first_frame"].int64_list.value == [1 + len(jpegs)]
            jpegs += feature["jpeg"].bytes_list.value
        assert jpegs == list(toy_recording(name).jpegs)
        reader.close()


def test_build_property_label_files_reproduce_the_states(built):
    folder = built / "labels" / "train" / "a"
    states = toy_recording("a").states
    frames, rows = labels.read_states(folder / "PSR_labels_raw.csv", toy_procedure())
    assert frames.tolist() == [1, 4, 6, 8, 10]
    np.testing.assert_array_equal(labels.states_per_frame(frames, rows, 1, len(states)), states)
    steps = labels.read_steps(folder / "PSR_labels.csv", toy_procedure())
    assert steps == [(4, 0), (8, 3), (8, 6), (10, 8)]
    with_errors = labels.read_steps(folder / "PSR_labels_with_errors.csv", toy_procedure())
    assert sorted(with_errors) == [(4, 0), (6, 4), (8, 3), (8, 6), (10, 8)]


def test_build_property_same_bytes_for_any_workers_and_order(built, tmp_path):
    reordered = {split: SPLITS[split][::-1] for split in ("val", "test", "train")}
    build(tmp_path / "other", workers=2, splits=reordered)
    assert digests(tmp_path / "other") == digests(built)


def test_build_property_second_run_changes_nothing(built):
    before = {path: path.stat().st_mtime_ns for path in built.rglob("*")}
    build(built, make=None)  # nothing is left to make
    assert {path: path.stat().st_mtime_ns for path in built.rglob("*")} == before


INTERRUPTED = """
import functools, pathlib, sys
sys.path.insert(0, sys.argv[1])
import test_shards
if __name__ == "__main__":
    out, log = map(pathlib.Path, sys.argv[2:4])
    make = functools.partial(test_shards.make, log=log, sleep=0.2)
    test_shards.build(out, make=make, workers=int(sys.argv[4]))
"""


@pytest.mark.parametrize(
    ("sent", "workers"), [(signal.SIGKILL, 1), (signal.SIGKILL, 2), (signal.SIGINT, 2)]
)
def test_build_property_interrupted_and_run_again_gives_the_same_bytes(
    built, tmp_path, sent, workers
):
    script, out, log = tmp_path / "script.py", tmp_path / "out", tmp_path / "log"
    script.write_text(INTERRUPTED)
    repository = str(Path(__file__).parents[2])
    process = subprocess.Popen(
        [sys.executable, str(script), str(Path(__file__).parent), str(out), str(log), str(workers)],
        env=os.environ | {"PYTHONPATH": repository},
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    # Until something is finished and the next recording has begun.
    deadline = time.monotonic() + 120
    while not (list(out.glob("clips-*")) and list(out.glob("unfinished/*"))):
        assert time.monotonic() < deadline, "never got there"
        time.sleep(0.01)
    if sent == signal.SIGINT:  # what Ctrl-C does: to every process of the group
        os.killpg(process.pid, sent)
    else:
        process.kill()
    error = process.communicate(timeout=120)[1].decode()
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
    remaining = {"a", "b", "c", "d"} - {names_of_shards()[name] for name in finished}
    assert sorted(log.read_text().split()) == sorted(remaining)
    assert digests(out) == digests(built)


def names_of_shards() -> dict[str, str]:
    train = {f"clips-train.array_record-{i:05d}-of-00003": name for i, name in enumerate("abc")}
    return train | {"clips-test.array_record-00000-of-00001": "d"}


def wait_until_gone(out: Path) -> None:
    """Waits until the processes that left unfinished files are gone."""
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


def test_build_property_deleted_or_truncated_shard_is_made_again_alone(built, tmp_path):
    out, log = tmp_path / "out", tmp_path / "log"
    build(out)
    (out / "clips-train.array_record-00001-of-00003").unlink()
    truncated = out / "clips-test.array_record-00000-of-00001"
    truncated.write_bytes(truncated.read_bytes()[:-100])
    build(out, make=functools.partial(make, log=log))
    assert log.read_text().split() == ["d", "b"]
    assert digests(out) == digests(built)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fps": 6}, "fps was 5.0, now 6.0"),
        ({"image_size": (24, 24)}, "image_size was"),
        ({"clip_length": 5}, "clip_length was 4, now 5"),
        ({"splits": {"train": ["a", "b", "c"]}}, r"splits.test was \['d'\], now None"),
        ({"settings": {"seed": {"scene": 1}}}, r"settings.seed was None, now {'scene': 1}"),
        ({"procedure": toy_procedure(name="other")}, "name was 'toy', now 'other'"),
        ({"procedure": toy_procedure(states=["100"])}, "states was"),
    ],
)
def test_build_property_other_arguments_are_refused(built, change, message):
    before = digests(built)
    with pytest.raises(ValueError, match=f"made with other arguments .*{message}.*another folder"):
        build(built, **change)
    assert digests(built) == before


def test_build_property_full_disk_leaves_nothing_that_looks_whole(built, tmp_path, monkeypatch):
    out = tmp_path / "out"
    name = "clips-train.array_record-00002-of-00003"
    with monkeypatch.context() as patch:
        # What is written for recording c goes to a device that is always full.
        writer = array_record_module.ArrayRecordWriter
        patch.setattr(
            records.array_record_module,
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


@pytest.mark.parametrize(
    ("kind", "workers", "error", "message"),
    [
        ("value", 1, ValueError, "recording train/b: no b here"),
        ("value", 2, ValueError, "recording train/b: no b here"),
        ("key", 1, RuntimeError, "recording train/b: KeyError: 'no b here'"),
    ],
)
def test_build_property_failure_names_the_recording(tmp_path, kind, workers, error, message):
    failing = functools.partial(make, fail=f"{kind},b")
    with pytest.raises(error, match=message):
        build(tmp_path / "out", make=failing, workers=workers)
    assert not (tmp_path / "out" / "dataset_info.json").exists()
    assert not list((tmp_path / "out").glob("unfinished/*"))


def test_build_property_killed_worker_is_an_error(tmp_path):
    failing = functools.partial(make, fail="die,b")
    with pytest.raises(RuntimeError, match=r"worker process died.*run the same command again"):
        build(tmp_path / "out", make=failing, workers=2)


def altered(split, name, change):
    data = toy_recording(name)
    change(data)
    return data


def set_value(key, index, value):
    def change(data):
        array = np.array(getattr(data, key), float)
        array[index] = value
        setattr(data, key, array)

    return change


def set_jpegs(function):
    def change(data):
        data.jpegs = function(list(data.jpegs))

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (set_value("states", (2, 1), 2), r"states of frame 3 are outside -1…1"),
        (set_value("classes", 4, 5), r"classes of frame 5 are outside -1…4"),
        (set_value("boxes", (0, 0), 1.5), r"boxes of frame 1 are outside 0…1"),
        (set_value("visible", 1, -0.1), r"visible of frame 2 are outside"),
        (lambda data: setattr(data, "boxes", data.boxes[:-1]), r"boxes have shape \(16, 4\)"),
        (lambda data: setattr(data, "states", data.states[:, :2]), r"expected \(17, 3\)"),
        (lambda data: setattr(data, "states", data.states[:0]), "it has no frames"),
        (lambda data: setattr(data, "name", "z"), "make returned recording 'z'"),
        (set_jpegs(lambda jpegs: jpegs[:-2]), "it has 15 images for its 17 labelled frames"),
        (set_jpegs(lambda jpegs: jpegs * 2), "more images than its 17 labelled frames"),
        (set_jpegs(lambda jpegs: [jpegs[0], b"GIF89a"]), "frame 2 is not a JPEG"),
        (
            set_jpegs(lambda jpegs: [simplejpeg.encode_jpeg(np.zeros((24, 16, 3), np.uint8))]),
            r"frame 1 is 24x16 \(HxW\), image_size is 16x24",
        ),
    ],
)
def test_build_property_unfit_recordings_are_refused(tmp_path, change, message):
    assert len(toy_recording("d").states) == 13
    changing = functools.partial(altered, change=change)
    with pytest.raises(ValueError, match=rf"recording train/h: .*{message}"):
        build(tmp_path, make=changing, splits={"train": ["h"]})
    assert not list(tmp_path.glob("clips-*"))
    assert not list(tmp_path.glob("unfinished/*"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"splits": {"train": ["a"], "test": ["a"]}}, "'a' is in split 'test' and in 'train'"),
        ({"splits": {"train": ["a", "a"]}}, "'a' is in split 'train' and in 'train'"),
        ({"splits": {"train": ["../a"]}}, "cannot be the name of a folder"),
        ({"splits": {"tr-ain": ["a"]}}, "letters, digits"),
        ({"splits": {"train": []}}, "no recording"),
        ({"clip_length": 0}, "clip_length = 0 is not positive"),
        ({"workers": 0}, "workers = 0 is not positive"),
    ],
)
def test_build_property_wrong_arguments_are_refused(tmp_path, change, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        build(tmp_path / "out", **change)
    assert not (tmp_path / "out").exists()


def test_build_property_long_lists_are_compared_by_what_differs(tmp_path):
    names = [f"recording_{i:02d}" for i in range(20)]
    build(tmp_path, splits={"train": [*names, "gone"]}, make=make_any)
    with pytest.raises(ValueError, match=r"splits.train .* was \['gone'\], now \['new'\]"):
        build(tmp_path, splits={"train": [*names, "new"]})


def make_any(split, name):
    data = toy_recording("a")
    data.name = name
    return data


def test_build_property_files_being_written_elsewhere_are_left_alone(tmp_path):
    out = tmp_path / "out"
    shard = out / "clips-train.array_record-00000-of-00003"
    with output.unfinished(out, shard) as path:
        path.write_bytes(b"another machine is at work")
        left = path.with_name("clips-train.array_record-00001-of-00003.host.1")
        left.write_bytes(b"a killed process was at work")
        output.remove_leftovers(out)
        assert path.read_bytes() == b"another machine is at work"
        assert not left.exists()
    assert shard.read_bytes() == b"another machine is at work"
    output.remove_leftovers(out)
    assert not path.parent.exists()


def test_build_property_settings_are_stored(tmp_path):
    build(tmp_path, splits={"test": ["d"]}, settings={"seed": 3, "occlusion": "light"})
    stored = json.loads((tmp_path / "settings.json").read_text())
    assert stored["settings"] == {"seed": 3, "occlusion": "light"}
    assert stored["clip_length"] == 4


MEMORY = """
import itertools, resource, sys
import numpy as np, simplejpeg
from data_prep import output, records, shards
sys.path.insert(0, sys.argv[1])
import test_shards
n = int(sys.argv[3])
jpeg = simplejpeg.encode_jpeg(np.random.default_rng(0).integers(0, 256, (160, 160, 3), np.uint8))
def make(split, name):
    return shards.RecordingData(
        name, 0, (jpeg[:-2] + bytes([i % 256]) * 9 + jpeg[-2:] for i in range(n)),
        np.zeros((n, 3)), np.full((n, 4), np.nan), np.full(n, -1), np.full(n, np.nan))
test_shards.build(
    sys.argv[2], make=make, image_size=(160, 160), splits={"train": ["a"]}, clip_length=16)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, len(jpeg))
"""


def test_build_property_memory_is_flat_in_recording_length(tmp_path):
    peaks = []
    for num_frames in (200, 2000):
        command = [sys.executable, "-c", MEMORY, str(Path(__file__).parent)]
        command += [str(tmp_path / str(num_frames)), str(num_frames)]
        environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
        output = subprocess.run(command, env=environment, check=True, capture_output=True).stdout
        peak, frame_bytes = map(int, output.split())
        peaks.append(peak)
    assert frame_bytes * 1800 > 50e6  # what holding the longer recording would cost in addition
    assert peaks[1] < peaks[0] + 15
