"""Files of scores: what comes back, and what is refused before it takes memory."""

import io
import zipfile

import numpy as np
import pytest

from stormpsr_jax.recordings import scores
from stormpsr_jax.recordings.predictions import Detections, TemporalPredictions
from tests.support.simulated_scores import PROCEDURE, simulate

K, S = PROCEDURE.num_components, PROCEDURE.num_states


def small(num=5, full=True):
    said = simulate(3, full).scores
    cut = [None if a is None else a[:num] for a in said.arrays]
    return scores.Scores(said.frames[:num] * 3, *cut)


@pytest.mark.parametrize("kind", ["scores", "csv", "clips"])
def test_scores_what_is_written_comes_back_in_half_precision(tmp_path, kind):
    said = small(full=kind != "csv")
    if kind == "clips":
        said = scores.Scores(said.frames, None, None, None, said.temporal)
    scores.write_scores(tmp_path / "r.npz", said)
    got = scores.read_scores(tmp_path / "r.npz", PROCEDURE)
    np.testing.assert_array_equal(got.frames, said.frames)
    for mine, theirs, exact in zip(
        got.arrays, scores.as_written(said.arrays), said.arrays, strict=True
    ):
        assert (mine is None) == (exact is None)
        if exact is not None:
            np.testing.assert_array_equal(mine, theirs)
            np.testing.assert_allclose(mine, exact, rtol=1e-3, atol=1e-6)
    assert got.kind == said.kind == kind
    assert not list(tmp_path.glob("*.part"))


def npy(array):
    file = io.BytesIO()
    np.lib.format.write_array(file, array, version=(1, 0), allow_pickle=True)
    return file.getvalue()


def members(**changes):
    said = small()
    arrays = {"frames": said.frames.astype("<i8")}
    arrays |= {n: a.astype("<f2") for n, a in said.arrays._asdict().items()}
    return {f"{name}.npy": npy(a) for name, a in (arrays | changes).items() if a is not None}


DAMAGED = [
    (members(states=None), "holds no states"),
    (members(states=None, objectness=None), "holds no objectness, states"),
    (members(states=None, objectness=None, parts=None, temporal=None), "holds no temporal"),
    (members(more=np.zeros(3)), "holds 'more', which is none of"),
    (members(parts=np.array([{}], object)), "allow_pickle=False"),
    (members(parts=np.zeros((5, 2 * K + 2), "<f2")), f"not float16 (5, {2 * K})"),
    (members(objectness=np.zeros(6, "<f2")), "objectness is float16 (6,)"),
    (members(objectness=np.zeros(5)), "objectness is float64"),
    (members(frames=np.array([0, 1, 1, 2, 3])), "do not ascend"),
    (members() | {"parts.npy": members()["parts.npy"][:-2]}, "EOF"),
    (members() | {"parts.npy": b"nothing"}, "magic string"),
]


@pytest.mark.parametrize("kind", range(len(DAMAGED)))
def test_damaged_files_are_named_in_one_line(tmp_path, kind):
    content, what = DAMAGED[kind]
    path = tmp_path / "r.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    with pytest.raises(ValueError) as error:
        scores.read_scores(path, PROCEDURE)
    assert what in str(error.value)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


def test_from_predictions_the_top_row_and_the_probabilities():
    detections = Detections(
        np.array([2, 4, 4, 6]),
        np.array([1, 3, 5, 0]),
        np.array([0.5, 0.6, 0.9, 0.8]),
        np.zeros((4, 4)),
    )
    confidences = np.full((2, K), 0.5)
    confidences[1, 2] = 1.0
    none = np.zeros((2, K), int)
    temporal = TemporalPredictions(np.array([3, 4]), none, none, confidences)
    said = scores.from_predictions(detections, temporal, PROCEDURE)
    assert said.frames.tolist() == [2, 3, 4, 6]
    assert said.kind == "csv"
    objectness = 1 / (1 + np.exp(-said.objectness))
    np.testing.assert_allclose(objectness, [0.5, 0, 0.9, 0], atol=1e-6)
    np.testing.assert_allclose(np.exp(said.states).sum(1), 1)
    assert said.states.argmax(1)[[0, 2]].tolist() == [0, 4]
    np.testing.assert_allclose(np.exp(said.states[[0, 2], [0, 4]]), scores.TOP)
    np.testing.assert_allclose(said.temporal[[0, 1, 3]], 0)
    assert said.temporal[2, 2] == pytest.approx(9.21, abs=0.01)
