"""`data_prep.synthetic`: the toy's recordings, those of a user's meshes, and warnings of these."""

import dataclasses
import functools
import json
import sys

import numpy as np
import pytest
import simplejpeg
import trimesh

from data_prep import synthetic
from data_prep.products import products, wrong_poses
from data_prep.products.products import warnings
from stormpsr_jax.configs import cad
from stormpsr_jax.data.clips import ClipSource, list_splits
from stormpsr_jax.data.folder import NOT_ANNOTATED
from stormpsr_jax.recordings.procedure import Procedure, load_procedure
from tests.support import cad_files, lantern, toy
from tests.support.boxes import box, product, shell
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
        if name.startswith("cad_"):
            assert (r.classes == int(name[-2:])).all()


def test_the_command_renders_what_config_cad_learns_from_unless_told_otherwise(files, monkeypatch):
    told = []
    monkeypatch.setattr(synthetic, "make_dataset", lambda _, **given: told.append(given))
    more = ["--world=bench", *RENDERS]
    for flags in ([], more, _flags(files, "x"), _flags(files, "x", *more)):
        synthetic.main(["--out=x", *flags])
    usual = cad.get_config().data.synthetic
    names = ("cad_per_state", "cad_wrong", "error_recordings", "world")
    of_user, given = [usual[name] for name in names], [1, 2, 1, "bench"]
    values = [[of[name] for name in names] for of in told]
    assert values == [[100, 0, 0, "toy"], given, of_user, given]


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


PROCEDURE = toy.procedure("cup, peg, lid", "100 110 111")
CUP = shell((0, 0, 0), (4, 4, 3), 1)
PEG, LID = box((1, 1, 1), (3, 3, 3)), box((0, 0, 3), (4, 4, 4))
COLOURS = ((0.5, 0, 0), (0, 0.5, 0), (0, 0, 0.5))


def told(*meshes, procedure=PROCEDURE, **options):
    return warnings(product(*meshes, colours=COLOURS, **options), procedure)


def test_nothing_is_told_of_a_sound_product():
    assert told(CUP, PEG, LID) == []


def test_parts_that_are_not_in_their_places_are_told():
    """As programs export them, each around its own middle."""
    heap = [mesh.copy().apply_translation(-mesh.bounds.mean(axis=0)) for mesh in (CUP, PEG, LID)]
    (line,) = (line for line in told(*heap) if line.startswith("most parts lie in each other (2"))
    assert line.endswith("or say where they go in poses.json")


def test_a_part_in_another_unit_is_told():
    """A lid in inches, far below where it belongs, and one in metres, which nobody would see."""
    inches = LID.copy().apply_translation([0, 0, 10]).apply_scale(1 / 25.4)
    high = [mesh.copy().apply_translation([0, 0, 10]) for mesh in (CUP, PEG)]
    (line,) = (line for line in told(*high, inches) if "lid: is by" in line)
    assert line.startswith("lid: is by itself (it would fit if its numbers are inches, and the")
    metres = LID.copy().apply_scale(1e-3)
    (line,) = (line for line in told(CUP, PEG, metres) if line.startswith("lid: is 0."))
    assert "of the product's size (it would fit if its numbers are inches or metres" in line


@pytest.mark.parametrize(("slot", "lines"), [(0.6, 1), (2.0, 0)])
def test_a_part_that_few_cameras_see_is_told(slot, lines):
    """Under a lid, behind a slot in the front wall."""
    walls = [(0, 0, 1, 4), (3, 0, 4, 4), (1, 3, 3, 4)]
    walls += [(1, 0, 2 - slot / 2, 0.5), (2 + slot / 2, 0, 3, 0.5)][: 2 * (slot < 2)]
    cup = trimesh.util.concatenate([box((a, b, 0), (c, d, 3)) for a, b, c, d in walls])
    peg, built = box((1.2, 0.6, 0), (2.8, 2.8, 2.5)), toy.procedure("cup, peg, lid", "100 111")
    found = told(cup, peg, LID, procedure=built)
    assert len([line for line in found if "hardly a camera sees it" in line]) == lines


@pytest.fixture
def uncoloured(tmp_path):
    """Meshes of a cup, a peg and a lid like it as STL."""
    (tmp_path / "meshes").mkdir()
    lid = PEG.copy().apply_translation([0, 0, 2])
    for part, mesh in (("cup", CUP), ("peg", PEG), ("lid", lid)):
        mesh.export(tmp_path / "meshes" / f"{part}.stl")
    return tmp_path / "meshes"


def test_parts_without_colours_get_some_one_mesh_the_same_and_are_told(uncoloured):
    made = products.from_meshes(uncoloured, PROCEDURE)
    assert "cup.stl, peg.stl, lid.stl: without colours" in made.warnings[0]
    cup, peg, lid = (np.unique(part.mesh.colours).tolist() for part in made.product.parts)
    assert peg == lid != cup
    colours = {"cup": "#ff0000", "peg": "#00ff00"}
    (uncoloured / "poses.json").write_text(json.dumps({"colors": colours}))
    made = products.from_meshes(uncoloured, PROCEDURE)
    assert made.product.coloured == (True, True, False)
    assert "lid.stl: without colours" in made.warnings[0]
    assert "cup.stl" not in made.warnings[0]


def test_the_command_tells_warnings_before_it_renders(uncoloured, tmp_path, caplog):
    arguments = cad_files.arguments(uncoloured, tmp_path / "out")
    (tmp_path / "toy.json").write_text(json.dumps(PROCEDURE.to_json()))
    assert synthetic.main(arguments) == 0
    colours, same, page = caplog.messages
    assert "without colours" in colours
    assert "peg and lid look the same" in same
    assert f"{tmp_path / 'out' / 'product.html'} shows the parts in the colours" in page
    assert (tmp_path / "out" / "product.html").read_text().count("data:image/jpeg") > 3
