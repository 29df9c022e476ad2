"""Recordings of a user's product, whose parts are meshes, through the code of the toy's."""

import dataclasses

import numpy as np
import pytest

from data_prep import synthetic
from data_prep.products import products, wrong_poses
from data_prep.worlds import rendered
from stormpsr_jax.configs import cad
from stormpsr_jax.data.clips import ClipSource, list_splits
from stormpsr_jax.recordings.procedure import Procedure, load_procedure
from tests.support import lantern

LANTERN = Procedure.from_json(lantern.CONTENT)
FEW = ("--size=16", "--fps=1", "--workers=1", "--train=2", "--val=1", "--test=1")
RENDERS = ("--cad_per_state=1", "--cad_wrong=2", "--error_recordings=1")


@pytest.fixture
def files(tmp_path):
    return lantern.write(tmp_path / "given")


def _flags(files, out, *more):
    meshes, procedure = files
    return [f"--meshes={meshes}", f"--procedure={procedure}", f"--out={out}", *FEW, *more]


def test_meshes_and_a_procedure_become_recordings_with_labels_and_boxes(files, tmp_path):
    out = tmp_path / "data"
    assert synthetic.main(_flags(files, out, *RENDERS)) == 0
    assert list_splits(out) == ["cad", "test", "train", "val"]
    procedure = load_procedure(out / "procedure.json")
    assert procedure == dataclasses.replace(LANTERN, fps=1.0)
    waits = [(a // 3, b // 3) for a, b in LANTERN.variants["assembly"].precedence]
    train = ClipSource(out, "train", procedure)
    assert list(train.recordings) == ["rehearsal_000", "train_000", "train_001"]
    boxed = {}
    for r in train.recordings.values():
        assert r.states[0].tolist() == [0] * 5
        assert np.abs(r.states[-1]).sum() >= 3
        classes = procedure.state_classes(r.states)
        shown = r.classes > 0
        np.testing.assert_array_equal(r.classes[shown], classes[shown])
        assert (r.classes[r.states.any(axis=1) == 0] < 0).all(), "nothing to be seen has no box"
        boxed[r.name] = int(shown.sum())
        built = (r.states != 0).any(axis=0)  # a part that stays incorrect holds others, too
        first = np.where(built, (r.states != 0).argmax(axis=0), 10**6)
        assert sum(first[a] <= first[b] for a, b in waits) >= len(waits) - 1  # one may be forgotten
    assert boxed["rehearsal_000"] == 0 < boxed["train_000"] + boxed["train_001"]
    cad = ClipSource(out, "cad", procedure)
    assert set(cad.recordings) == {f"cad_{c:02d}" for c in range(2, 9)} | {
        f"wrong_{c:02d}" for c in range(2, 9)
    }
    for name, r in cad.recordings.items():
        assert r.poses.shape == (r.num_frames, 6)
        if not rendered.is_wrong(name):
            assert (r.classes == int(name[-2:])).all()


def test_the_command_renders_what_config_cad_learns_from_unless_told_otherwise(files, monkeypatch):
    told = []
    monkeypatch.setattr(synthetic, "make_dataset", lambda _, **given: told.append(given))
    more = ["--world=bench", *RENDERS]
    for flags in ([], more, ["--product_seed=1"], _flags(files, "x"), _flags(files, "x", *more)):
        synthetic.main(["--out=x", *flags])
    usual = cad.get_config().data.synthetic
    names = ("cad_per_state", "cad_wrong", "error_recordings", "world")
    of_user, given = [usual[name] for name in names], [1, 2, 1, "bench"]
    values = [[of[name] for name in names] for of in told]
    assert values == [[100, 0, 0, "toy"], given, of_user, of_user, given]


def test_known_wrong_poses_are_the_only_ones_where_they_are_given(tmp_path):
    """Given in millimetres; here they are those of a lid on the plate, or standing beside."""
    poses = [{"translation": [0, 0, -32]}, {"translation": [0, -60, 0]}]
    meshes, _ = lantern.write(tmp_path, wrong={"lid": poses})
    product = products.from_meshes(meshes, LANTERN).product
    lid, rng = product.parts[4], np.random.default_rng(0)
    scale = lid.extent[0] / 60  # to the units of the scene
    drawn = [wrong_poses.with_wrong_poses(product, rng).parts for _ in range(20)]
    moved = np.array([parts[4].wrong[:3, 3] - lid.right[:3, 3] for parts in drawn]) / scale
    rows = {tuple(row) for row in np.round(moved, 6).tolist()}
    assert rows == {(0, 0, -32), (0, -60, 0)}
    assert all((parts[4].wrong[:3, :3] == np.eye(3)).all() for parts in drawn)
    boxes = np.array([parts[3].wrong for parts in drawn])
    assert len(np.unique(np.round(boxes, 9), axis=0)) == 20  # of other parts they are drawn
