import numpy as np
import pytest
import trimesh

from data_prep.products import mesh_files, three_mf
from data_prep.products.meshes import read_inputs
from tests.support import cad_files, glb, step_files, toy
from tests.support import three_mf as files
from tests.support.boxes import box
from tests.support.cad_files import PARTS

BASE = toy.procedure("base", "1")


@pytest.fixture
def meshes(tmp_path):
    return cad_files.write(tmp_path / "meshes")


def volume(piece):
    return trimesh.Trimesh(piece.vertices, piece.faces).volume


@pytest.mark.parametrize("corner", ["{0}", "{0}//-1", "{0}/-1/-1", "{1}"])
def test_numbers_below_zero_of_an_obj_count_back_from_their_face(meshes, corner):
    """Two boxes, each with its vertices before its faces."""
    low, high = PARTS["Front_wheel.obj"].bounds
    middle = (low + high) / 2
    lines = []
    for number, bounds in enumerate(((low, (middle[0], *high[1:])), ((middle[0], *low[1:]), high))):
        half = box(*bounds)
        lines += [f"v {x} {y} {z}" for x, y, z in half.vertices] + ["vt 0 0", "vn 0 0 1"]
        for face in half.faces:
            lines.append("f " + " ".join(corner.format(k - 8, 8 * number + k + 1) for k in face))
    (meshes / "Front_wheel.obj").write_text("\r\n".join(lines))
    (piece,) = mesh_files.read(meshes / "Front_wheel.obj")
    assert len(piece.faces) == 24
    np.testing.assert_allclose(volume(piece), np.prod(high - low))


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
    shown = {(p.name, *p.colours[0].tolist()) for p in mesh_files.read(path)}
    assert len(shown) == 4
    assert {c for c in shown if c[1] == c[1]} == {
        ("a", 1, 0, 0.25), ("a", 0.5, 0.25, 0), ("b", 1, 0, 0.25)
    }  # fmt: skip
    before = read_inputs(meshes, cad_files.PROCEDURE).digest
    library.write_text("newmtl red\nKd 0 1 0\n")
    assert read_inputs(meshes, cad_files.PROCEDURE).digest != before
    path.write_text("\n".join(["mtllib x.mtl"] + [f"{v} .2 .4 .6" for v in SIDES] + faces))
    for piece in mesh_files.read(path):
        np.testing.assert_allclose(piece.colours, [(0.2, 0.4, 0.6)] * len(piece.faces))
    (meshes / "poses.json").unlink()
    path.write_text(text)
    library.unlink()
    for piece in mesh_files.read(path):
        assert np.isnan(piece.colours).all()
    note = f"{meshes}: Front_wheel.obj names front wheel.mtl, which is not beside it; add it"
    assert any(line.startswith(note) for line in cad_files.product(meshes).notes)


@pytest.mark.parametrize("encoding", ["ascii", "binary"])
@pytest.mark.parametrize("of", ["face_colors", "vertex_colors"])
def test_a_ply_has_the_colours_of_its_faces_or_vertices(tmp_path, encoding, of):
    mesh = PARTS["base.stl"].copy()
    setattr(mesh.visual, of, np.tile([51, 102, 0, 255], (12 if of == "face_colors" else 8, 1)))
    mesh.export(tmp_path / "base.ply", encoding=encoding)
    assert read_inputs(tmp_path, BASE).files == (tmp_path / "base.ply",)
    (piece,) = mesh_files.read(tmp_path / "base.ply")
    np.testing.assert_allclose(piece.colours, 12 * [(0.2, 0.4, 0)])
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
    np.testing.assert_allclose(piece.colours, 12 * [expected], atol=1e-4)


BLOCK = trimesh.creation.box(bounds=[(0, 10, 20), (1, 12, 23)])
OBJECT = (
    f'<object id="1" type="model" name="block">{files.mesh(BLOCK.vertices, BLOCK.faces)}</object>'
)


@pytest.fixture
def path(tmp_path):
    pytest.importorskip("lib3mf")
    return tmp_path / "base.3mf"


@pytest.mark.parametrize(
    ("unit", "millimetres"), [("millimeter", 1), ("inch", 25.4), ("meter", 1000), ("micron", 1e-3)]
)
def test_a_3mf_block_has_its_bounds_in_millimetres_whatever_the_unit(unit, millimetres, path):
    files.write(path, OBJECT, files.item(1), unit)
    assert read_inputs(path.parent, BASE).files == (path,)
    (piece,) = mesh_files.read(path)
    assert piece.name == "block"
    np.testing.assert_allclose(np.ptp(piece.vertices, axis=0), np.array([1, 2, 3]) * millimetres)
    np.testing.assert_allclose(volume(piece), 6 * millimetres**3, rtol=1e-6)


def test_objects_made_of_objects_are_moved_by_all_that_hold_them_and_look_outwards(path):
    mirrored = files.item(1, element="component").replace('="1 0 0', '="-1 0 0')
    pair = files.item(1, (5, 0, 0), "component") + mirrored
    group = f'<object id="2" type="model" name="pair"><components>{pair}</components></object>'
    files.write(path, OBJECT + group, files.item(2, (0, 0, -20)) + files.item(1, (0, 7, 0)))
    pieces = mesh_files.read(path)
    assert [p.vertices.min(0).tolist() for p in pieces] == [[5, 10, 0], [-1, 10, 0], [0, 17, 20]]
    np.testing.assert_allclose([volume(piece) for piece in pieces], 6, rtol=1e-6)


def test_colours_of_3mf_are_those_of_materials_and_of_colour_groups(path):
    """By face, else by object; a face without one has none."""
    groups = (
        '<basematerials id="5"><base name="a" displaycolor="#FF0000"/>'
        '<base name="b" displaycolor="#0000FF80"/></basematerials>'
        '<m:colorgroup id="6"><m:color color="#00FF00"/></m:colorgroup>'
    )
    own = ['pid="6" p1="0"', 'pid="5" p1="1"', *[""] * 10]
    mesh = files.mesh(BLOCK.vertices, BLOCK.faces, own)
    red = f'<object id="1" type="model" pid="5" pindex="0">{mesh}</object>'
    plain = f'<object id="2" type="model">{mesh}</object>'
    files.write(path, groups + red + plain, files.item(1) + files.item(2))
    coloured, bare = (piece.colours for piece in mesh_files.read(path))
    np.testing.assert_array_equal(coloured, [(0, 1, 0), (0, 0, 1), *[(1, 0, 0)] * 10])
    np.testing.assert_array_equal(bare, [(0, 1, 0), (0, 0, 1), *[(np.nan,) * 3] * 10])


def test_a_3mf_file_that_unfolds_is_refused_before_it_is_unpacked(path):
    files.write(path, OBJECT + " " * (three_mf.FREE_BYTES + 1), files.item(1))
    assert path.stat().st_size < 2**18
    with pytest.raises(ValueError, match=r"base\.3mf has 67,[0-9,]+ bytes, more than 20 times"):
        mesh_files.read_all([path])


@pytest.mark.parametrize(("unit", "millimetres"), [(".MILLI.,", 1), ("$,", 1000)])
def test_a_step_block_has_its_bounds_in_millimetres_and_its_colour(unit, millimetres, tmp_path):
    pytest.importorskip("cascadio")
    low, high, colour = np.array([0, 10, 20]), np.array([1, 12, 23]), (0.8, 0.5, 0.2)
    path = tmp_path / "base.STEP"
    path.write_text(step_files.block(low, high, unit, colour))
    assert read_inputs(tmp_path, BASE).files == (path,)
    (piece,) = mesh_files.read(path)
    bounds = [piece.vertices.min(0), piece.vertices.max(0)]
    np.testing.assert_allclose(bounds, np.array([low, high]) * millimetres, rtol=1e-5)
    np.testing.assert_allclose(volume(piece), 6 * millimetres**3, rtol=1e-4)
    np.testing.assert_allclose(piece.colours, 12 * [colour], atol=0.01)


@pytest.mark.parametrize("text", ["", step_files.block((0, 0, 0), (1, 1, 1))[:900]])
def test_a_damaged_step_file_is_one_line(text, tmp_path):
    pytest.importorskip("cascadio")
    (tmp_path / "base.stp").write_text(text)
    with pytest.raises(ValueError, match=r"base\.stp: not a readable STEP file") as error:
        mesh_files.read(tmp_path / "base.stp")
    assert "\n" not in str(error.value)


def test_a_mesh_that_unfolds_is_not_loaded(meshes, monkeypatch):
    mesh = trimesh.creation.icosphere(subdivisions=1)

    def repeat(content, count=6000):
        content["nodes"] = [{"children": list(range(1, count + 1))}, *[{"mesh": 0}] * count]
        content["scenes"], content["scene"] = [{"nodes": [0]}], 0

    glb.change(trimesh.Scene(mesh).export(file_type="glb"), repeat, meshes / "2.glb")
    monkeypatch.setattr(mesh_files, "MAX_FACES", 400_000)
    with pytest.raises(ValueError, match=r"2\.glb: has 480,000 triangles, more than 400,000"):
        mesh_files.read(meshes / "2.glb")
