import functools
import sys

import numpy as np
import pytest
import simplejpeg

from data_prep import synthetic
from stormpsr_jax.data.annotation import NOT_ANNOTATED
from stormpsr_jax.data.clips import ClipSource
from tests.support import cad_files
from tests.support.processes import refused
from tests.support.recipes import SYNTHETIC, recipe


def _shown(folder, split):
    source = ClipSource(folder, split, SYNTHETIC)
    return {n: (source.jpegs(n, source.numbers(n)), r) for n, r in source.recordings.items()}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("synthetic")
    make = functools.partial(
        synthetic.make_dataset, size=8, fps=1, cad_per_state=1, recordings={"train": 2, "test": 1}
    )
    make(folder / "few")
    make(folder / "all", cad_wrong=2, error_recordings=3)
    return folder


def test_further_recordings_change_no_other_one(folders):
    for split, added in (
        ("train", {f"rehearsal_{i:03d}" for i in range(3)}),
        ("test", set()),
        ("cad", {f"wrong_{c:02d}" for c in np.flatnonzero(SYNTHETIC.states.any(axis=1)) + 1}),
    ):
        few, more = (_shown(folders / name, split) for name in ("few", "all"))
        assert more.keys() - few.keys() == added
        assert all(more[name][0] == jpegs for name, (jpegs, _) in few.items())
    different = {jpeg for name in added for jpeg in more[name][0]}
    assert len(few) == SYNTHETIC.num_states
    assert len(different) == 2 * len(added)


def test_rehearsals_are_full_of_errors_and_have_no_boxes(folders):
    shares = {True: [], False: []}
    for name, (_, r) in _shown(folders / "all", "train").items():
        rehearsal = name.startswith("rehearsal")
        shares[rehearsal].append((r.states == -1).any(0).mean())
        assert ((r.classes == NOT_ANNOTATED) == rehearsal).all()
        assert np.isfinite(r.boxes).any() != rehearsal
        assert (r.visible > 0).any()
    assert max(shares[False]) < 0.25
    assert 0.3 < np.mean(shares[True]) < 0.7


def test_annotations_fit_what_is_visible_and_pictures_are_rendered_when_asked_for(monkeypatch):
    asked = []
    picture = synthetic.Workplace.picture
    spy = lambda *args: asked.append(args[2]) or picture(*args)  # noqa: E731
    monkeypatch.setattr(synthetic.Workplace, "picture", spy)
    data = recipe().make("train", "train_000")
    images = [simplejpeg.decode_jpeg(next(data.jpegs)) for _ in range(2)]
    assert asked == [0, 1]
    images += [simplejpeg.decode_jpeg(jpeg) for jpeg in data.jpegs]
    assert len(images) == len(data.states) == len(data.visible)
    assert {image.shape for image in images} == {(16, 16, 3)}
    annotated = data.visible > 0.9
    assert 0.05 < annotated.mean() < 0.5
    np.testing.assert_array_equal(~np.isnan(data.boxes).any(1), annotated)
    classes = SYNTHETIC.state_classes(data.states)
    np.testing.assert_array_equal(data.classes, np.where(annotated, classes, -1))
    low = data.boxes[annotated, :2] - data.boxes[annotated, 2:] / 2
    high = data.boxes[annotated, :2] + data.boxes[annotated, 2:] / 2
    assert low.min() >= -1e-6
    assert high.max() <= 1 + 1e-6
    assert 0.45 < data.boxes[annotated, 3].mean() < 0.8
    # Completions happen under the hands.
    events = np.flatnonzero((data.states[1:] != data.states[:-1]).any(1)) + 1
    assert np.mean(data.visible[events] > 0.9) < 0.1
    assert data.poses is None


def test_renders_show_the_parts_of_their_state_where_their_poses_say(tmp_path):
    """The green part is on the left of the product, the blue one on the right, in every view."""
    product = cad_files.product(cad_files.write(tmp_path / "meshes"))
    made = recipe(cad_files.PROCEDURE, product, size=48)
    for number, state in enumerate(cad_files.PROCEDURE.states[1:], start=2):
        data = made.make("cad", f"cad_{number:02d}")
        for jpeg, pose in zip(data.jpegs, data.poses, strict=True):
            image = simplejpeg.decode_jpeg(jpeg).astype(int)
            strong = 2 * image - (image.sum(axis=-1, keepdims=True) - image) > 120
            np.testing.assert_array_equal(strong.sum(axis=(0, 1)) > 10, state == 1)
            middle, x_axis, _ = pose.reshape(3, 2) * 48
            for colour, sign in ((1, -1), (2, 1)):
                place = np.argwhere(strong[..., colour])[:, ::-1] - middle
                assert (
                    not state[colour] or 0.1 < sign * place.mean(0) @ x_axis / (x_axis @ x_axis) < 1
                )


@pytest.mark.parametrize("missing", ["trimesh", "numba"])
def test_a_missing_library_is_one_line_that_names_the_extra(missing, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, missing, None)
    said = refused(capsys, synthetic.main, [f"--out={tmp_path / 'out'}"])
    assert f"needs {missing!r}: pip install '.[synthetic]'" in said
