import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds
from array_record.python import array_record_module
from tensorflow_datasets.proto import tf_example_pb2

from stormpsr_jax.psr.files import labels
from tests.support.digests import digests
from tests.support.processes import finish, start
from tests.support.shards_data import SPLITS, build, toy_procedure, toy_recording


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


def test_build_readable_by_plain_array_record(built):
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


def test_build_label_files_reproduce_the_states(built):
    folder = built / "labels" / "train" / "a"
    states = toy_recording("a").states
    frames, rows = labels.read_states(folder / "PSR_labels_raw.csv", toy_procedure())
    assert frames.tolist() == [1, 4, 6, 8]
    np.testing.assert_array_equal(labels.states_per_frame(frames, rows, 1, len(states)), states)
    steps = labels.read_steps(folder / "PSR_labels.csv", toy_procedure())
    assert steps == [(4, 0), (8, 3), (8, 6)]
    with_errors = labels.read_steps(folder / "PSR_labels_with_errors.csv", toy_procedure())
    assert sorted(with_errors) == [(4, 0), (6, 4), (8, 3), (8, 6)]


@pytest.mark.usefixtures("system")  # workers
def test_build_same_bytes_for_any_workers_and_order(built, tmp_path):
    reordered = {split: SPLITS[split][::-1] for split in ("val", "test", "train")}
    build(tmp_path / "other", workers=2, splits=reordered)
    assert digests(tmp_path / "other") == digests(built)


MEMORY = """
import itertools, sys
import numpy as np, simplejpeg
from data_prep.writing import shards
from tests.support import shards_data
from tests.support.peak_memory import peak_mebibytes
n = int(sys.argv[2])
jpeg = simplejpeg.encode_jpeg(np.random.default_rng(0).integers(0, 256, (160, 160, 3), np.uint8))
def make(split, name):
    return shards.RecordingData(
        name, 0, (jpeg[:-2] + bytes([i % 256]) * 9 + jpeg[-2:] for i in range(n)),
        np.zeros((n, 3)), np.full((n, 4), np.nan), np.full(n, -1), np.full(n, np.nan))
shards_data.build(
    sys.argv[1], make=make, image_size=(160, 160), splits={"train": ["a"]}, clip_length=16)
print(peak_mebibytes(), len(jpeg))
"""


def test_build_memory_is_flat_in_recording_length(tmp_path):
    peaks = []
    for num_frames in (200, 2000):
        words = [sys.executable, "-c", MEMORY, tmp_path / str(num_frames), num_frames]
        peak, frame_bytes = map(int, finish(start(words))[0].split()[-2:])
        peaks.append(peak)
    assert frame_bytes * 1800 > 50e6  # what holding the longer recording would cost in addition
    assert peaks[1] < peaks[0] + 15
