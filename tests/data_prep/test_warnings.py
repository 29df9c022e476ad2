import json

import numpy as np
import pytest
import trimesh

from data_prep import cad
from data_prep.products.meshes import load_product, read_inputs
from data_prep.products.warnings import warnings
from tests.support import toy
from tests.support.boxes import box, product, shell
from tests.support.commands import refused

PROCEDURE = toy.procedure("cup, peg, lid", "100 110 111")
pytestmark = pytest.mark.usefixtures("read_here")
CUP = shell((0, 0, 0), (4, 4, 3), 1)
PEG, LID = box((1, 1, 1), (3, 3, 3)), box((0, 0, 3), (4, 4, 4))
COLOURS = ((0.5, 0, 0), (0, 0.5, 0), (0, 0, 0.5))


def told(*meshes, procedure=PROCEDURE, **options):
    return warnings(product(*meshes, colours=COLOURS, **options), procedure)


def test_a_sound_product_is_not_warninged():
    assert told(CUP, PEG, LID) == []


def test_parts_in_each_other_are_told_with_how_much_in_the_files_unit():
    """The peg is as wide as the cup's hollow and a quarter of a wall."""
    wide = box((0.75, 1, 1), (3, 3, 3))
    (line,) = told(CUP, wide, LID, scale=0.5)
    assert line.startswith("cup and peg are 0.5 in each other (11% of peg)")
    # A tolerance, as fits have.
    assert told(CUP, box((0.99, 1, 1), (3, 3, 3)), LID) == []


@pytest.mark.parametrize(("slot", "lines"), [(0.6, 1), (2.0, 0)])
def test_a_part_that_few_cameras_see_is_told(slot, lines):
    """Under a lid, behind a slot in the front wall."""
    walls = [(0, 0, 1, 4), (3, 0, 4, 4), (1, 3, 3, 4)]
    walls += [(1, 0, 2 - slot / 2, 0.5), (2 + slot / 2, 0, 3, 0.5)][: 2 * (slot < 2)]
    cup = trimesh.util.concatenate([box((a, b, 0), (c, d, 3)) for a, b, c, d in walls])
    peg, built = box((1.2, 0.6, 0), (2.8, 2.8, 2.5)), toy.procedure("cup, peg, lid", "100 111")
    found = told(cup, peg, LID, procedure=built)
    assert len([line for line in found if "hardly a camera sees it" in line]) == lines


def test_an_order_that_cannot_be_built_is_told_by_name():
    content = toy.content("cup, peg, lid", "100 101 111")
    lines = told(CUP, PEG, LID, procedure=toy.Procedure.from_json(content))
    (line,) = (line for line in lines if line.startswith("states: "))
    assert line.startswith("states: peg would have to pass through another part in each of them")
    assert "of cup, lid, in its way are cup (" in line
    assert "lid (up)" in line
    content["variants"]["all"]["precedence"] = [[0, 6], [6, 3]]
    (line,) = (
        line
        for line in told(CUP, PEG, LID, procedure=toy.Procedure.from_json(content))
        if line.startswith("variant ")
    )
    assert line.startswith("variant all: peg would have to pass through another part: cup, lid")
    content["variants"]["all"]["precedence"] = [[0, 3], [3, 6]]
    content["states"] = ["100", "110", "111"]
    assert told(CUP, PEG, LID, procedure=toy.Procedure.from_json(content)) == []


def test_an_order_in_which_a_part_would_hover_is_told():
    """By a variant's precedence, or where none is given, in the end."""
    content = toy.content("cup, lid, knob", "100 110 111")
    meshes = CUP, LID, box((1, 1, 4), (3, 3, 5))
    for precedence, expected in (
        ([[0, 3], [3, 6]], []),
        ([[0, 3], [0, 6]], ["variant all: knob would hover: what comes before it (cup) does not"]),
        (
            [[3, 6]],
            [
                "variant all: lid would hover: what comes before it (nothing)",
                "variant all: knob would",
            ],
        ),
        ([], []),
    ):
        content["variants"]["all"]["precedence"] = precedence
        lines = told(*meshes, procedure=toy.Procedure.from_json(content))
        assert len(lines) == len(expected)
        assert all(line.startswith(start) for line, start in zip(lines, expected, strict=True))
    high = (CUP, *(mesh.copy().apply_translation([0, 0, 9]) for mesh in meshes[1:]))
    lines = told(*high, procedure=toy.Procedure.from_json(content))
    assert sum("would hover: what comes before it (cup, " in line for line in lines) == 2


@pytest.fixture
def folder(tmp_path):
    """Meshes of a cup, a peg and a lid as STL, a hundredth as large as they should be."""
    (tmp_path / "meshes").mkdir()
    for part, mesh in (("cup", CUP), ("peg", PEG), ("lid", LID)):
        mesh.copy().apply_scale(0.1).export(tmp_path / "meshes" / f"{part}.stl")
    return tmp_path / "meshes"


def load(folder):
    inputs = read_inputs(folder, PROCEDURE)
    drawn = [np.full(3, value) for value in (0.2, 0.4, 0.6)]
    return load_product(inputs, PROCEDURE, y_up=False, drawn=drawn)


def test_missing_colours_and_odd_sizes_are_told_and_one_mesh_gets_one_colour(folder):
    PEG.copy().apply_scale(0.1).apply_translation([0, 0, 0.2]).export(folder / "lid.stl")
    made = load(folder)
    line, of_size = made.notes
    assert "cup.stl, peg.stl, lid.stl: without colours" in line
    assert "is 0.755 from corner to corner: too small to assemble by hand if" in of_size
    cup, peg, lid = (np.unique(part.mesh.colours).tolist() for part in made.parts)
    assert peg == lid != cup
    (folder / "poses.json").write_text(json.dumps({"colors": {"cup": "#ff0000", "peg": "#00ff00"}}))
    made = load(folder)
    assert made.coloured == (True, True, False)
    assert "lid.stl: without colours" in made.notes[0]
    assert "cup.stl" not in made.notes[0]


def test_the_command_tells_warnings_before_it_renders(folder, tmp_path, capsys, caplog):
    (tmp_path / "toy.json").write_text(json.dumps(PROCEDURE.to_json()))
    arguments = [f"--meshes={folder}", f"--procedure={tmp_path / 'toy.json'}"]
    arguments += [f"--out={tmp_path / 'out'}", "--size=16", "--per_state=1", "--workers=1"]
    PEG.copy().apply_scale([0.1, 0.1, 0.15]).export(folder / "peg.stl")
    assert cad.main([*arguments, "--recordings=cad_01"]) == 0
    colours, _, overlap, page = caplog.messages
    assert "without colours" in colours
    assert "peg and lid are" in overlap
    assert f"{tmp_path / 'out' / 'product.html'} shows the parts in the colours" in page
    assert (tmp_path / "out" / "product.html").read_text().count("data:image/jpeg") > 3
    for name in ("cup", "peg", "lid"):
        box((0, 0, 0), (10, 10, 10)).export(folder / f"{name}.stl")
    other = [argument.replace("/out", "/other") for argument in arguments]
    assert "lie on top of each other" in refused(capsys, cad.main, other)
    assert not (tmp_path / "other").exists()
