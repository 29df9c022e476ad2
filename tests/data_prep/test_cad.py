import functools
import itertools
import json
import signal
import struct
import subprocess
from types import SimpleNamespace

import numpy as np
import pytest
import simplejpeg
import trimesh

from data_prep import cad
from data_prep.products import mesh_files
from data_prep.products import meshes as cad_meshes
from data_prep.rendering.scene import Body
from data_prep.worlds import rendered
from stormpsr_jax.data.clips import ClipSource
from stormpsr_jax.psr.procedure import Procedure
from tests.support import glb, toy
from tests.support.commands import refused
from tests.support.digests import digests

CONTENT = toy.content("base, front wheel, lid", "000 100 110 111")
PROCEDURE = Procedure.from_json(CONTENT)
COLOURS = {"base": "#ff0000", "front wheel": "#00ff00", "lid": [0, 0, 1]}


def _box(*bounds):
    return trimesh.creation.box(bounds=np.reshape(bounds, (2, 3)))


PARTS = {
    "base.stl": _box(0, 0, 0, 40, 30, 5),
    "Front_wheel.obj": _box(0, 0, 5, 10, 30, 15),
    "2.glb": _box(20, 0, 5, 40, 30, 15),
}


@pytest.fixture
def meshes(tmp_path):
    folder = tmp_path / "meshes"
    folder.mkdir()
    for name, mesh in PARTS.items():
        mesh.export(folder / name)
    (folder / "poses.json").write_text(json.dumps({"colors": COLOURS}))
    return folder


@pytest.fixture
def procedure_file(tmp_path):
    path = tmp_path / "toy.json"
    path.write_text(json.dumps(CONTENT))
    return path


_make = functools.partial(cad.make_dataset, procedure=PROCEDURE, size=32, per_state=6)


def _product(meshes, y_up=False):
    inputs = cad_meshes.read_inputs(meshes, PROCEDURE)
    return cad_meshes.load_product(
        inputs, PROCEDURE, radius=2.0, y_up=y_up, drawn=[np.full(3, 0.5)] * 3
    )


def _bounds(product, state):
    vertices = product.mesh(state).vertices
    return np.stack([vertices.min(0), vertices.max(0)])


@pytest.mark.usefixtures("system")  # workers
def test_make_dataset_same_seed_same_bytes_for_any_workers(meshes, tmp_path):
    _make(tmp_path / "two", meshes=meshes, recordings="cad_03")  # another machine's share
    for name, seed, workers in (("one", 0, 1), ("two", 0, 2), ("other", 1, 1)):
        _make(tmp_path / name, meshes=meshes, seed=seed, workers=workers)
    one, two, other = (digests(tmp_path / name) for name in ("one", "two", "other"))
    assert one == two
    shards = [path for path in one if path.startswith("clips-")]
    assert len(shards) == 3  # state 1 shows nothing
    assert all(one[path] != other[path] for path in shards)


def test_make_dataset_pictures_show_the_components_of_their_state(meshes, tmp_path, monkeypatch):
    monkeypatch.setattr(cad, "OCCLUDED", 0.0)
    _make(tmp_path / "out", meshes=meshes, per_state=8)
    source = ClipSource(tmp_path / "out", "cad", PROCEDURE)
    assert list(source.recordings) == ["cad_02", "cad_03", "cad_04"]
    assert source.image_size == (32, 32)
    for c, recording in enumerate(source.recordings.values(), start=2):
        assert (recording.states == PROCEDURE.states[c - 1]).all()
        boxed = recording.classes == c
        assert boxed.sum() >= 6  # nothing hides the product, which may reach out of the picture
        np.testing.assert_array_equal(boxed, ~np.isnan(recording.boxes[:, 0]))
        assert (recording.visible > 0.99).all()
        seen = np.zeros(3)
        for frame in np.flatnonzero(boxed):
            image = source.frames(recording.name, [frame])[0].astype(int)
            cx, cy, w, h = recording.boxes[frame] * 32
            rows = slice(round(cy - h / 2), round(cy + h / 2))
            inside = image[rows, round(cx - w / 2) : round(cx + w / 2)].reshape(-1, 3)
            others = np.sort(inside, axis=1)[:, 1]
            strongest = inside[inside.max(1) - others > 60].argmax(1)
            seen += np.bincount(strongest, minlength=3)
        # Components are red, green and blue, in this order.
        np.testing.assert_array_equal(seen > 20, PROCEDURE.states[c - 1] == 1)


@pytest.mark.usefixtures("system")  # workers
def test_make_dataset_wrong_parts_are_told_and_seen(meshes, tmp_path):
    """Same bytes for any workers; the right renders are those of a folder without wrong ones."""
    make = functools.partial(_make, meshes=meshes, per_state=4)
    make(tmp_path / "without")
    make(tmp_path / "one", wrong=5)
    make(tmp_path / "two", wrong=5, recordings="wrong_03")  # another machine's share
    make(tmp_path / "two", wrong=5, workers=2)
    assert digests(tmp_path / "one") == digests(tmp_path / "two")
    before, source = (ClipSource(tmp_path / n, "cad", PROCEDURE) for n in ("without", "one"))
    wrong = [f"wrong_{c:02d}" for c in (2, 3, 4)]
    assert list(source.recordings) == [*before.recordings, *wrong]
    for name in before.recordings:
        assert source.jpegs(name, range(4)) == before.jpegs(name, range(4))
    for c, name in enumerate(wrong, start=2):
        recording = source.recordings[name]
        assert recording.num_frames == 5
        assert (np.abs(recording.states) == PROCEDURE.states[c - 1]).all()
        assert (recording.states == -1).any(1).all()
        boxed = recording.classes > 0
        assert boxed.sum() >= 3
        assert (recording.classes[boxed] == PROCEDURE.error_class).all()
        np.testing.assert_array_equal(boxed, ~np.isnan(recording.boxes[:, 0]))
        images = source.frames(name, range(5)).astype(int)
        others = itertools.combinations(images, 2)
        assert min(np.abs(a - b).mean() for a, b in others) > 3


def test_make_dataset_wrong_parts_differ_from_the_same_picture_with_right_ones(
    meshes, tmp_path, monkeypatch
):
    """Cameras, lights, tables and hands stay as they are where all parts sit right instead."""
    _make(tmp_path / "wrong", meshes=meshes, wrong=8, size=48)
    monkeypatch.setattr(
        rendered, "wrong_mesh", lambda product, state, _: product.mesh(np.abs(state))
    )
    _make(tmp_path / "right", meshes=meshes, wrong=8, size=48)
    wrong, right = (ClipSource(tmp_path / n, "cad", PROCEDURE) for n in ("wrong", "right"))
    pairs = [
        (wrong.frames(name, [i])[0].astype(int), right.frames(name, [i])[0].astype(int), recording)
        for name, recording in wrong.recordings.items()
        for i in range(recording.num_frames)
    ]
    assert len(pairs) == 3 * (6 + 8)
    differ = []
    for a, b, recording in pairs:
        pixels = (np.abs(a - b).max(-1) > 40).sum()
        if recording.name.startswith("cad_"):
            assert pixels == 0
        else:
            differ.append(pixels)
    assert np.mean(np.array(differ) > 15) > 0.8  # hands hide some parts wholly
    assert np.median(differ) > 50


def test_plan_turned_from_the_front_by_as_much_as_told():
    def turns(turn):
        views = cad.plan(4000, 1.0, np.random.default_rng(0), turn)
        front = views.product_pose(0)[:3, :3] @ (0, -1, 0)
        assert front == pytest.approx(
            (np.sin(views.product[0, 2]), -np.cos(views.product[0, 2]), 0)
        )
        assert (views.camera[:, 1] < 0).all()  # the product's front is at −y
        return views.product[:, 2]

    assert turns(30).std() == pytest.approx(np.radians(30), rel=0.05)
    assert not turns(0.0).any()
    assert np.ptp(turns(None)) > 6.2
    assert np.abs(turns(None)).mean() == pytest.approx(np.pi / 2, rel=0.05)


def test_make_dataset_turn_is_of_pictures_of_wrong_parts_alone(meshes, tmp_path):
    for name, options in (("any", {}), ("front", {"turn": 20.0})):
        _make(tmp_path / name, meshes=meshes, wrong=2, size=16, **options)
    a, b = (ClipSource(tmp_path / name, "cad", PROCEDURE) for name in ("any", "front"))
    assert list(a.recordings) == list(b.recordings)
    for name in a.recordings:
        same = (a.frames(name, [0, 1]) == b.frames(name, [0, 1])).all()
        assert same == name.startswith("cad_")


def test_make_dataset_views_differ_and_hands_hide(meshes, tmp_path, monkeypatch):
    monkeypatch.setattr(cad, "OCCLUDED", 1.0)
    _make(tmp_path / "out", meshes=meshes, per_state=10)
    source = ClipSource(tmp_path / "out", "cad", PROCEDURE)
    recording = source.recordings["cad_04"]
    assert (recording.visible < 0.9).mean() > 0.4
    assert (recording.visible < 1).mean() > 0.7
    images = source.frames("cad_04", range(10)).astype(int)
    differences = [np.abs(a - b).mean() for a, b in itertools.combinations(images, 2)]
    assert min(differences) > 5


@pytest.mark.parametrize("wrong", [0, 4])
def test_make_dataset_poses_lead_to_the_parts(meshes, tmp_path, wrong, monkeypatch):
    """The green part is on the left of the product, the blue one on the right, in every view."""
    monkeypatch.setattr(cad, "OCCLUDED", 0.0)
    _make(tmp_path / "out", meshes=meshes, wrong=wrong, size=48)
    source = ClipSource(tmp_path / "out", "cad", PROCEDURE)
    recording = source.recordings["cad_04"]
    assert recording.poses.shape == (6, 6)
    for frame, pose in enumerate(recording.poses):
        image = source.frames("cad_04", [frame])[0].astype(int)
        others = image.sum(axis=-1, keepdims=True) - image
        strong = 2 * image - others > 120
        middle, x_axis, _ = pose.reshape(3, 2) * 48
        places = [np.argwhere(strong[..., c])[:, ::-1].mean(0) - middle for c in (1, 2)]
        left, right = (place @ x_axis / (x_axis @ x_axis) for place in places)
        assert -1 < left < -0.2
        assert 0.1 < right < 1


def test_plan_stays_in_its_ranges():
    height = 1.5
    views = cad.plan(500, height, np.random.default_rng(0))
    offset = views.camera - [0, 0, height / 2]
    distance = np.linalg.norm(offset, axis=1)
    for drawn, (low, high) in (
        (np.degrees(np.arcsin(offset[:, 2] / distance)), cad.ELEVATION),
        (cad.RADIUS / (distance * cad.HALF_VIEW), cad.FILL),
    ):
        assert low <= drawn.min() < low + 0.05 * (high - low)
        assert high - 0.05 * (high - low) < drawn.max() <= high
    assert views.hand_pose(0, 0)[2, 3] > height  # hands are over the product, not in it


def test_load_product_is_scaled_and_on_the_table(meshes):
    product = _product(meshes)
    low, high = _bounds(product, (1, 1, 1))
    np.testing.assert_allclose(np.linalg.norm(high - low), 4.0)
    np.testing.assert_allclose(low[2], 0, atol=1e-12)
    np.testing.assert_allclose((low + high)[:2], 0, atol=1e-12)
    np.testing.assert_allclose((high - low) / (high - low)[0], np.array([40, 30, 15]) / 40)
    low_wheel, high_wheel = _bounds(product, (0, 1, 0))
    np.testing.assert_allclose((high_wheel - low_wheel) / (high - low), [1 / 4, 1, 2 / 3])
    np.testing.assert_allclose(low_wheel[0], low[0])
    assert [p.height for p in product.parts] == pytest.approx(
        [np.ptp(_bounds(product, s)[:, 2]) for s in np.eye(3)]
    )


def test_load_product_y_up_turns_the_product(meshes):
    low, high = _bounds(_product(meshes, y_up=True), (1, 1, 1))
    np.testing.assert_allclose((high - low) / (high - low)[0], np.array([40, 15, 30]) / 40)


def test_load_product_poses_move_parts(meshes):
    before = _bounds(_product(meshes), (1, 1, 1))
    moved = PARTS["base.stl"].copy().apply_translation([7, 0, 0])
    moved.apply_transform(trimesh.transformations.rotation_matrix(np.pi / 2, [0, 0, 1]))
    moved.export(meshes / "base.stl")
    back = trimesh.transformations.rotation_matrix(-np.pi / 2, [0, 0, 1])
    back[:3, 3] = [-7, 0, 0]
    half = np.sqrt(0.5)
    quaternion = {"translation": [-7, 0, 0], "quaternion": [half, 0, 0, -half]}
    for pose in (back.tolist(), quaternion):
        (meshes / "poses.json").write_text(json.dumps({"base": pose}))
        np.testing.assert_allclose(_bounds(_product(meshes), (1, 1, 1)), before, atol=1e-6)


def test_load_product_colours_of_poses_file_then_mesh_then_drawn(meshes):
    mesh = PARTS["2.glb"].copy()
    mesh.visual.face_colors = [0, 0, 255, 255]
    mesh.export(meshes / "2.glb")
    (meshes / "poses.json").write_text(json.dumps({"colors": {"base": "#ff0000"}}))
    base, wheel, lid = _product(meshes).parts
    np.testing.assert_allclose(base.mesh.colours, [[1, 0, 0]] * 12)
    np.testing.assert_allclose(wheel.mesh.colours, [[0.25] * 3] * 12)  # 0.5², rendering is linear
    np.testing.assert_allclose(lid.mesh.colours, [[0, 0, 1]] * 12, atol=1e-6)


def test_load_product_triangles_look_outwards(meshes):
    mesh = PARTS["base.stl"].copy()
    mesh.invert()
    mesh.export(meshes / "base.stl")
    (meshes / "poses.json").write_text(json.dumps({"lid": np.diag([1, -1, 1, 1]).tolist()}))
    for part in _product(meshes).parts:
        centres = part.mesh.vertices[part.mesh.faces].mean(1)
        assert (np.einsum("ij,ij->i", Body(part.mesh).normals, centres) > 0).all()


def test_load_product_nodes_of_a_glb_keep_their_places(meshes):
    scene = trimesh.Scene()
    half = _box(0, 0, 0, 10, 30, 10)
    scene.add_geometry(half, transform=trimesh.transformations.translation_matrix([20, 0, 5]))
    scene.add_geometry(half, transform=trimesh.transformations.translation_matrix([30, 0, 5]))
    before = _bounds(_product(meshes), (0, 0, 1))
    scene.export(meshes / "2.glb")
    np.testing.assert_allclose(_bounds(_product(meshes), (0, 0, 1)), before, atol=1e-6)


@pytest.mark.parametrize("corner", ["{0}", "{0}//-1", "{0}/-1/-1", "{1}"])
def test_numbers_below_zero_of_an_obj_count_back_from_their_face(meshes, corner):
    """Two boxes, each with its vertices before its faces."""
    low, high = PARTS["Front_wheel.obj"].bounds
    middle = (low + high) / 2
    lines = []
    for number, bounds in enumerate(((low, (middle[0], *high[1:])), ((middle[0], *low[1:]), high))):
        half = _box(*bounds)
        lines += [f"v {x} {y} {z}" for x, y, z in half.vertices] + ["vt 0 0", "vn 0 0 1"]
        for face in half.faces:
            lines.append("f " + " ".join(corner.format(k - 8, 8 * number + k + 1) for k in face))
    (meshes / "Front_wheel.obj").write_text("\r\n".join(lines))
    (piece,) = mesh_files.read(meshes / "Front_wheel.obj")
    assert len(piece.faces) == 24
    shown = trimesh.Trimesh(piece.vertices, piece.faces)
    np.testing.assert_allclose(shown.bounds, (low, high))
    np.testing.assert_allclose(shown.volume, np.prod(high - low))


def _write_glb(path, content):
    text = json.dumps(content).encode()
    text += b" " * (-len(text) % 4)
    header = struct.pack("<4sII", b"glTF", 2, 20 + len(text)) + struct.pack(
        "<I4s", len(text), b"JSON"
    )
    path.write_bytes(header + text)


def _flat(path):
    trimesh.Trimesh([[0, 0, 0], [1, 0, 0], [2, 0, 0]], [[0, 1, 2]], process=False).export(path)


def _needs(meshes, extension, **of_position):
    """Says of the lid's GLB that it needs an extension, and this of its accessor of places."""

    def change(content):
        content["extensionsUsed"] = content["extensionsRequired"] = [extension]
        number = content["meshes"][0]["primitives"][0]["attributes"]["POSITION"]
        content["accessors"][number] |= of_position

    glb.change((meshes / "2.glb").read_bytes(), change, meshes / "2.glb")


def test_vertex_colours_of_a_glb_count_times_its_materials(meshes):
    """As programs export them, which give each mesh a material."""
    shown = [(255, 51, 0, 255)] * 8
    for material, expected in (
        ({"name": "none"}, (1, 0.2, 0)),
        ({"pbrMetallicRoughness": {"baseColorFactor": [0.2, 1, 1, 1]}}, (0.2, 0.2, 0)),
    ):
        lid = PARTS["2.glb"].copy()
        lid.visual.vertex_colors = shown

        def change(content, material=material):
            content["materials"] = [material]
            content["meshes"][0]["primitives"][0]["material"] = 0

        glb.change(trimesh.Scene(lid).export(file_type="glb"), change, meshes / "2.glb")
        (piece,) = mesh_files.read(meshes / "2.glb")
        np.testing.assert_allclose(piece.colours, 12 * [expected])


def test_a_glb_with_whole_numbers_for_places_is_read(meshes):
    before = mesh_files.read(meshes / "2.glb")[0].vertices
    _needs(meshes, "KHR_mesh_quantization")
    np.testing.assert_array_equal(mesh_files.read(meshes / "2.glb")[0].vertices, before)


def _as_text(name):
    return trimesh.exchange.stl.export_stl_ascii(PARTS[name])


def test_a_text_of_several_solids_is_read(meshes):
    (meshes / "base.stl").write_text(_as_text("base.stl") + _as_text("Front_wheel.obj"))
    assert [len(piece.faces) for piece in mesh_files.read(meshes / "base.stl")] == [12, 12]


def _with_a_hole(path):
    """Writes a box of which one corner of one triangle is nowhere."""
    corners = _box(0, 0, 0, 40, 30, 5).triangles.reshape(-1, 3).copy()
    corners[0] = np.nan
    trimesh.Trimesh(corners, np.arange(36).reshape(-1, 3), process=False).export(path)


WRONG = {
    "missing": (lambda m: (m / "base.stl").unlink(), "no mesh for base"),
    "unknown": (lambda m: (m / "roof.stl").touch(), "roof.stl: belongs to no component"),
    "index": (lambda m: (m / "3.stl").touch(), "3.stl: belongs to no component"),
    "twice": (lambda m: (m / "lid.stl").touch(), "lid.stl: 2.glb is a mesh of component 'lid'"),
    "format": (lambda m: (m / "lid.dae").touch(), "lid.dae: .dae is not read; export"),
    "empty": (lambda m: (m / "base.stl").write_bytes(b""), "base.stl: "),
    "garbage": (lambda m: (m / "base.stl").write_bytes(b"\0" * 300), "base.stl: "),
    "no glb": (lambda m: (m / "2.glb").write_bytes(b"glTF no"), "2.glb: not a readable GLB"),
    "cut glb": (
        lambda m: (m / "2.glb").write_bytes((m / "2.glb").read_bytes()[:-100]),
        "2.glb: not a readable GLB",
    ),
    "no faces": (
        lambda m: (m / "Front_wheel.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\n"),
        "Front_wheel.obj: ",
    ),
    "bad index": (
        lambda m: (m / "Front_wheel.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 9\n"),
        "Front_wheel.obj: ",
    ),
    "index before the first": (
        lambda m: (m / "Front_wheel.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\nf -1 -2 -4\n"),
        "Front_wheel.obj: not a readable OBJ mesh (",
    ),
    "index before the first, and vertices below": (
        lambda m: (m / "Front_wheel.obj").write_text("v 0 0 0\nv 1 0 0\nf -1 -2 -3\nv 0 1 0\n"),
        "Front_wheel.obj: not a readable OBJ mesh (ValueError: a face of a vertex",
    ),
    "not finite": (
        lambda m: (m / "Front_wheel.obj").write_text("v nan 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n"),
        "Front_wheel.obj: ",
    ),
    "a part of it nowhere": (
        lambda m: _with_a_hole(m / "base.stl"),
        "base.stl: not a readable STL mesh (ValueError: a face of a vertex whose place is no",
    ),
    "cut off": (
        lambda m: (m / "base.stl").write_text((2 * _as_text("base.stl"))[:-500]),
        "base.stl: not a readable STL mesh (ValueError: ends within a solid",
    ),
    "draco": (
        lambda m: _needs(m, "KHR_draco_mesh_compression"),
        "2.glb: needs KHR_draco_mesh_compression, which is not read; export it without",
    ),
    "shares": (
        lambda m: _needs(m, "KHR_mesh_quantization", normalized=True),
        "2.glb: needs KHR_mesh_quantization, which is not read",
    ),
    "degenerate": (lambda m: _flat(m / "base.stl"), "base.stl: all its 1 triangles are degenerate"),
    "poses json": (lambda m: (m / "poses.json").write_text("{"), "poses.json: line 1: not JSON"),
    "poses list": (lambda m: (m / "poses.json").write_text("[]"), "poses.json: is not an object"),
    "poses name": (
        lambda m: (m / "poses.json").write_text('{"roof": 1}'),
        "poses.json: 'roof' is not a component",
    ),
    "pose": (lambda m: (m / "poses.json").write_text('{"lid": [1]}'), "json: lid: is not a 4 × 4"),
    "flat pose": (
        lambda m: (m / "poses.json").write_text(
            json.dumps({"lid": np.diag([1, 1, 0, 1]).tolist()})
        ),
        "json: lid: the matrix makes the part flat",
    ),
    "quaternion": (
        lambda m: (m / "poses.json").write_text('{"lid": {"quaternion": [0, 0, 0, 0]}}'),
        "json: lid: give",
    ),
    "colour": (
        lambda m: (m / "poses.json").write_text('{"colors": {"lid": "red"}}'),
        "json: colors: lid: is neither",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_main_wrong_input_is_one_line_and_exit_code_2(
    meshes, procedure_file, tmp_path, name, capsys
):
    corrupt, expected = WRONG[name]
    corrupt(meshes)
    _expect_error(meshes, procedure_file, tmp_path, [], expected, capsys)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--size=4"], "--size: 4 is not in"),
        (["--per_state=0"], "--per_state: 0 is less than 1"),
        (["--wrong=-1"], "--wrong: -1 is less than 0"),
        (["--wrong=1", "--turn=181"], "--turn=181.0 is not in 0…180"),
        (["--wrong=1", "--turn=nan"], "--turn=nan is not in"),
        (["--turn=30"], "--turn=30.0 is for pictures of wrong parts"),
        (["--procedure=nothing"], "'nothing' is neither a file nor a packaged procedure"),
        (["--meshes=nothing"], "--meshes=nothing: no such folder"),
    ],
)
def test_main_wrong_flag_is_one_line_and_exit_code_2(
    meshes, procedure_file, tmp_path, arguments, expected, capsys
):
    _expect_error(meshes, procedure_file, tmp_path, arguments, expected, capsys)


def _expect_error(meshes, procedure_file, tmp_path, arguments, expected, capsys):
    basic = [f"--meshes={meshes}", f"--procedure={procedure_file}", f"--out={tmp_path / 'out'}"]
    err = refused(
        capsys, cad.main, [*basic, "--size=16", "--per_state=1", "--workers=1", *arguments]
    )
    assert expected in err
    assert not (tmp_path / "out").exists()


def test_load_product_reads_no_other_file(meshes, tmp_path, monkeypatch):
    """Neither a material library, nor a buffer, nor an image of a GLB."""
    (tmp_path / "secret.mtl").write_text("newmtl m\nKd 1 0 0\n")
    text = (meshes / "Front_wheel.obj").read_text()
    (meshes / "Front_wheel.obj").write_text(f"mtllib {tmp_path}/secret.mtl\nusemtl m\n{text}")
    opened = []
    plain_open = open

    def spy(file, *args, **options):
        opened.append(str(file))
        return plain_open(file, *args, **options)

    monkeypatch.setattr("builtins.open", spy)
    (meshes / "poses.json").unlink()
    (wheel,) = mesh_files.read(meshes / "Front_wheel.obj")
    assert np.isnan(wheel.colours).all()
    assert not any("secret" in name for name in opened)
    for key in ("buffers", "images"):
        _write_glb(meshes / "2.glb", {key: [{"uri": "../secret.bin", "byteLength": 8}]})
        with pytest.raises(ValueError, match=r"2\.glb: refers to another file"):
            _product(meshes)


def _instances(path, count):
    """A GLB that shows the same 100 triangles so many times."""
    mesh = trimesh.creation.icosphere(subdivisions=1)

    def repeat(content):
        content["nodes"] = [{"children": list(range(1, count + 1))}, *[{"mesh": 0}] * count]
        content["scenes"], content["scene"] = [{"nodes": [0]}], 0

    glb.change(trimesh.Scene(mesh).export(file_type="glb"), repeat, path)


def test_a_mesh_that_unfolds_is_not_loaded(meshes):
    _instances(meshes / "2.glb", 3)
    assert len(_product(meshes).parts[2].mesh.faces) == 3 * 80
    _instances(meshes / "2.glb", 50_000)
    assert (meshes / "2.glb").stat().st_size < 2**20
    with pytest.raises(ValueError, match=r"2\.glb: reading it takes (more memory|longer) than"):
        _product(meshes)


def test_a_library_that_gets_no_memory_is_no_damaged_file(meshes, monkeypatch):
    """NumPy may say so by an error that tells nothing."""

    def fails(*_, **__):
        raise SystemError("<ufunc 'subtract'> returned NULL without setting an exception")

    monkeypatch.setattr(trimesh, "load_scene", fails)
    with pytest.raises(MemoryError):
        mesh_files.read(meshes / "2.glb")


def test_a_crash_of_the_reader_names_the_mesh(meshes, monkeypatch):
    said = struct.pack("<Q", 3) + b"abc" + struct.pack("<Q", 9) + b"abc"
    crashed = SimpleNamespace(returncode=-signal.SIGXCPU, stdout=said, stderr=b"")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: crashed)
    with pytest.raises(ValueError, match=r"Front_wheel\.obj: reading it takes longer than a file"):
        _product(meshes)


def test_an_answer_counts_however_its_process_ends(meshes, monkeypatch):
    """Freeing what was read may take the time that was left."""
    said = b"error: base.stl: a bad mesh"
    crashed = SimpleNamespace(
        returncode=-signal.SIGXCPU, stdout=struct.pack("<Q", len(said)) + said, stderr=b""
    )
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: crashed)
    with pytest.raises(ValueError, match=r"^base\.stl: a bad mesh$"):
        mesh_files.read_all([meshes / "base.stl", meshes / "Front_wheel.obj"])


def test_load_product_refuses_huge_meshes(meshes, monkeypatch):
    monkeypatch.setattr(cad_meshes, "MAX_FACES", 20)
    with pytest.raises(ValueError, match=r"Front_wheel\.obj: .* 24 triangles, more than 20"):
        _product(meshes)
    monkeypatch.setattr(mesh_files, "MAX_FACES", 11)
    for name in ("base.stl", "Front_wheel.obj"):
        with pytest.raises(ValueError, match=f"{name}: has 12 triangles, more than 11"):
            mesh_files.read(meshes / name)
    with pytest.raises(ValueError, match=r"base\.stl: has 12 triangles"):
        mesh_files.check_file(meshes / "base.stl")
    monkeypatch.setattr(mesh_files, "MAX_BYTES", 600)
    with pytest.raises(ValueError, match="MiB, more than"):
        _product(meshes)


def test_main_another_mesh_needs_another_folder(meshes, procedure_file, tmp_path, capsys):
    arguments = [f"--meshes={meshes}", f"--procedure={procedure_file}", f"--out={tmp_path / 'out'}"]
    arguments += ["--size=16", "--per_state=2", "--workers=1"]
    assert cad.main(arguments) == 0
    assert cad.main(arguments) == 0
    source = ClipSource(tmp_path / "out", "cad", PROCEDURE)
    assert simplejpeg.decode_jpeg_header(source.jpegs("cad_02", [1])[0])[:2] == (16, 16)
    assert "made with other arguments" in refused(capsys, cad.main, [*arguments, "--wrong=1"])
    wrong = [a.replace("/out", "/wrong") for a in arguments]
    assert cad.main([*wrong, "--wrong=1", "--turn=45"]) == 0
    source = ClipSource(tmp_path / "wrong", "cad", PROCEDURE)
    assert source.recordings["wrong_04"].num_frames == 1
    _box(0, 0, 0, 40, 30, 6).export(meshes / "base.stl")
    assert "made with other arguments" in refused(capsys, cad.main, arguments)


def test_a_scan_of_ten_million_triangles_is_refused_before_it_is_read(meshes):
    """By the number in its head; the file has a hole for a body."""
    with (meshes / "base.stl").open("wb") as file:
        file.write(b" " * 80 + struct.pack("<I", 10_000_000))
        file.truncate(84 + 50 * 10_000_000)
    with pytest.raises(ValueError, match=r"base\.stl: has 10,000,000 triangles, more than 2,000"):
        _product(meshes)
