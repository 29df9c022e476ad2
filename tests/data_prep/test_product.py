import numpy as np

from data_prep.products import product, shapes


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
