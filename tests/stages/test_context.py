import numpy as np

from stormpsr_jax.stages.context import Context
from stormpsr_jax.training.sharding import make_mesh
from tests.support.tiny import tiny

IMAGES = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3), np.uint8)
CAD = np.array([False, True])
REAL = {"data.mean": (0.1, 0.2, 0.3), "data.std": (0.2, 0.3, 0.4)}
FROM_FOLDER = {"data.cad_mean": (), "data.cad_std": ()}


def normalised(image, mean, std):
    return (image / 255 - np.array(mean)) / np.array(std)


def context(folder, **changes):
    return Context(tiny(**changes), folder, make_mesh(1, 1))


def test_normalise_renders_have_the_statistics_of_their_folder(rendered, tmp_path):
    cad = context(rendered).source("cad")
    pictures = np.concatenate(
        [cad.rows(name, range(r.num_frames)) for name, r in cad.recordings.items()]
    ).reshape(-1, 3)
    expected = (pictures / 255).mean(axis=0), (pictures / 255).std(axis=0)
    data = str(rendered / "data")
    for folders in ({"data.dir": data}, {"data.dir": str(tmp_path), "data.cad_dir": data}):
        one = context(tmp_path, **REAL, **FROM_FOLDER, **folders)
        np.testing.assert_allclose(one.cad_statistics, expected, rtol=1e-6)
        real, rendered = np.asarray(one.normalise(IMAGES, CAD))
        np.testing.assert_allclose(rendered, normalised(IMAGES[1], *expected), atol=1e-4)
        np.testing.assert_allclose(real, normalised(IMAGES[0], *REAL.values()), atol=1e-5)
