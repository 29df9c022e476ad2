"""Ready-made embeddings from files of every kind to a data folder."""

import tracemalloc
import zipfile

import numpy as np
import pytest

from data_prep import embeddings
from data_prep.reading import embedding_files
from stormpsr_jax.data.features import FeatureSource
from stormpsr_jax.psr.procedure import load_procedure
from stormpsr_jax.stages.context import Context
from stormpsr_jax.training.sharding import make_mesh
from tests.support.commands import refused
from tests.support.digests import digests
from tests.support.embeddings_data import (
    FIRST,
    RECORDINGS,
    D,
    K,
    N,
    config_for,
    features_of,
    states_of,
    write,
)


@pytest.mark.parametrize("kind", ["float16", "float64", "npz", "named", "frames", "big-endian"])
def test_make_dataset_every_kind_of_file_gives_the_same_rows(tmp_path, kind):
    words = write(tmp_path)
    for path in (tmp_path / "features").glob("*/*.npy"):
        array = np.load(path)
        match kind:
            case "float16" | "float64":
                np.save(path, array.astype(kind))
                continue
            case "big-endian":
                np.save(path, array.astype(">f4"))
                continue
            case "npz":
                np.savez(path.with_suffix(".npz"), array)
            case "named":
                np.savez_compressed(path.with_suffix(".npz"), features=array, other=array[:1])
            case "frames":
                np.savez(path.with_suffix(".npz"), x=array[::2], frames=np.arange(7, 7 + N, 2))
        path.unlink()
    embeddings.main([*words, "--normalise=none"])
    source = FeatureSource(tmp_path / "out", "val", load_procedure(tmp_path / "box.json"))
    for name in RECORDINGS["val"]:
        if kind == "frames":
            assert (source.frame_step, source.recordings[name].first_frame) == (2, 7)
            np.testing.assert_array_equal(source.embeddings[name][:], features_of(name)[::2])
            states = np.concatenate([states_of(name), np.ones((10, K), np.int8)])
            expected = states[7 - FIRST : 7 - FIRST + N : 2]
        else:
            tolerance = 1e-3 if kind == "float16" else 0
            np.testing.assert_allclose(source.embeddings[name][:], features_of(name), tolerance)
            expected = states_of(name)
        np.testing.assert_array_equal(source.recordings[name].states, expected)


def test_make_dataset_l2_rows_have_length_one_and_zeros_stay(tmp_path):
    def change(array):
        array[5] = 0
        return array

    embeddings.main(write(tmp_path, change))
    source = FeatureSource(tmp_path / "out", "test", load_procedure(tmp_path / "box.json"))
    rows = source.embeddings["k"][:]
    lengths = np.linalg.norm(rows, axis=1)
    assert lengths[5] == 0
    np.testing.assert_allclose(np.delete(lengths, 5), 1, atol=1e-6)
    expected = features_of("k")[0]
    np.testing.assert_allclose(rows[0], expected / np.sqrt((expected**2).sum()), rtol=1e-5)


def test_make_dataset_states_follow_from_steps_alone(tmp_path):
    with_raw, without = tmp_path / "a", tmp_path / "b"
    for folder in (with_raw, without):
        embeddings.main(write(folder, raw=folder is with_raw))
    ours, theirs = digests(with_raw / "out"), digests(without / "out")
    assert ours.pop("settings.json") != theirs.pop("settings.json")  # other label files
    assert ours == theirs


def test_make_dataset_splits_by_globs_and_fps(tmp_path):
    words = write(tmp_path)
    for path in list((tmp_path / "features").glob("*/*.npy")):
        path.rename(tmp_path / "features" / path.name)
    embeddings.main([*words, "--split=train:[a-d],val:[e-h],test:[i-z]", "--fps=25"])
    procedure = load_procedure(tmp_path / "box.json")
    for split, names in (("train", "abcd"), ("val", "efgh"), ("test", "ijkl")):
        source = FeatureSource(tmp_path / "out", split, procedure)
        assert (list(source.recordings), source.fps) == (list(names), 25.0)


@pytest.mark.usefixtures("system")  # workers
def test_make_dataset_same_bytes_when_interrupted_and_for_any_workers(
    tmp_path, monkeypatch, capsys
):
    words = write(tmp_path)
    embeddings.main(words)
    whole = digests(tmp_path / "out")
    embeddings.main([*words[:3], f"--out={tmp_path / 'two'}", words[4], "--workers=2"])
    assert digests(tmp_path / "two") == whole

    convert = embeddings._float32
    done = []

    def failing(values, job, frame):
        done.append(job.name)
        if len(done) == 5:
            raise OSError(28, "No space left on device")
        return convert(values, job, frame)

    other = [*words[:3], f"--out={tmp_path / 'three'}", words[4]]
    monkeypatch.setattr(embeddings, "_float32", failing)
    capsys.readouterr()
    said = refused(capsys, embeddings.main, other, lines=None)  # after lines of progress
    assert "error: recording train/c: no space left" in said
    assert not (tmp_path / "three" / "embeddings.json").exists()
    with pytest.raises(ValueError, match="not finished"):
        Context(config_for(tmp_path / "three"), tmp_path, make_mesh(1, 1)).source("train")
    finished = {p: p.stat().st_ino for p in (tmp_path / "three" / "features").rglob("*.npy")}
    assert 4 <= len(finished) < 12  # those before c, and what was under way
    embeddings.main(other)
    assert digests(tmp_path / "three") == whole
    assert all(path.stat().st_ino == inode for path, inode in finished.items())


def test_make_dataset_memory_does_not_grow_with_a_recording(tmp_path):
    peaks = []
    for rows in (20_000, 160_000):
        folder = tmp_path / str(rows)
        words = write(folder)
        for path in (folder / "features").glob("*/*.npy"):
            if path.stem != "a":
                path.unlink()
        for path in (folder / "labels").glob("*/[b-z]/*"):
            path.unlink()
        np.save(folder / "features" / "train" / "a.npy", np.ones((rows, 64), np.float16))
        tracemalloc.start()
        embeddings.main(words)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 160_000 * 64  # bytes: a quarter of what the rows take in float32


def test_make_dataset_states_of_rows_far_apart_take_no_memory_in_between(tmp_path):
    words = write(tmp_path)
    for path in (tmp_path / "features").glob("*/*.npy"):
        np.savez(path.with_suffix(".npz"), np.load(path)[:3], frames=2 + 16_000_000 * np.arange(3))
        path.unlink()
    tracemalloc.start()
    embeddings.main(words)
    assert tracemalloc.get_traced_memory()[1] < 200e6  # most of it for a label file of any size
    tracemalloc.stop()
    source = FeatureSource(tmp_path / "out", "test", load_procedure(tmp_path / "box.json"))
    ends = [states_of("k")[[1, -1, -1]], states_of("l")[[1, -1, -1]]]
    for name, expected in zip("kl", ends, strict=True):
        np.testing.assert_array_equal(source.recordings[name].states, expected)


def test_read_rows_never_holds_more_than_a_piece(tmp_path, monkeypatch):
    monkeypatch.setattr(embedding_files, "_VALUES_AT_ONCE", 7 * D)
    path = tmp_path / "a.npz"
    np.savez_compressed(path, features_of("a"))
    with zipfile.ZipFile(path) as file:
        assert file.namelist() == ["arr_0.npy"]
    pieces = list(embedding_files.read_rows(path))
    assert max(map(len, pieces)) == 7
    np.testing.assert_array_equal(np.concatenate(pieces), features_of("a"))
