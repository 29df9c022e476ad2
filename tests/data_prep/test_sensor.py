import numpy as np

from data_prep.rendering.sensor import exposed


def test_exposed_noise_is_bell_shaped_and_of_its_level():
    image = np.full((200, 200, 3), 0.5, np.float32)
    pixels = exposed(image, 0.04, np.random.default_rng(0)).astype(float)
    noise = (pixels - 127.5) / 255
    assert abs(noise.mean()) < 5e-4
    assert abs(noise.std() / 0.04 - 1) < 0.02
    assert abs(np.mean(np.abs(noise) < 0.04) - 0.683) < 0.03  # of a normal distribution
    assert abs(np.mean(np.abs(noise) < 0.08) - 0.954) < 0.02
    beside = np.corrcoef(noise[:, :-1, 0].ravel(), noise[:, 1:, 0].ravel())[0, 1]
    channels = np.corrcoef(noise[..., 0].ravel(), noise[..., 1].ravel())[0, 1]
    assert max(abs(beside), abs(channels)) < 0.02


def test_exposed_values_are_rounded_and_kept_in_range():
    image = np.linspace(-0.2, 1.2, 3 * 49, dtype=np.float32).reshape(7, 7, 3)
    pixels = exposed(image, 0.0, np.random.default_rng(0))
    np.testing.assert_array_equal(pixels, np.round(255 * np.clip(image, 0, 1)))
    assert exposed(image, 1.0, np.random.default_rng(0)).max() == 255
