"""The annotated video."""

import dataclasses

import av
import numpy as np
import pytest
from model_data import PICTURES, PROCEDURE
from recognise_data import HEIGHT, WIDTH, by_the_clock, decoded

from stormpsr_jax.recognition import overlay
from stormpsr_jax.recognition.pipeline import to_jpeg


def test_video_property_has_the_frames_and_size_of_the_source(clip, made):
    annotated, plain = decoded(made / "annotated.mp4"), by_the_clock(clip)
    assert annotated.shape == plain.shape
    with av.open(str(made / "annotated.mp4")) as container:
        assert container.streams.video[0].average_rate == 10
    below = slice(HEIGHT * 3 // 4, None)  # where no panel is
    same = np.abs(annotated[:, below].astype(int) - plain[:, below]).mean(axis=(1, 2, 3))
    other = np.abs(annotated[1:, below].astype(int) - plain[:-1, below]).mean(axis=(1, 2, 3))
    assert np.median(same) < np.median(other) / 2  # shows the same moment


def test_video_property_odd_sizes_and_the_other_codec(tmp_path, monkeypatch):
    shown = overlay.Shown(
        0.5, [(0, "done"), (3, "next"), (6, "wrong")], np.array([0, 0.5, 1]), None
    )
    picture = np.full((101, WIDTH + 1, 3), 90, np.uint8)
    for codec in ("h264", "mpeg4"):
        with overlay.writing_video(
            tmp_path / "x.mp4", PROCEDURE, PICTURES.framing, 12.5
        ) as write_frame:
            for _ in range(3):
                write_frame(to_jpeg(picture), shown)
        assert decoded(tmp_path / "x.mp4").shape == (3, 102, WIDTH + 2, 3)
        with av.open(str(tmp_path / "x.mp4")) as container:
            assert container.streams.video[0].codec_context.name == codec
        monkeypatch.setattr(overlay, "CODECS", ("mpeg4",))


@pytest.mark.parametrize("region", [(0.0, 0.0, 1.0, 1.0), (0.1, 0.2, 0.9, 0.7)])
@pytest.mark.parametrize("aspect", ["stretch", "pad", "crop"])
def test_source_box_property_is_the_inverse_of_the_preparation(aspect, region):
    place = dataclasses.replace(PICTURES, aspect=aspect, region=region).framing.place(480, 640)
    box = np.array([0.45, 0.5, 0.1, 0.06])  # in the middle, so that nothing cuts it
    corners = overlay.source_box(place, place.map_boxes(box[None])[0])
    np.testing.assert_allclose(corners, [0.4, 0.47, 0.5, 0.53], atol=1e-8)
