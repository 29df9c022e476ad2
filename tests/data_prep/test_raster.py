"""The rasteriser against Embree, which traces a ray for every sample."""

import dataclasses
import functools

import numpy as np
import pytest

from data_prep.products.product import random_product, solid, toy_product
from data_prep.rendering import scene
from data_prep.rendering.mesh import Mesh, affine
from data_prep.worlds import motion, workplace
from data_prep.worlds.workplace import Workplace, clean_picture
from tests.support import tracer

SIZE = 96


@functools.cache
def drawn(kind: str) -> list[tuple]:
    """The arguments of `render`, for a few pictures of a kind."""
    rng = np.random.default_rng(len(kind))
    calls = []
    before = workplace.render

    def keep(*args, **more):
        calls.append(args)
        return before(*args, **more)

    workplace.render = keep
    try:
        if kind == "clean":
            product = toy_product(rng)
            bodies = [scene.Body(product.mesh(state)) for state in rng.integers(-1, 2, (6, 11))]
            views = motion.plan_views(6, rng, hands=0)
            for i, body in enumerate(bodies):
                clean_picture(body, views, i, SIZE, rng)
        for _ in range(6 if kind != "clean" else 0):
            product = toy_product(rng) if kind == "toy" else random_product(7, 11)
            if kind == "cad":  # nothing is known of such meshes
                product = dataclasses.replace(
                    product,
                    parts=tuple(dataclasses.replace(p, mesh=opened(p.mesh)) for p in product.parts),
                )
            views = motion.plan_views(1, rng, hands=1)
            state = rng.integers(-1, 2, len(product.parts))
            place = Workplace(product, lambda s, p=product: scene.Body(p.mesh(s)), rng)
            place.picture(views, 0, state, SIZE)
    finally:
        workplace.render = before
    return calls


def opened(mesh: Mesh) -> Mesh:
    faces = mesh.faces[3:].copy()
    faces[::5] = faces[::5, ::-1]
    return Mesh(mesh.vertices, faces, mesh.colours[3:])


def sampled(product, others, camera, light, ground, size):
    """Depth, face, whole and linear colours of all pixels' middles, drawn and traced."""
    placed = [product, *others]
    ours, reference = (
        scene._Scene(placed, camera, light, ground, size),
        tracer.Scene(camera, placed, light, ground).trace(tracer.grid(size)),
    )
    every = scene._every_pixel(size)
    nearness, face, whole = ours.draw(every)
    picture = np.empty((size, size, 3), np.float32)
    ours.paint(every, face, picture)
    with np.errstate(divide="ignore"):
        depth = 1 / nearness[:, 0]
    return (depth, face[:, 0], whole[:, 0], picture.reshape(-1, 3)), reference


KINDS = ("toy", "random", "cad", "clean")


@pytest.mark.parametrize("kind", KINDS)
def test_depths_faces_and_colours_are_those_of_rays(kind):
    """But for a few samples that lie on an edge, where rounding decides."""
    samples = differ = 0
    for call in drawn(kind):
        (depth, face, whole, colours), hits = sampled(*call)
        same = face == hits.face
        samples, differ = samples + len(same), differ + np.count_nonzero(~same)
        there = same & (face >= 0)
        assert there.mean() > 0.05
        np.testing.assert_allclose(depth[there], hits.depth[there], rtol=2e-5)
        np.testing.assert_array_equal(np.isinf(depth), face < 0)
        assert np.count_nonzero(whole != hits.meets[0]) <= 1
        np.testing.assert_allclose(colours[same], hits.colours[same], atol=2e-5)
    assert differ <= 3e-4 * samples


@pytest.mark.parametrize("kind", KINDS)
def test_pictures_boxes_and_visible_shares_are_those_of_rays(kind):
    differ = []
    for call in drawn(kind):
        ours, reference = scene.render(*call), tracer.render(*call)
        differ.append(np.abs(ours.image - reference.image).max(-1) > 2 / 255)
        assert ours.visible == pytest.approx(reference.visible, abs=2e-3)
        assert np.isnan(ours.box).all() == np.isnan(reference.box).all()
        np.testing.assert_allclose(ours.box, reference.box, atol=1.01 / SIZE)
        edges = tracer.find_edges(reference.image)
        assert 0.02 < edges.mean() < 0.6  # or four samples would not be seen to be right
    assert np.mean(differ) < 2e-3


def test_what_reaches_behind_the_camera_or_surrounds_it_is_seen_like_by_rays():
    camera = scene.look_at(np.array([0.0, -2.0, 1.5]), np.zeros(3), 0.2, 0.6)
    light = scene.Light(np.array([0.0, 0.6, 0.8]), np.full(3, 0.3), np.full(3, 0.6))
    plank = solid("box", (0.3, 9.0, 0.2), (1, 0, 0))  # from far ahead to far behind
    room = solid("box", (8, 8, 8), (0, 1, 0))  # closed, and seen from within
    around = scene.Body(room), scene.Body(dataclasses.replace(room, closed=False))
    for body in (scene.Body(plank), *around):
        placed = scene.Placed(body, affine((0.1, 0, 0.3), (0.4, -1, 0.4)))
        (depth, face, _, _), hits = sampled(placed, [], camera, light, np.zeros(3), 64)
        assert 0.02 < np.mean(face >= 0)
        np.testing.assert_array_equal(face, hits.face)
        seen = face >= 0
        np.testing.assert_allclose(depth[seen], hits.depth[seen], rtol=2e-5)
