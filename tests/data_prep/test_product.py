import numpy as np
import pytest
import trimesh

from data_prep.products import product, shapes


@pytest.mark.parametrize("num_components", [11, 17])
def test_toy_product_components_are_unlike(num_components):
    toy = product.toy_product(num_components, np.random.default_rng(3))
    colours = np.sqrt([part.mesh.colours[0] for part in toy.parts])
    distance = np.abs(colours[:, None] - colours[None]).max(-1)
    assert (distance[~np.eye(num_components, dtype=bool)] > 0.12).all()
    places = np.array([part.right[:3, 3] for part in toy.parts])
    apart = np.linalg.norm(places[:, None] - places[None], axis=-1)
    assert (apart[~np.eye(num_components, dtype=bool)] > 0.03).all()
    board = np.ptp(toy.board.vertices[:, :2], axis=0)
    for part in toy.parts:  # large, and on the board
        extent = np.ptp(part.mesh.vertices, axis=0)
        assert extent[:2].prod() > 0.02 * board.prod()
        assert (np.abs(part.mesh.moved(part.right).vertices[:, :2]) < board / 2).all()


def test_toy_product_seeds_change_colours_a_little_and_geometry_never():
    one, two = (product.toy_product(11, np.random.default_rng(seed)) for seed in (0, 1))
    differences = []
    for a, b in zip(one.parts, two.parts, strict=True):
        np.testing.assert_array_equal(a.mesh.vertices, b.mesh.vertices)
        np.testing.assert_array_equal(a.right, b.right)
        np.testing.assert_array_equal(a.wrong, b.wrong)
        differences.append(np.abs(np.sqrt(a.mesh.colours) - np.sqrt(b.mesh.colours)).max())
    assert 0.02 < max(differences) < 0.2


def test_product_mesh_shows_exactly_what_is_installed():
    toy = product.toy_product(11, np.random.default_rng(0))
    assert len(toy.mesh([0] * 11).faces) == len(toy.board.faces)
    for k, part in enumerate(toy.parts):
        state = [0] * 11
        added = {}
        for value in (1, -1):
            state[k] = value
            mesh = toy.mesh(state)
            assert len(mesh.faces) == len(toy.board.faces) + len(part.mesh.faces)
            added[value] = mesh.vertices[len(toy.board.vertices) :]
        # An incorrect component sits visibly elsewhere: by a good part of its own size.
        shift = np.abs(added[1] - added[-1]).max(1).mean()
        assert shift > 0.25 * np.ptp(part.mesh.vertices, axis=0).min()


def test_shapes_are_closed_and_fill_their_box():
    for shape in shapes.SHAPES:
        mesh = product.solid(shape, (2.0, 3.0, 0.5), (1, 0, 0))
        np.testing.assert_allclose(np.ptp(mesh.vertices, axis=0), (2.0, 3.0, 0.5))
        np.testing.assert_allclose(mesh.vertices.max(0), (1.0, 1.5, 0.25))
        triangles = mesh.vertices[mesh.faces]
        # Divergence theorem: outward faces enclose a positive volume; closed ones sum to zero.
        normals = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
        np.testing.assert_allclose(normals.sum(0), 0, atol=1e-9)
        assert np.einsum("fi,fi->", triangles.mean(1), normals) / 6 > 0.2


def test_affine_turns_about_x_then_y_then_z_as_trimesh_does():
    rng = np.random.default_rng(0)
    for angles in rng.uniform(-4, 4, (50, 3)):
        scale, translation = rng.uniform(0.5, 2, 3), rng.normal(size=3)
        expected = trimesh.transformations.euler_matrix(*angles, axes="sxyz")
        expected[:3, :3] *= scale
        expected[:3, 3] = translation
        found = product.affine(angles, translation, scale)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-15)
