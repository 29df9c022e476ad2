"""The annotated video."""

import dataclasses
import time

import av
import numpy as np
import pytest

import stormpsr_jax
from stormpsr_jax.psr.files import scores
from stormpsr_jax.psr.procedure import Procedure
from stormpsr_jax.psr.streams.learned_beliefs import Belief
from stormpsr_jax.serving.files import overlay
from stormpsr_jax.serving.files.thumbnails import reduced
from stormpsr_jax.serving.kept import Kept
from tests.support.model_data import PICTURES, PROCEDURE, video, write
from tests.support.recognise_data import HEIGHT, WIDTH, by_the_clock, decoded


def test_video_has_the_frames_and_size_of_the_source(clip, made):
    annotated, plain = decoded(made / "annotated.mp4"), by_the_clock(clip)
    assert annotated.shape == plain.shape
    with av.open(str(made / "annotated.mp4")) as container:
        assert container.streams.video[0].average_rate == 10
    free = (slice(None), slice(HEIGHT * 2 // 3), slice(32, 36))  # between both panels
    annotated, plain = annotated[free].astype(int), plain[free].astype(int)
    same = np.abs(annotated - plain).mean(axis=(1, 2, 3))
    other = np.abs(annotated[1:] - plain[:-1]).mean(axis=(1, 2, 3))
    assert np.median(same) < np.median(other) / 2  # shows the same moment


def test_video_odd_sizes_and_the_other_codec(tmp_path, monkeypatch):
    shown = overlay.Shown(
        0.5, [(0, "done"), (3, "next"), (6, "wrong")], np.array([0, 0.5, 1]), None
    )
    picture = np.full((101, WIDTH + 1, 3), 90, np.uint8)
    for codec in ("h264", "mpeg4"):
        with overlay.writing_video(
            tmp_path / "x.mp4", PROCEDURE, PICTURES.framing, 12.5
        ) as write_frame:
            for _ in range(3):
                write_frame(picture, shown)
        assert decoded(tmp_path / "x.mp4").shape == (3, 102, WIDTH + 2, 3)
        with av.open(str(tmp_path / "x.mp4")) as container:
            assert container.streams.video[0].codec_context.name == codec
        monkeypatch.setattr(overlay, "CODECS", ("mpeg4",))


def test_large_pictures_become_smaller_in_a_video(tmp_path):
    """4K becomes half as high and as wide; what is drawn on it keeps its place."""
    picture = np.full((2160, 3840, 3), 90, np.uint8)
    assert reduced(picture).shape == (1080, 1920, 3)
    assert reduced(picture[:1440, :2560]).shape == (1440, 2560, 3)
    box = 2, 0.9, np.array([0.5, 0.5, 0.5, 0.5])
    shown = overlay.Shown(0.5, [(0, "next")], None, box)
    with overlay.writing_video(tmp_path / "x.mp4", PROCEDURE, PICTURES.framing, 5) as write_frame:
        write_frame(reduced(picture), shown)
    (drawn,) = decoded(tmp_path / "x.mp4").astype(int)
    edge = np.abs(drawn[540] - overlay._BOX).sum(1) < 60
    assert abs(np.flatnonzero(edge)[[0, -1]] - (480, 1439)).max() <= 4


def test_names_of_200_characters_are_cut_and_quickly_drawn():
    """The longest that a procedure may have."""
    data = PROCEDURE.to_json()
    names = [f"{i}" + "W" * 199 for i in range(len(data["components"]))]
    procedure = Procedure.from_json(data | {"components": names})
    drawer = overlay._Drawer(procedure, PICTURES.framing.place(480, 640), 480, 640)
    picture = np.full((480, 640, 3), 90, np.uint8)
    rows = [(3 * k, "next" if k == 0 else "open") for k in range(len(names))]
    start = time.monotonic()
    for i in range(10):
        shown = overlay.Shown(float(i), rows, np.linspace(0, 1, len(names)), None)
        drawn = drawer.draw(picture, shown)
    assert time.monotonic() - start < 5
    middle = drawn[:, 300:380]  # between the panels
    assert (middle == 90).all()
    assert (drawn[:200, :260] == 255).any()
    assert (drawn[:200, 400:] == 255).any()


@pytest.mark.parametrize("region", [(0.0, 0.0, 1.0, 1.0), (0.1, 0.2, 0.9, 0.7)])
@pytest.mark.parametrize("aspect", ["stretch", "pad", "crop"])
def test_source_box_is_the_inverse_of_the_preparation(aspect, region):
    place = dataclasses.replace(PICTURES, aspect=aspect, region=region).framing.place(480, 640)
    box = np.array([0.45, 0.5, 0.1, 0.06])  # in the middle, so that nothing cuts it
    corners = overlay.source_box(place, place.map_boxes(box[None])[0])
    np.testing.assert_allclose(corners, [0.4, 0.47, 0.5, 0.53], atol=1e-8)


def test_bars_show_what_sits_right_and_wrong():
    """Three components: right, wrong, half right and a quarter wrong."""
    drawer = overlay._Drawer(PROCEDURE, PICTURES.framing.place(480, 480), 480, 480)
    right, wrong = np.array([1, 0, 0.5]), np.array([0, 1, 0.25])
    shown = overlay.Shown(0, [(0, "next")], np.full(3, 0.7), None, Belief(right, right, wrong))
    drawn = drawer.draw(np.full((480, 480, 3), 90, np.uint8), shown)
    green, red, orange = (
        (drawn == colour).all(2) for colour in (overlay._RIGHT, overlay._ERROR, overlay._BAR)
    )
    columns = np.flatnonzero(green.any(0))
    bars = slice(columns[0], columns[-1] + 1)
    rows = np.flatnonzero(green[:, bars].any(1) | red[:, bars].any(1))
    first, second, third = np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1)
    width = len(columns)
    for of_row, filled in ((first, (1, 0)), (second, (0, 1)), (third, (0.5, 0.25))):
        shares = [colour[of_row, bars].mean() for colour in (green, red)]
        assert shares == pytest.approx(filled, abs=3 / width)
    assert red[second, : columns[0]].any()  # the name of the wrong part
    assert not red[first, : columns[0]].any()
    assert not orange.any()
    changed = drawer.draw(np.full((480, 480, 3), 90, np.uint8), shown._replace(belief=None))
    assert (changed == overlay._BAR).all(2).any()


def test_rows_have_the_beliefs_after_them(tmp_path):
    write(tmp_path / "model", ("asd", "temporal", "storm", "learned"))
    model = stormpsr_jax.load_model(tmp_path / "model")
    rows = [model.prepare(picture) for picture in video(21)]
    decoder, count = model.decoder("learned", "assembly"), 0
    with Kept(model.watch()) as kept:
        assert list(kept.look(model.recogniser(), iter(rows), 16)) == [16, 5]
        for chunk in kept.decoded(model.decoder("learned", "assembly"), 0):
            for i, number in enumerate(chunk.numbers):
                decoder.update(number, scores.row(chunk.recognised.scores, i))
                wanted = decoder.belief.probabilities()
                np.testing.assert_array_equal(chunk.beliefs[i], wanted)
                count += 1
        (chunk, *_) = kept.decoded(model.decoder("storm", "assembly"), 0)
        assert set(chunk.beliefs) == {None}
    assert count == 21
