import numpy as np

from data_prep.products import product, shapes


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
