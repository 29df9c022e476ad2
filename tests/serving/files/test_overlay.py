import numpy as np

from stormpsr_jax.serving.files import overlay
from stormpsr_jax.serving.files.overlay import reduced
from stormpsr_jax.serving.frames import Detected, Frame
from tests.support.model_data import PICTURES, PROCEDURE
from tests.support.recognise_data import decoded


def test_large_pictures_become_smaller_in_a_video(tmp_path):
    """4K becomes half as high and as wide; what is drawn on it keeps its place."""
    picture = np.full((2160, 3840, 3), 90, np.uint8)
    assert reduced(picture).shape == (1080, 1920, 3)
    assert reduced(picture[:1440, :2560]).shape == (1440, 2560, 3)
    box = 2, 0.9, np.array([0.5, 0.5, 0.5, 0.5])
    seen = Detected(*(np.array([part]) for part in (box[2], box[0], box[1])))
    shown = overlay.Shown(0.5, [(0, "next")], Frame(0, seen), 0.5)
    with overlay.writing_video(
        tmp_path / "x.mp4", PROCEDURE, PICTURES.framing_of("encoder"), 5
    ) as write_frame:
        write_frame(reduced(picture), shown)
    (drawn,) = decoded(tmp_path / "x.mp4").astype(int)
    edge = np.abs(drawn[540] - overlay._BOX).sum(1) < 60
    assert abs(np.flatnonzero(edge)[[0, -1]] - (480, 1439)).max() <= 4
