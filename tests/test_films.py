import numpy as np
import pytest

from data_prep.products.product import Part, Product, solid
from data_prep.rendering.mesh import affine
from data_prep.worlds.timelines import Timeline

pytest.importorskip("vtk")
FPS = 2.0


def filmed(rows, seconds, seed=0, size=48, **options):
    """The frames of a film of a red block on a white mat, of rows (second, state of the block)."""
    from benchmarks.films.film import film

    right, wrong = affine(translation=(0, 0, 0.3)), affine((0, 0, 0.8), (0.6, 0.4, 0.3))
    block = Part(solid("box", (1.4, 1.0, 0.6), (0.8, 0.01, 0.01)), 0.6, right, wrong)
    mat = solid("box", (3, 2.4, 0.1), (0.9, 0.9, 0.9)).moved(affine(translation=(0, 0, -0.05)))
    frames, states = np.array([(FPS * second, state) for second, state in rows], int).T
    timeline = Timeline(0, int(FPS * seconds), frames, states[:, None].astype(np.int8))
    product, rng = Product(mat, (block,)), np.random.default_rng(seed)
    return list(film(product, timeline, FPS, size, rng, **options))


def red(frame):
    """Share of the pixels in the product's box that are red."""
    x, y, w, h = frame.box * len(frame.picture)
    inside = frame.picture[int(y - h / 2) : int(y + h / 2), int(x - w / 2) : int(x + w / 2)]
    r, g, b = np.moveaxis(inside.astype(int), -1, 0)
    return float(((r > 1.6 * g) & (r > 1.6 * b)).mean())


@pytest.mark.parametrize("style", ["vtk", "cartoon"])
def test_films_the_part_is_in_the_box_when_the_timeline_says_so(system, style):
    frames = filmed([(0, 0), (8, 1), (16, 0)], 24, style=style)
    clear = [i for i, frame in enumerate(frames) if np.isfinite(frame.box).all()]
    shown = {i: red(frames[i]) for i in clear}
    before, during = [i for i in clear if i < 8], [i for i in clear if 22 <= i < 32]
    assert before
    assert during
    assert max(shown[i] for i in before) < 0.02
    assert min(shown[i] for i in during) > 0.08
    hidden = [i for i in range(len(frames)) if i not in clear]
    assert any(12 <= i <= 17 for i in hidden)  # hands are on it when it is fitted
