import numpy as np
import pytest

from data_prep.products.product import solid
from data_prep.rendering import scene
from data_prep.rendering.mesh import affine

LIGHT = scene.Light(np.array([0.0, 0.0, 1.0]), np.full(3, 0.3), np.full(3, 0.5))


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
