import numpy as np
import pytest

from data_prep.products.product import solid
from data_prep.rendering import scene
from data_prep.rendering.mesh import Mesh, affine, join

LIGHT = scene.Light(np.array([0.0, 0.0, 1.0]), np.full(3, 0.3), np.full(3, 0.5))
TABLE = scene.Table(np.full((2, 3), 0.2), np.zeros((2, 3)))


def _nearest_hits(mesh: Mesh, pose, origin, directions):
    """Möller-Trumbore over every pair of ray and triangle; inf where nothing is hit."""
    v0, v1, v2 = (mesh.moved(pose).vertices[mesh.faces[:, i]] for i in range(3))
    e1, e2 = v1 - v0, v2 - v0
    p = np.cross(directions[:, None], e2[None])
    det = np.einsum("fi,nfi->nf", e1, p)
    with np.errstate(divide="ignore", invalid="ignore"):
        s = origin - v0
        u = np.einsum("fi,nfi->nf", s, p) / det
        q = np.cross(s, e1)
        v = np.einsum("ni,fi->nf", directions, q) / det
        t = np.einsum("fi,fi->f", e2, q) / det
    hit = (u >= 0) & (v >= 0) & (u + v <= 1) & (t > 1e-6)
    return np.where(hit, t, np.inf).min(1)


def _setting(seed):
    rng = np.random.default_rng(seed)
    camera = scene.look_at(
        np.array([rng.normal(), -4.0, 5.0]), rng.normal(0, 0.3, 3), rng.normal(0, 0.1), 0.35
    )
    product = join(
        [solid("box", (2.5, 1.5, 0.4), (1, 0, 0)), solid("sphere", (0.9, 0.9, 1.5), (0, 1, 0))]
    )
    hider = solid("hexagon", (1.3, 1.1, 0.3), (0, 0, 1))
    poses = (
        affine((0.1, -0.1, rng.uniform(-3, 3)), (0, 0, 0.6)),
        affine(rng.normal(0, 0.4, 3), (*rng.normal(0, 0.9, 2), rng.uniform(1.2, 2))),
    )
    return camera, (product, hider), poses


@pytest.mark.parametrize("seed", range(2))
def test_render_matches_brute_force_visible_fraction(seed):
    size = 24
    camera, meshes, poses = _setting(seed)
    bodies = [scene.Placed(scene.Body(m), p) for m, p in zip(meshes, poses, strict=True)]
    picture = scene.render(bodies[0], bodies[1:], camera, LIGHT, TABLE, size)
    # Pixel (row i, column j) looks through the middle of its cell; row 0 is the top.
    centres = (np.arange(size) + 0.5) / size * 2 - 1
    x, y = np.meshgrid(centres, -centres)
    local = np.stack([x * 0.35, y * 0.35, -np.ones_like(x)], -1).reshape(-1, 3)
    directions = local @ camera.rotation.T
    product, hider = (
        _nearest_hits(m, p, camera.position, directions) for m, p in zip(meshes, poses, strict=True)
    )
    extent = np.isfinite(product)
    visible = (extent & (product < hider)).sum() / extent.sum()
    assert 0 < visible <= 1
    assert abs(picture.visible - visible) <= 2 / extent.sum()  # rays along an edge may differ
    clear = scene.render(bodies[0], [], camera, LIGHT, TABLE, size)
    assert clear.visible == 1
    rows, columns = np.nonzero(extent.reshape(size, size))
    expected = np.array(
        [
            (columns.min() + columns.max() + 1) / 2,
            (rows.min() + rows.max() + 1) / 2,
            np.ptp(columns) + 1,
            np.ptp(rows) + 1,
        ]
    )
    np.testing.assert_allclose(clear.box * size, expected, atol=1.01)
    assert np.isnan(picture.box).all() == (picture.visible <= 0.9)


def test_render_matches_lambert_shading_seen_from_above():
    camera = scene.look_at(np.array([0.0, -1e-6, 5.0]), np.zeros(3), 0.0, 0.3)
    light = scene.Light(np.array([0.6, 0.0, 0.8]), np.full(3, 0.25), np.array([0.5, 0.4, 0.3]))
    box = scene.Placed(scene.Body(solid("box", (1, 1, 1), (0.9, 0.5, 0.1))), np.eye(4))
    image = scene.render(box, [], camera, light, np.array([0.04, 0.04, 0.04]), 16).image
    expected = np.array([0.9, 0.5, 0.1]) * (0.25 + 0.8 * np.array([0.5, 0.4, 0.3]))
    np.testing.assert_allclose(image[8, 8], np.sqrt(expected), rtol=1e-5)
    np.testing.assert_allclose(image[0, 0], 0.2, rtol=1e-5)
    # Edge pixels are mixtures: four rays each.
    values = np.unique(np.round(image[8, :, 0] ** 2, 5))
    assert 2 <= len(values) <= 6


def test_table_lies_at_height_zero():
    camera = scene.look_at(np.array([0.0, -3.0, 4.0]), np.zeros(3), 0.0, 0.5)
    flat = scene.Table(np.array([[0.0] * 3, [1.0] * 3]), np.array([[0, 0.3, 0], [0, 0, 0]]))
    thin = scene.Placed(scene.Body(solid("box", (0.01, 0.01, 0.01), (0, 0, 0))), np.eye(4))
    only_ambient = scene.Light(np.array([0.0, 0.0, 1.0]), np.ones(3), np.zeros(3))
    image = scene.render(thin, [], camera, only_ambient, flat, 9).image
    # The picture's middle row looks along the ray that meets the table at y = 0: half grain.
    np.testing.assert_allclose(image[4, 0, 0] ** 2, 0.5, atol=0.02)
    step = 2 / 9 * 0.5  # tangent of one pixel
    angle = np.arctan2(4.0, 3.0) - np.arctan(4 * step)  # the top row looks flatter
    y = -3.0 + 4.0 / np.tan(angle)
    np.testing.assert_allclose(image[0, 4, 0] ** 2, 0.5 + 0.5 * np.sin(0.3 * y), atol=0.02)
