import io
import json
import os
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import trimesh

from data_prep import synthetic
from data_prep.products import mesh_files
from data_prep.products.meshes import files_of
from data_prep.products.products import from_meshes
from data_prep.rendering.scene import Body
from tests.support import cad_files, glb, toy
from tests.support.boxes import box
from tests.support.cad_files import PARTS
from tests.support.processes import refused

BASE = toy.procedure("base", "1")
STEP = Path(cad_files.__file__).with_name("block.step")  # 1 × 2 × 3 mm, in one colour


@pytest.fixture
def meshes(tmp_path):
    return cad_files.write(tmp_path / "meshes")


def volume(piece):
    return trimesh.Trimesh(piece.mesh.vertices, piece.mesh.faces).volume


SIDES = ("v 0 0 0", "v 1 0 0", "v 0 1 0", "v 0 0 1")


def test_an_obj_has_the_colours_of_the_material_library_beside_it(meshes):
    """By object and material; with a texture there is none, and the folder does not count."""
    faces = ["o a", "usemtl red", "f 1 2 3", "usemtl brown paint", "f 1 2 4", "o b", "usemtl red"]
    faces += ["f 1 3 4", "usemtl wood", "f 2 3 4"]
    text = "\n".join(["mtllib C:\\parts\\front wheel.mtl", *SIDES, *faces])
    path = meshes / "Front_wheel.obj"
    path.write_text(text)
    library = meshes / "front wheel.mtl"
    library.write_text(
        "newmtl red\nKd 1 0 0.25\nnewmtl brown paint\nKa 1 1 1\nKd .5 .25 0\n"
        "newmtl wood\nKd 1 1 1\nmap_Kd wood.png\n"
    )
    shown = {(p.name, *p.mesh.colours[0].tolist()) for p in mesh_files.read(path)}
    assert len(shown) == 4
    assert {c for c in shown if c[1] == c[1]} == {
        ("a", 1, 0, 0.25), ("a", 0.5, 0.25, 0), ("b", 1, 0, 0.25)
    }  # fmt: skip
    before = from_meshes(meshes, cad_files.PROCEDURE).settings
    library.write_text("newmtl red\nKd 0 1 0\n")
    assert from_meshes(meshes, cad_files.PROCEDURE).settings != before
    path.write_text("\n".join(["mtllib x.mtl"] + [f"{v} .2 .4 .6" for v in SIDES] + faces))
    for piece in mesh_files.read(path):
        np.testing.assert_allclose(piece.mesh.colours, [(0.2, 0.4, 0.6)] * len(piece.mesh.faces))
    (meshes / "poses.json").unlink()
    path.write_text(text)
    library.unlink()
    for piece in mesh_files.read(path):
        assert np.isnan(piece.mesh.colours).all()
    note = f"{meshes}: Front_wheel.obj names front wheel.mtl, which is not beside it; add it"
    assert any(line.startswith(note) for line in cad_files.product(meshes).notes)


@pytest.mark.parametrize("encoding", ["ascii", "binary"])
@pytest.mark.parametrize("of", ["face_colors", "vertex_colors"])
def test_a_ply_has_the_colours_of_its_faces_or_vertices(tmp_path, encoding, of):
    mesh = PARTS["base.stl"].copy()
    setattr(mesh.visual, of, np.tile([51, 102, 0, 255], (12 if of == "face_colors" else 8, 1)))
    mesh.export(tmp_path / "base.ply", encoding=encoding)
    (piece,) = mesh_files.read(tmp_path / "base.ply")
    np.testing.assert_allclose(piece.mesh.colours, 12 * [(0.2, 0.4, 0)])
    np.testing.assert_allclose(volume(piece), mesh.volume)


# Linear ones of 1, 0.2 and 0, and of 0.2 twice, as they are displayed (IEC 61966-2-1).
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize(
    ("materials", "expected"),
    [
        ([], (1, 0.4845, 0)),
        ([{"name": "none"}], (1, 0.4845, 0)),
        ([{"pbrMetallicRoughness": {"baseColorFactor": [0.2, 1, 1, 1]}}], (0.4845, 0.4845, 0)),
    ],
)
def test_linear_vertex_colours_of_a_glb_count_times_its_materials(
    meshes, materials, expected, dtype
):
    """As programs export them, which give each mesh a material."""
    lid = PARTS["2.glb"].copy()
    whole = 1 if dtype == np.float32 else np.iinfo(dtype).max
    lid.vertex_attributes["_colours"] = np.tile([1, 0.2, 0], (8, 1)) * whole
    lid.vertex_attributes["_colours"] = lid.vertex_attributes["_colours"].astype(dtype)

    def change(content):
        content["materials"] = materials
        (primitive,) = content["meshes"][0]["primitives"]
        primitive["attributes"]["COLOR_0"] = primitive["attributes"].pop("_colours")
        primitive |= {"material": 0} if materials else {}

    glb.change(trimesh.Scene(lid).export(file_type="glb"), change, meshes / "2.glb")
    (piece,) = mesh_files.read(meshes / "2.glb")
    np.testing.assert_allclose(piece.mesh.colours, 12 * [expected], atol=1e-4)


@pytest.mark.parametrize(("unit", "to_mm"), [(".MILLI.,", 1), ("$,", 1000)])
def test_a_step_block_has_its_bounds_in_millimetres_and_its_colour(unit, to_mm, tmp_path):
    pytest.importorskip("cascadio")
    path = tmp_path / "base.STEP"
    path.write_text(STEP.read_text().replace(".MILLI.,", unit))
    assert files_of(tmp_path) == [path]
    (piece,) = mesh_files.read(path)
    bounds = [piece.mesh.vertices.min(0), piece.mesh.vertices.max(0)]
    np.testing.assert_allclose(bounds, np.array([(0, 10, 20), (1, 12, 23)]) * to_mm, rtol=1e-5)
    np.testing.assert_allclose(volume(piece), 6 * to_mm**3, rtol=1e-4)
    np.testing.assert_allclose(piece.mesh.colours, 12 * [(0.8, 0.5, 0.2)], atol=0.01)
    path.write_text(STEP.read_text()[:900])
    with pytest.raises(
        ValueError, match=r"base\.STEP: not a readable STEP mesh \(ValueError: dama"
    ):
        mesh_files.read(path)


@pytest.mark.parametrize(
    ("unit", "to_mm"), [(b"millimeter", 1), (b"inch", 25.4), (b"micron", 1e-3)]
)
def test_a_3mf_block_has_its_name_and_its_bounds_in_millimetres(unit, to_mm, tmp_path):
    pytest.importorskip("lxml")
    pytest.importorskip("networkx")
    block = box((0, 10, 20), (1, 12, 23))
    packed = io.BytesIO(trimesh.Scene({"block": block}).export(file_type="3mf"))
    path = tmp_path / "base.3mf"
    with zipfile.ZipFile(packed) as given, zipfile.ZipFile(path, "w") as file:
        for name in given.namelist():
            file.writestr(name, given.read(name).replace(b'unit="millimeter"', b'unit="%s"' % unit))
    (piece,) = mesh_files.read(path)
    assert piece.name == "block"
    bounds = [piece.mesh.vertices.min(0), piece.mesh.vertices.max(0)]
    np.testing.assert_allclose(bounds, block.bounds * to_mm)


@pytest.mark.parametrize(
    ("name", "missing"), [("base.3mf", ["lxml", "networkx"]), ("base.stp", ["cascadio"])]
)
def test_a_missing_reader_is_named_with_what_to_install(name, missing, tmp_path, monkeypatch):
    (tmp_path / name).touch()
    for library in missing:
        monkeypatch.setitem(sys.modules, library, None)
    takes = f"takes {' and '.join(missing)}: pip install {' '.join(missing)}; or export it as STL"
    with pytest.raises(ValueError, match=f"{name}: reading it {takes}"):
        from_meshes(tmp_path, BASE)


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


def test_triangles_look_outwards_also_of_inverted_and_mirrored_meshes(meshes):
    mesh = PARTS["base.stl"].copy()
    mesh.invert()
    mesh.export(meshes / "base.stl")
    (meshes / "poses.json").write_text(json.dumps({"lid": np.diag([1, -1, 1, 1]).tolist()}))
    for part in cad_files.product(meshes).parts:
        centres = part.mesh.vertices[part.mesh.faces].mean(1)
        assert (np.einsum("ij,ij->i", Body(part.mesh).normals, centres) > 0).all()


def _change(name, act):
    return lambda m: glb.change((m / name).read_bytes(), act, m / name)


def _refer(key):
    other = [{"uri": "../secret.bin", "byteLength": 8}]
    return _change("2.glb", lambda content: content.update({key: other})), "refers to another file"


_DRACO = "KHR_draco_mesh_compression"
# What no line of a snapshot holds: what is done to the folder, and what is said.
BINARY = {
    "garbage": (lambda m: (m / "base.stl").write_bytes(b"\0" * 300), "base.stl: "),
    "cut": (lambda m: os.truncate(m / "2.glb", 500), "2.glb: not a readable GLB mesh"),
    "draco": (
        _change("2.glb", lambda content: content.update(extensionsRequired=[_DRACO])),
        f"(ValueError: needs {_DRACO}, which is not read; export it without",
    ),
    "buffer": _refer("buffers"),
    "image": _refer("images"),
}


@pytest.mark.parametrize("name", BINARY)
def test_a_damaged_or_foreign_file_is_one_line(meshes, tmp_path, name, capsys):
    corrupt, expected = BINARY[name]
    corrupt(meshes)
    out = tmp_path / "out"
    assert expected in refused(capsys, synthetic.main, cad_files.arguments(meshes, out))
    assert not out.exists()
