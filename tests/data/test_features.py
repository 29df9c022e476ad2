import pickle

import numpy as np
import pytest

from stormpsr_jax.data.features import EmbeddingFile


def rows(seed, count=50, width=6):
    return np.random.default_rng(seed).normal(size=(count, width)).astype(np.float32)


def test_embedding_file_travels_as_a_path(tmp_path):
    array = rows(0, count=100_000)
    np.save(tmp_path / "a.npy", array)
    file = EmbeddingFile(tmp_path / "a.npy")
    np.testing.assert_array_equal(file[:3], array[:3])
    sent = pickle.dumps(file)
    assert len(sent) < 1000
    np.testing.assert_array_equal(pickle.loads(sent)[99_990:], array[99_990:])


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.ones((3, 2)), "float64"),
        (np.ones(3, np.float32), r"\(3,\)"),
        (np.ones((3, 2), np.float32).T, "not rows of float32"),
        (np.array([["x"]], object), "object"),
        (lambda whole: whole[:-1], "bytes, which .* does not fit"),
        (lambda whole: whole + b"x", "bytes, which .* does not fit"),
        (lambda whole: b"", "the header of the .npy file"),
        (lambda whole: b"PK\x03\x04 a zip file", "the header of the .npy file"),
    ],
)
def test_embedding_file_errors(tmp_path, array, message):
    path = tmp_path / "a.npy"
    np.save(path, rows(0) if callable(array) else array)
    if callable(array):
        path.write_bytes(array(path.read_bytes()))
    with pytest.raises(ValueError, match=message):
        EmbeddingFile(path)
