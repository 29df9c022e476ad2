"""`data_prep.cad`: renders of states, from meshes as a user has them."""

import functools
import itertools
import json

import numpy as np
import pytest
import simplejpeg
import trimesh

from data_prep import cad
from data_prep.rendering.scene import Body
from data_prep.worlds import rendered
from stormpsr_jax.data.clips import ClipSource
from tests.support import cad_files
from tests.support.boxes import box
from tests.support.cad_files import PARTS, PROCEDURE
from tests.support.commands import refused
from tests.support.digests import digests

pytestmark = pytest.mark.usefixtures("read_here")
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
        of_state = lambda product, state, _: product.mesh(np.abs(state))  # noqa: E731
        patch.setattr(rendered, "wrong_mesh", of_state)
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
    """Cameras, lights and tables stay as they are where all parts sit right instead."""
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


def test_turn_is_of_pictures_of_wrong_parts_alone(meshes, tmp_path):
    for name, options in (("any", {}), ("front", {"turn": 20.0})):
        _make(tmp_path / name, meshes=meshes, wrong=2, per_state=2, size=16, **options)
    a, b = (ClipSource(tmp_path / name, "cad", PROCEDURE) for name in ("any", "front"))
    for name in a.recordings:
        same = (a.frames(name, [0, 1]) == b.frames(name, [0, 1])).all()
        assert same == name.startswith("cad_")


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


def test_plan_is_turned_from_the_front_and_stays_in_its_ranges():
    def views(turn):
        return cad.plan(4000, 1.5, np.random.default_rng(0), turn)

    assert views(30).product[:, 2].std() == pytest.approx(np.radians(30), rel=0.05)
    assert not views(0.0).product[:, 2].any()
    assert np.ptp(views(None).product[:, 2]) > 6.2
    front = views(30).product_pose(0)[:3, :3] @ (0, -1, 0)
    turn = views(30).product[0, 2]
    assert front == pytest.approx((np.sin(turn), -np.cos(turn), 0))
    assert (views(30).camera[:, 1] < 0).all()  # the product's front is at −y
    offset = views(None).camera - [0, 0, 0.75]
    distance = np.linalg.norm(offset, axis=1)
    for drawn, (low, high) in (
        (np.degrees(np.arcsin(offset[:, 2] / distance)), cad.ELEVATION),
        (cad.RADIUS / (distance * cad.HALF_VIEW), cad.FILL),
    ):
        assert low <= drawn.min() < low + 0.05 * (high - low)
        assert high - 0.05 * (high - low) < drawn.max() <= high
    assert views(None).hand_pose(0, 0)[2, 3] > 1.5  # hands are over the product, not in it


# --- The product ----------------------------------------------------------------------------------


def _bounds(product, state):
    vertices = product.mesh(state).vertices
    return np.stack([vertices.min(0), vertices.max(0)])


def test_a_product_is_scaled_and_on_the_table_whichever_axis_points_up(meshes):
    product = cad_files.product(meshes)
    low, high = _bounds(product, (1, 1, 1))
    np.testing.assert_allclose(np.linalg.norm(high - low), 4.0)
    np.testing.assert_allclose([low[2], *(low + high)[:2]], 0, atol=1e-12)
    np.testing.assert_allclose((high - low) / (high - low)[0], np.array([40, 30, 15]) / 40)
    low_wheel, high_wheel = _bounds(product, (0, 1, 0))
    np.testing.assert_allclose((high_wheel - low_wheel) / (high - low), [1 / 4, 1, 2 / 3])
    np.testing.assert_allclose(low_wheel[0], low[0])
    low, high = _bounds(cad_files.product(meshes, y_up=True), (1, 1, 1))
    np.testing.assert_allclose((high - low) / (high - low)[0], np.array([40, 15, 30]) / 40)


def test_poses_move_parts(meshes):
    before = _bounds(cad_files.product(meshes), (1, 1, 1))
    moved = PARTS["base.stl"].copy().apply_translation([7, 0, 0])
    moved.apply_transform(trimesh.transformations.rotation_matrix(np.pi / 2, [0, 0, 1]))
    moved.export(meshes / "base.stl")
    back = trimesh.transformations.rotation_matrix(-np.pi / 2, [0, 0, 1])
    back[:3, 3] = [-7, 0, 0]
    half = np.sqrt(0.5)
    quaternion = {"translation": [-7, 0, 0], "quaternion": [half, 0, 0, -half]}
    for pose in (back.tolist(), quaternion):
        (meshes / "poses.json").write_text(json.dumps({"base": pose}))
        bounds = _bounds(cad_files.product(meshes), (1, 1, 1))
        np.testing.assert_allclose(bounds, before, atol=1e-6)


def test_colours_are_those_of_poses_file_then_mesh_then_drawn(meshes):
    mesh = PARTS["2.glb"].copy()
    mesh.visual.face_colors = [0, 0, 255, 255]
    mesh.export(meshes / "2.glb")
    (meshes / "poses.json").write_text(json.dumps({"colors": {"base": "#ff0000"}}))
    base, wheel, lid = cad_files.product(meshes).parts
    np.testing.assert_allclose(base.mesh.colours, [[1, 0, 0]] * 12)
    np.testing.assert_allclose(wheel.mesh.colours, [[0.25] * 3] * 12)  # 0.5², rendering is linear
    np.testing.assert_allclose(lid.mesh.colours, [[0, 0, 1]] * 12, atol=1e-6)


def test_triangles_look_outwards_also_of_inverted_and_mirrored_meshes(meshes):
    mesh = PARTS["base.stl"].copy()
    mesh.invert()
    mesh.export(meshes / "base.stl")
    (meshes / "poses.json").write_text(json.dumps({"lid": np.diag([1, -1, 1, 1]).tolist()}))
    for part in cad_files.product(meshes).parts:
        centres = part.mesh.vertices[part.mesh.faces].mean(1)
        assert (np.einsum("ij,ij->i", Body(part.mesh).normals, centres) > 0).all()


# --- The command ----------------------------------------------------------------------------------


def _arguments(meshes, folder, out="out"):
    (folder / "toy.json").write_text(json.dumps(cad_files.CONTENT))
    basic = [f"--meshes={meshes}", f"--procedure={folder / 'toy.json'}", f"--out={folder / out}"]
    return [*basic, "--size=16", "--per_state=1", "--workers=1"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--size=4"], "--size: 4 is not in"),
        (["--per_state=0"], "--per_state: 0 is less than 1"),
        (["--wrong=-1"], "--wrong: -1 is less than 0"),
        (["--wrong=1", "--turn=181"], "--turn=181.0 is not in 0…180"),
        (["--turn=30"], "--turn=30.0 is for pictures of wrong parts"),
        (["--procedure=nothing"], "'nothing' is neither a file nor a packaged procedure"),
        (["--meshes=nothing"], "--meshes=nothing: no such folder"),
    ],
)
def test_a_wrong_flag_is_one_line(meshes, tmp_path, arguments, expected, capsys):
    assert expected in refused(capsys, cad.main, [*_arguments(meshes, tmp_path), *arguments])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", cad_files.WRONG)
def test_a_wrong_file_is_one_line(meshes, tmp_path, name, capsys):
    corrupt, expected = cad_files.WRONG[name]
    corrupt(meshes)
    assert expected in refused(capsys, cad.main, _arguments(meshes, tmp_path))
    assert not (tmp_path / "out").exists()


def test_another_mesh_needs_another_folder(meshes, tmp_path, capsys):
    arguments = _arguments(meshes, tmp_path)
    assert cad.main(arguments) == 0
    assert cad.main(arguments) == 0
    source = ClipSource(tmp_path / "out", "cad", PROCEDURE)
    assert simplejpeg.decode_jpeg_header(source.jpegs("cad_02", [0])[0])[:2] == (16, 16)
    assert "made with other arguments" in refused(capsys, cad.main, [*arguments, "--wrong=1"])
    box((0, 0, 0), (40, 30, 6)).export(meshes / "base.stl")
    assert "made with other arguments" in refused(capsys, cad.main, arguments)
