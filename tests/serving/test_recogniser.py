import numpy as np
import pytest

from stormpsr_jax.recordings.scores import BOUND
from stormpsr_jax.serving.recogniser import Recogniser


def encode(images):
    return images.reshape(len(images), -1)[:, :5].astype(np.float32)


def temporal(windows):
    weights = np.arange(1, windows.shape[1] + 1, dtype=np.float32)
    probabilities = np.einsum("btd,t->bd", windows, weights)
    return probabilities, probabilities + 1


def detect(images):
    mean = images.reshape(len(images), -1).mean(1)
    said = mean / 3, np.stack([mean, -mean], 1), None
    boxes = np.tile(mean[:, None, None], (1, 1, 4))
    return boxes, np.ones((len(images), 1), int), mean[:, None], said


def video(n):
    return np.random.default_rng(0).integers(0, 256, (n, 4, 4, 3), dtype=np.uint8)


@pytest.mark.parametrize("chunk", [1, 3, 16, 50])
def test_recogniser_matches_windows_cut_by_hand(chunk):
    images, w, stride = video(50), 16, 4
    seen = []
    counting = lambda shown: seen.append(len(shown)) or encode(shown)  # noqa: E731
    recogniser = Recogniser(
        encode=counting, temporal=temporal, detect=detect, frames=w, stride=stride
    )
    got = [recogniser(images[i : i + chunk]) for i in range(0, len(images), chunk)]
    assert (sum(seen), len(recogniser.window)) == (50, 16), "every frame once; one window is kept"
    embedded = encode(images)
    for x, row in enumerate(np.concatenate([r.probabilities for r in got])):
        window = [embedded[max(x - w + j, 0)] for j in range(0, w + 1, stride)]
        np.testing.assert_allclose(row, temporal(np.stack(window)[None])[0][0], rtol=1e-6)
    confidences = np.concatenate([r.detected.confidences for r in got])
    np.testing.assert_allclose(confidences, detect(images)[2])
    # As they are written: in half precision, and cut.
    objectness = np.concatenate([r.scores.objectness for r in got])
    np.testing.assert_allclose(objectness, np.minimum(detect(images)[3][0], BOUND), rtol=1e-3)
    states, logits = (np.concatenate([r.scores[i] for r in got]) for i in (1, 3))
    assert states.shape == (50, 2)
    np.testing.assert_array_equal(logits, np.full((50, 5), BOUND))
    assert got[0].scores.parts is None
