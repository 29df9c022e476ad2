import json

import numpy as np
import pytest
import trimesh

from data_prep import synthetic
from data_prep.products import products
from data_prep.products.products import warnings
from tests.support import cad_files, toy
from tests.support.boxes import box, product, shell

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
def folder(tmp_path):
    """Meshes of a cup, a peg and a lid like it as STL."""
    (tmp_path / "meshes").mkdir()
    lid = PEG.copy().apply_translation([0, 0, 2])
    for part, mesh in (("cup", CUP), ("peg", PEG), ("lid", lid)):
        mesh.export(tmp_path / "meshes" / f"{part}.stl")
    return tmp_path / "meshes"


def test_parts_without_colours_get_some_one_mesh_the_same_and_are_told(folder):
    made = products.from_meshes(folder, PROCEDURE)
    assert "cup.stl, peg.stl, lid.stl: without colours" in made.warnings[0]
    cup, peg, lid = (np.unique(part.mesh.colours).tolist() for part in made.product.parts)
    assert peg == lid != cup
    (folder / "poses.json").write_text(json.dumps({"colors": {"cup": "#ff0000", "peg": "#00ff00"}}))
    made = products.from_meshes(folder, PROCEDURE)
    assert made.product.coloured == (True, True, False)
    assert "lid.stl: without colours" in made.warnings[0]
    assert "cup.stl" not in made.warnings[0]


def test_the_command_tells_warnings_before_it_renders(folder, tmp_path, caplog):
    arguments = cad_files.arguments(folder, tmp_path / "out")
    (tmp_path / "toy.json").write_text(json.dumps(PROCEDURE.to_json()))
    assert synthetic.main(arguments) == 0
    colours, same, page = caplog.messages
    assert "without colours" in colours
    assert "peg and lid look the same" in same
    assert f"{tmp_path / 'out' / 'product.html'} shows the parts in the colours" in page
    assert (tmp_path / "out" / "product.html").read_text().count("data:image/jpeg") > 3
