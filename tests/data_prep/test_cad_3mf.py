"""3MF files as meshes of data_prep.cad: units, colours, objects of objects, and what is refused."""

import random
import sys

import numpy as np
import pytest
import trimesh

from data_prep.products import mesh_files, three_mf
from data_prep.products.meshes import read_inputs
from tests.support import three_mf as files
from tests.support import toy

PROCEDURE = toy.procedure("base", "1")
BOX = trimesh.creation.box(bounds=[(0, 10, 20), (1, 12, 23)])
MESH = files.mesh(BOX.vertices, BOX.faces)
OBJECT = f'<object id="1" type="model" name="block">{MESH}</object>'


@pytest.fixture
def path(tmp_path):
    pytest.importorskip("lib3mf")
    return tmp_path / "base.3mf"


@pytest.mark.parametrize(
    ("unit", "millimetres"), [("millimeter", 1), ("inch", 25.4), ("meter", 1000), ("micron", 1e-3)]
)
def test_a_block_has_its_bounds_in_millimetres_whatever_the_unit(unit, millimetres, path):
    files.write(path, OBJECT, files.item(1), unit)
    assert read_inputs(path.parent, PROCEDURE).files == (path,)
    (piece,) = mesh_files.read(path)
    assert piece.name == "block"
    np.testing.assert_allclose(np.ptp(piece.vertices, axis=0), np.array([1, 2, 3]) * millimetres)
    np.testing.assert_allclose(
        trimesh.Trimesh(piece.vertices, piece.faces).volume, 6 * millimetres**3, rtol=1e-6
    )


def test_objects_made_of_objects_are_moved_by_all_that_hold_them(path):
    parts = files.item(1, element="component") + files.item(1, (5, 0, 0), "component")
    pair = f'<object id="2" type="model" name="pair"><components>{parts}</components></object>'
    files.write(path, OBJECT + pair, files.item(2, (0, 0, -20)) + files.item(1, (0, 7, 0)))
    lows = [piece.vertices.min(0).tolist() for piece in mesh_files.read(path)]
    assert lows == [[0, 10, 0], [5, 10, 0], [0, 17, 20]]


def test_faces_of_a_mirrored_object_look_outwards(path):
    mirrored = files.item(1, element="component").replace('="1 0 0', '="-1 0 0')
    pair = f"<components>{files.item(1, element='component')}{mirrored}</components>"
    files.write(path, OBJECT + f'<object id="2" type="model">{pair}</object>', files.item(2))
    pieces = mesh_files.read(path)
    assert [piece.vertices[:, 0].min() for piece in pieces] == [0, -1]
    volumes = [trimesh.Trimesh(piece.vertices, piece.faces).volume for piece in pieces]
    np.testing.assert_allclose(volumes, 6, rtol=1e-6)


def test_colours_are_those_of_materials_and_of_colour_groups(path):
    """By face, else by object; a face without one has none."""
    groups = (
        '<basematerials id="5"><base name="a" displaycolor="#FF0000"/>'
        '<base name="b" displaycolor="#0000FF80"/></basematerials>'
        '<m:colorgroup id="6"><m:color color="#00FF00"/></m:colorgroup>'
    )
    own = ['pid="6" p1="0"', 'pid="5" p1="1"', *[""] * 10]
    mesh = files.mesh(BOX.vertices, BOX.faces, own)
    red = f'<object id="1" type="model" pid="5" pindex="0">{mesh}</object>'
    plain = f'<object id="2" type="model">{mesh}</object>'
    files.write(path, groups + red + plain, files.item(1) + files.item(2))
    coloured, bare = (piece.colours for piece in mesh_files.read(path))
    np.testing.assert_array_equal(coloured, [(0, 1, 0), (0, 0, 1), *[(1, 0, 0)] * 10])
    np.testing.assert_array_equal(bare, [(0, 1, 0), (0, 0, 1), *[(np.nan,) * 3] * 10])


@pytest.mark.parametrize(
    "data",
    [b"", b"garbage", "no build", "face", "cycle", "doctype"],
)
def test_a_damaged_file_is_one_line(data, path):
    content = {
        "no build": (OBJECT, ""),
        "face": (OBJECT.replace('v1="0"', 'v1="99"'), files.item(1)),
        "cycle": (
            f'<object id="1" type="model"><components>{files.item(1, element="component")}'
            "</components></object>",
            files.item(1),
        ),
        "doctype": ('<!DOCTYPE a [<!ENTITY x "y">]>' + OBJECT, files.item(1)),
    }
    if isinstance(data, bytes):
        path.write_bytes(data)
    else:
        files.write(path, *content[data])
    with pytest.raises(ValueError, match=r"base\.3mf: (not a readable 3MF|holds no)") as error:
        mesh_files.read(path)
    assert "\n" not in str(error.value)


def test_a_file_with_changed_bytes_is_read_or_refused_in_a_line(path):
    files.write(path, OBJECT, files.item(1))
    whole = path.read_bytes()
    rng = random.Random(0)
    refused = []
    for _ in range(60):
        data = bytearray(whole)
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        path.write_bytes(data)
        try:
            three_mf.unpacked_bytes(path)
            mesh_files.read(path)
        except (ValueError, MemoryError) as error:
            refused.append(str(error))
    assert len(refused) > 30
    assert all("base.3mf" in line and "\n" not in line for line in refused)


def test_objects_nested_too_deeply_are_refused(path):
    chain = "".join(
        f'<object id="{i}" type="model"><components>{files.item(i - 1, element="component")}'
        "</components></object>"
        for i in range(2, 60)
    )
    files.write(path, OBJECT + chain, files.item(59))
    with pytest.raises(ValueError, match="made of objects more than 32 deep"):
        mesh_files.read(path)


def test_a_file_that_unfolds_is_refused_before_it_is_unpacked(path):
    """Text that packs to a thousandth."""
    files.write(path, OBJECT + " " * (three_mf.FREE_BYTES + 1), files.item(1))
    assert path.stat().st_size < 2**18
    with pytest.raises(ValueError, match=r"base\.3mf: reading it takes more memory than a file"):
        mesh_files.read_all([path])


def test_objects_that_are_built_too_often_are_refused(path, monkeypatch):
    """Few objects that hold each other twice, 22 deep."""
    twice = "".join(
        f'<object id="{i}" type="model"><components>'
        f"{2 * files.item(i - 1, element='component')}</components></object>"
        for i in range(2, 24)
    )
    files.write(path, OBJECT + twice, files.item(23))
    monkeypatch.setattr(three_mf, "MAX_OBJECTS", 100)
    with pytest.raises(ValueError, match="more than 100 objects are built"):
        mesh_files.read(path)


def test_without_the_library_the_hint_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "lib3mf", None)
    files.write(tmp_path / "base.3mf", OBJECT, files.item(1))
    with pytest.raises(ValueError, match=r"base\.3mf: reading a 3MF file needs lib3mf") as error:
        read_inputs(tmp_path, PROCEDURE)
    assert "pip install '.[3mf]'" in str(error.value)
