"""The renderer against Embree, which traces a ray for every sample; a lens against its equation."""

import dataclasses

import numpy as np
import pytest
from embreex.mesh_construction import TriangleMesh
from embreex.rtcore_scene import EmbreeScene

from data_prep.products.product import SHAPES, random_product, solid, toy_product
from data_prep.rendering import scene
from data_prep.rendering.mesh import Mesh, affine, join
from data_prep.worlds import motion, workplace
from data_prep.worlds.workplace import Workplace, clean_picture

SIZE = 96
LIGHT = scene.Light(np.array([0.0, 0.6, 0.8]), np.full(3, 0.3), np.full(3, 0.6))


def lambert(normals, albedos, light):
    cosine = np.maximum(normals @ light.direction.astype(np.float32), 0.0)
    return albedos * (light.ambient + cosine[:, None] * light.diffuse).astype(np.float32)


def table(ground, directions, camera, light):
    """Linear colours where rays meet the table, or of the plain background."""
    if not isinstance(ground, scene.Tabletop):
        return np.broadcast_to(ground, directions.shape)
    # Rays to the horizon or above it see the table far away.
    distance = -camera.position[2] / np.minimum(directions[:, 2], -0.05)
    x, y = (camera.position[:2] + distance[:, None] * directions[:, :2]).T
    (ax, ay, ap), (bx, by, bp) = ground.waves
    grain = np.sin(ax * x + ay * y + ap + 2 * np.sin(bx * x + by * y + bp))
    mix = (0.5 + 0.5 * grain)[:, None].astype(np.float32)
    albedo = ground.colours[0] + mix * (ground.colours[1] - ground.colours[0])
    return lambert(np.array([[0.0, 0.0, 1.0]]), albedo, light)


def traced(placed, camera, light, ground, xy):
    """Of rays through picture points xy (N, 2): linear colours, bodies seen, those met by body."""
    directions = np.column_stack([xy * camera.half_height, np.full(len(xy), -1.0)])
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    directions = (directions @ camera.rotation.T).astype(np.float32)
    colours = np.array(table(ground, directions, camera, light), np.float32)
    depth, seen, met = np.full(len(xy), np.inf), np.full(len(xy), -1), []
    for i, (body, pose) in enumerate((p.body, p.pose) for p in placed):
        turn = pose[:3, :3].astype(np.float32)
        embree = EmbreeScene()
        TriangleMesh(embree, body.vertices.astype(np.float32), body.faces)
        start = ((camera.position - pose[:3, 3]) @ pose[:3, :3]).astype(np.float32)
        rays = np.tile(start, (len(xy), 1)), np.ascontiguousarray(directions @ turn)
        hits = embree.run(*rays, output=1)
        met.append(hits["primID"] >= 0)
        nearer = met[-1] & (hits["tfar"] < depth)
        depth[nearer], seen[nearer] = hits["tfar"][nearer], i
        shaded = lambert(body.normals @ turn.T, body.colours, light)
        colours[nearer] = shaded[hits["primID"][nearer]]
    return colours, seen, met


def reference(product, others, camera, light, ground, size):
    """What `render` returns, by one ray a pixel and four more at edges; and where edges are."""
    step = (2 * np.arange(size) + 1) / size - 1
    points = np.stack(np.meshgrid(step, -step), axis=-1).reshape(-1, 2)
    scenery = [product, *others], camera, light, ground
    colours, seen, met = traced(*scenery, points)
    whole = met[0].reshape(size, size)
    shown, edges = np.sqrt(colours).reshape(size, size, 3), np.zeros((size, size), bool)
    across, down = (np.abs(np.diff(shown, axis=axis)).sum(-1) > 0.15 for axis in (1, 0))
    for there, part in ((across, edges[:, 1:]), (across, edges[:, :-1])):
        part |= there
    for there, part in ((down, edges[1:]), (down, edges[:-1])):
        part |= there
    finer = np.array([[-1, -1], [-1, 1], [1, -1], [1, 1]])[:, None] / (2 * size)
    finer = (points[edges.ravel()] + finer).reshape(-1, 2)
    colours[edges.ravel()] = traced(*scenery, finer)[0].reshape(4, -1, 3).mean(0)
    image = np.sqrt(colours.clip(0, 1)).reshape(size, size, 3)
    visible, box = (seen == 0).sum() / max(whole.sum(), 1), np.full(4, np.nan)
    if visible > 0.9:
        (y0, x0), (y1, x1) = (of(np.argwhere(whole), axis=0) for of in (np.min, np.max))
        box = np.array([x0 + x1 + 1, y0 + y1 + 1, 2 * (x1 - x0 + 1), 2 * (y1 - y0 + 1)]) / 2 / size
    return scene.Picture(image, visible, box), edges


def opened(mesh):
    """A mesh of which nothing is known: with holes, and triangles of either side."""
    faces = mesh.faces[3:].copy()
    faces[::5] = faces[::5, ::-1]
    return Mesh(mesh.vertices, faces, mesh.colours[3:])


def at_work(monkeypatch, kind, rng):
    """The arguments of `render` for pictures of a kind."""
    calls, render = [], scene.render
    keep = lambda *args, **more: calls.append(args) or render(*args, **more)  # noqa: E731
    monkeypatch.setattr(workplace, "render", keep)
    for _ in range(6):
        product = random_product(7, 11) if kind in ("random", "cad") else toy_product(rng)
        for k, part in enumerate(product.parts if kind == "cad" else ()):
            product = product.changed(k, mesh=opened(part.mesh))
        views = motion.plan_views(1, rng, hands=float(kind != "clean"))
        state = rng.integers(-1, 2, len(product.parts))
        if kind == "clean":
            clean_picture(scene.Body(product.mesh(state)), views, 0, SIZE, rng)
        else:
            bodies = workplace.bodies_of(product)
            Workplace(product, bodies, rng).picture(views, 0, state, SIZE)
    return calls


def near(monkeypatch, kind, rng):
    """A plank from far ahead to far behind the camera; a closed room, or one with sides unknown."""
    camera = scene.look_at(np.array([0.0, -2.0, 1.5]), np.zeros(3), 0.2, 0.6)
    pose = affine((0.1, 0, 0.3), (0.4, -1, 0.4))
    room = solid("box", (8, 8, 8), (0, 1, 0))
    room = dataclasses.replace(room, colours=rng.random((len(room.faces), 3)))
    meshes = solid("box", (0.3, 9.0, 0.2), (1, 0, 0)), room, dataclasses.replace(room, closed=False)
    placed = (scene.Placed(scene.Body(mesh), pose) for mesh in meshes)
    return [(one, [], camera, LIGHT, np.zeros(3), SIZE) for one in placed]


def every_shape(monkeypatch, kind, rng):
    """All shapes of the toys, of which those sides that look away are not drawn."""
    places = [(i % 5 - 2, i // 5 - 2, 0.4) for i in range(len(SHAPES))]
    meshes = [solid(shape, (0.8, 0.7, 0.8), rng.random(3)) for shape in SHAPES]
    moves = [affine(rng.uniform(-2, 2, 3), place) for place in places]
    body = scene.Body(join([m.moved(move) for m, move in zip(meshes, moves, strict=True)]))
    eyes = ((0.5, -5, 6), (-5, 2, 4), (3, 5, -6))
    cameras = [scene.look_at(np.array(eye), np.zeros(3), 0.0, 0.37) for eye in eyes]
    placed = scene.Placed(body, np.eye(4))
    return [(placed, [], camera, LIGHT, np.full(3, 0.1), SIZE) for camera in cameras]


KINDS = dict.fromkeys(("toy", "random", "cad", "clean"), at_work)
KINDS |= {"near": near, "shapes": every_shape}


@pytest.mark.parametrize("kind", KINDS)
def test_pictures_boxes_and_visible_shares_are_those_of_rays(kind, monkeypatch):
    """But for a few samples that lie on an edge, where rounding decides."""
    differ = []
    for call in KINDS[kind](monkeypatch, kind, np.random.default_rng(len(kind))):
        ours, (theirs, edges) = scene.render(*call), reference(*call)
        differ.append(np.abs(ours.image - theirs.image).max(-1) > 2 / 255)
        assert ours.visible == pytest.approx(theirs.visible, abs=2e-3)
        np.testing.assert_allclose(ours.box, theirs.box, atol=1.01 / SIZE)
        # Or four samples would not be seen to be right.
        assert 0.02 < edges.mean() < 0.6
    assert np.mean(differ) < 2e-3


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
        whole = 1 + (2 * k if k > 0 else k)
        np.testing.assert_allclose(seen * (1 + k * (seen @ seen)) / whole, pinhole, atol=0.02)
        assert np.abs(seen - pinhole).max() > 0.03
