import dataclasses
import itertools

import numpy as np
import pytest
import simplejpeg
from PIL import Image

from data_prep.products.product import solid
from data_prep.rendering import scene
from data_prep.rendering.mesh import affine
from data_prep.worlds import backgrounds, worlds
from tests.support.recipes import recipe
from tests.support.recognise_data import write_video

LIGHT = scene.Light(np.array([0.0, 0.0, 1.0]), np.full(3, 0.3), np.full(3, 0.5))
SIZE = 64


@pytest.mark.parametrize("k", [0.2, -0.1])
def test_lens_a_point_is_seen_where_radial_distortion_puts_it(k):
    """A small box far from the middle, whose place a pinhole camera tells."""
    view = scene.look_at(np.array([0.3, -4.0, 5.0]), np.zeros(3), 0.1, 0.37)
    mesh = solid("box", (0.15,) * 3, (0.6, 0.1, 0.1))
    for at in ((1.2, 0.5, 0.1), (-1.0, -0.8, 0.1)):
        small = scene.Placed(scene.Body(mesh), affine(translation=at))
        picture = scene.render(small, [], view, LIGHT, np.full(3, 0.5), 256, lens=k)
        seen = (2 * picture.box[:2] - 1) * (1, -1)
        pinhole = view.project(np.array([at]))[0]
        radius = np.hypot(*seen)
        whole = 1 + (2 * k if k > 0 else k)
        np.testing.assert_allclose(seen * (1 + k * radius**2) / whole, pinhole, atol=0.02)
        assert np.abs(seen - pinhole).max() > 0.03


def test_backgrounds_are_pictures_with_any_names_and_frames_of_videos(tmp_path):
    Image.new("RGB", (120, 80), (200, 30, 30)).save(tmp_path / "my bench.png")
    inside = tmp_path / "more"
    inside.mkdir()
    Image.new("RGB", (64, 90), (30, 30, 200)).save(inside / "b.jpg")
    frames = np.stack([np.full((48, 64, 3), grey, np.uint8) for grey in (40, 80, 120)])
    write_video(inside / "empty.mp4", frames, np.arange(3.0))
    (tmp_path / "notes.txt").write_text("no picture")
    found = backgrounds.read(tmp_path, 32)
    decoded = [simplejpeg.decode_jpeg(jpeg) for jpeg in found]
    assert {picture.shape for picture in decoded} == {(48, 48, 3)}
    means = sorted(tuple(np.round(p.mean((0, 1)), -1).astype(int)) for p in decoded)
    assert (200, 30, 30) in means
    assert (30, 30, 200) in means
    assert len(means) > 2  # the video's
    assert backgrounds.read(tmp_path, 32) == found


def test_backgrounds_are_behind_recordings_in_place_of_a_bench(tmp_path):
    Image.new("RGB", (64, 64), (200, 20, 200)).save(tmp_path / "purple.png")
    world = worlds.chosen("bench", backgrounds=tmp_path, size=SIZE)
    assert world.backgrounds
    assert world.unlike_toy() != worlds.BENCH.unlike_toy()
    with_them, without = (
        recipe(size=SIZE, world=w).make("train", "train_000").jpegs
        for w in (world, dataclasses.replace(world, backgrounds=()))
    )
    for one, other in itertools.islice(zip(with_them, without, strict=True), 3):
        purple, bench = (simplejpeg.decode_jpeg(jpeg).argmin(-1) == 1 for jpeg in (one, other))
        assert purple.mean() > bench.mean() + 0.2
