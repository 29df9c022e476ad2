import functools
import itertools

import numpy as np
import pytest

from data_prep import cad
from data_prep.worlds import rendered
from stormpsr_jax.data.clips import ClipSource
from tests.support import cad_files
from tests.support.cad_files import PROCEDURE
from tests.support.digests import digests

_make = functools.partial(cad.make_dataset, procedure=PROCEDURE, size=32, per_state=6)


@pytest.fixture
def meshes(tmp_path):
    return cad_files.write(tmp_path / "meshes")


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """Pictures without hands, and what they would be if all parts sat right."""
    folder = tmp_path_factory.mktemp("cad")
    meshes = cad_files.write(folder / "meshes")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cad, "OCCLUDED", 0.0)
        _make(folder / "wrong", meshes=meshes, wrong=6, size=48)
        patch.setattr(
            rendered, "with_wrong_poses", lambda product, *_: product
        )  # its poses are right
        _make(folder / "right", meshes=meshes, wrong=6, size=48)
    return tuple(ClipSource(folder / name, "cad", PROCEDURE) for name in ("wrong", "right"))


def test_pictures_show_the_components_of_their_state(shown):
    source, _ = shown
    names = [name for name in source.recordings if not rendered.is_wrong(name)]
    assert names == ["cad_02", "cad_03", "cad_04"]  # state 1 shows nothing
    for c, name in enumerate(names, start=2):
        recording = source.recordings[name]
        assert (recording.states == PROCEDURE.states[c - 1]).all()
        boxed = recording.classes == c
        assert boxed.sum() >= 4  # nothing hides the product, which may reach out of the picture
        np.testing.assert_array_equal(boxed, ~np.isnan(recording.boxes[:, 0]))
        assert (recording.visible > 0.99).all()
        seen = np.zeros(3)
        for frame in np.flatnonzero(boxed):
            image = source.frames(name, [frame])[0].astype(int)
            cx, cy, w, h = recording.boxes[frame] * 48
            rows = slice(round(cy - h / 2), round(cy + h / 2))
            inside = image[rows, round(cx - w / 2) : round(cx + w / 2)].reshape(-1, 3)
            others = np.sort(inside, axis=1)[:, 1]
            strongest = inside[inside.max(1) - others > 60].argmax(1)
            seen += np.bincount(strongest, minlength=3)
        # Components are red, green and blue, in this order.
        np.testing.assert_array_equal(seen > 40, PROCEDURE.states[c - 1] == 1)


def test_poses_lead_to_the_parts(shown):
    """The green part is on the left of the product, the blue one on the right, in every view."""
    source, _ = shown
    for frame, pose in enumerate(source.recordings["cad_04"].poses):
        image = source.frames("cad_04", [frame])[0].astype(int)
        strong = 2 * image - (image.sum(axis=-1, keepdims=True) - image) > 120
        middle, x_axis, _ = pose.reshape(3, 2) * 48
        places = [np.argwhere(strong[..., c])[:, ::-1].mean(0) - middle for c in (1, 2)]
        left, right = (place @ x_axis / (x_axis @ x_axis) for place in places)
        assert -1 < left < -0.2
        assert 0.1 < right < 1


def test_wrong_parts_are_told_and_differ_from_the_same_picture_with_right_ones(shown):
    wrong, right = shown
    differ = []
    for c in (2, 3, 4):
        name = f"wrong_{c:02d}"
        recording = wrong.recordings[name]
        assert (np.abs(recording.states) == PROCEDURE.states[c - 1]).all()
        assert (recording.states == -1).any(1).all()
        boxed = recording.classes > 0
        assert boxed.sum() >= 3
        assert (recording.classes[boxed] == PROCEDURE.error_class).all()
        images, others = (source.frames(name, range(6)).astype(int) for source in shown)
        differ += (np.abs(images - others).max(-1) > 40).sum((1, 2)).tolist()
        pairs = itertools.combinations(images, 2)
        assert min(np.abs(a - b).mean() for a, b in pairs) > 3
        same = f"cad_{c:02d}"
        assert wrong.jpegs(same, range(6)) == right.jpegs(same, range(6))
    assert min(differ) > 15
    assert np.median(differ) > 50


def test_views_differ_and_hands_hide(meshes, tmp_path, monkeypatch):
    monkeypatch.setattr(cad, "OCCLUDED", 1.0)
    _make(tmp_path / "out", meshes=meshes, per_state=10, recordings="cad_04")
    _make(tmp_path / "out", meshes=meshes, per_state=10)  # the others of the folder
    source = ClipSource(tmp_path / "out", "cad", PROCEDURE)
    assert (source.recordings["cad_04"].visible < 0.9).mean() > 0.4
    images = source.frames("cad_04", range(10)).astype(int)
    assert min(np.abs(a - b).mean() for a, b in itertools.combinations(images, 2)) > 5
    _make(tmp_path / "again", meshes=meshes, per_state=10)
    assert digests(tmp_path / "out") == digests(tmp_path / "again")
