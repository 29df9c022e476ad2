"""`data_prep.parts`: one file, or one for each state, becomes a mesh for each component."""

import json

import numpy as np
import pytest
import trimesh
from trimesh.visual import TextureVisuals
from trimesh.visual.material import PBRMaterial

from data_prep import parts
from data_prep.products import mesh_files, meshes, state_parts
from tests.support import glb, ldraw_files, three_mf, toy
from tests.support.commands import refused

pytestmark = pytest.mark.usefixtures("system")  # each starts a reader or two
GREY = np.full(3, 0.5)


def box(low, high):
    return trimesh.creation.box(bounds=[low, high])


def product(folder, procedure):
    """What the other commands read of a folder of meshes."""
    inputs = meshes.read_inputs(folder, procedure)
    drawn = [GREY] * procedure.num_components
    return meshes.load_product(inputs, procedure, radius=1.0, y_up=False, drawn=drawn)


def test_a_model_of_ldraw_becomes_named_meshes_with_its_colours_and_steps(tmp_path, capsys):
    """The blocks have blue lids, with a sharp border."""
    lid = ldraw_files.place("cube.dat", 1, at=(0, -4.1, 0), scale=(1, 0.1, 1))
    block = "0 Block 2 x 1\n" + ldraw_files.place("s\\half.dat") + lid
    library = ldraw_files.write(tmp_path / "library", {"parts/block.dat": block})
    text = "".join(
        ldraw_files.place("block.dat", colour, at=(0, -8 * i, 0)) + ("0 STEP\n" if i < 1 else "")
        for i, colour in enumerate((4, 1, 4))
    )
    (tmp_path / "tower.ldr").write_text(text)
    out = tmp_path / "new" / "meshes"
    arguments = [f"--model={tmp_path}/tower.ldr", f"--parts={library}", f"--out={out}"]
    assert parts.main(arguments) == 0
    assert "3 parts in 2 steps" in capsys.readouterr().out
    names = ["Block 2 x 1 red 1", "Block 2 x 1 dark blue", "Block 2 x 1 red 2"]
    assert json.loads((out / "order.json").read_text()) == [names[:1], names[1:]]
    procedure = toy.procedure(", ".join(names), "100 110 111")
    low, middle, high = product(out, procedure).parts
    heights = [part.right[2, 3] for part in (low, middle, high)]
    np.testing.assert_allclose(np.diff(heights) / low.height, 8 / 8.2)
    for part, colour in ((low, (1, 0, 0)), (middle, (0, 0, 128 / 255)), (high, (1, 0, 0))):
        blue = np.square((0, 0, 128 / 255))
        shown, count = np.unique(part.mesh.colours.round(4), axis=0, return_counts=True)
        wanted = {tuple(np.square(colour).round(4)), tuple(blue.round(4))}
        assert set(map(tuple, shown)) == wanted
        assert count.tolist() == [24 // len(wanted)] * len(wanted)
    assert "is there already" in refused(capsys, parts.main, arguments)


def test_objects_of_a_file_become_meshes_in_their_places(tmp_path):
    """Two with one name are numbered."""
    scene = trimesh.Scene()
    two = box((0, 0, 0), (4, 4, 1))
    scene.add_geometry(two, node_name="base/plate")
    peg = box((0, 0, 1), (1, 1, 3))
    scene.add_geometry(peg, node_name="Peg")
    scene.add_geometry(
        peg, node_name="peg", transform=trimesh.transformations.translation_matrix([3, 0, 0])
    )
    scene.export(tmp_path / "pump.glb")
    parts.split(model=tmp_path / "pump.glb", out=tmp_path / "meshes")
    procedure = toy.procedure("base plate, Peg 1, peg 2", "100 110 111")
    base, left, right = product(tmp_path / "meshes", procedure).parts
    apart = np.abs(right.right - left.right)[:3, 3]
    np.testing.assert_allclose(apart / base.extent[0], [0.75, 0, 0])
    assert not (tmp_path / "meshes" / "order.json").exists()


def test_an_object_of_several_materials_is_one_part(tmp_path):
    """As CAD exports a part with coloured faces: one node, one mesh, a primitive a colour."""
    scene = trimesh.Scene()
    for low, colour in ((0, [255, 0, 0, 255]), (1, [0, 0, 255, 255])):
        half = box((low, 0, 0), (low + 1, 1, 1))
        half.visual = TextureVisuals(material=PBRMaterial(baseColorFactor=colour))
        scene.add_geometry(half)
    glb.change(scene.export(file_type="glb"), _in_one_mesh, tmp_path / "pump.glb")
    parts.split(model=tmp_path / "pump.glb", out=tmp_path / "meshes")
    assert [path.name for path in (tmp_path / "meshes").iterdir()] == ["Knob.glb"]
    procedure = toy.procedure("knob", "1")
    (knob,) = product(tmp_path / "meshes", procedure).parts
    assert np.unique(knob.mesh.colours, axis=0).tolist() == [[0, 0, 1], [1, 0, 0]]


def test_an_object_of_very_many_colours_keeps_them(tmp_path, monkeypatch):
    """As one mesh: thousands of them would take minutes to write."""
    ball = trimesh.creation.icosphere(subdivisions=2)
    colours = np.random.default_rng(0).integers(0, 256, (len(ball.faces), 3))
    shown = colours / 255
    shown[:9] = np.nan
    written = []
    for most in (500, 9):
        monkeypatch.setattr(parts, "MAX_COLOURS", most)
        path = tmp_path / f"{most}.glb"
        path.write_bytes(parts._glb([mesh_files.Piece("ball", ball.vertices, ball.faces, shown)]))
        pieces = mesh_files.read(path)
        written.append(len(pieces))
        rows = [
            np.column_stack([p.vertices[p.faces].mean(axis=1), np.nan_to_num(p.colours, nan=-1)])
            for p in pieces
        ]
        expected = np.column_stack([ball.triangles.mean(axis=1), np.nan_to_num(shown, nan=-1)])
        found = np.concatenate(rows)
        order = [np.lexsort(every[:, :3].round(4).T) for every in (found, expected)]
        np.testing.assert_allclose(found[order[0]], expected[order[1]], atol=1e-5)
    assert written[0] > 300
    assert written[1] == 2


def test_objects_named_like_the_one_that_holds_them_are_parts_of_their_own(tmp_path):
    """Six letters more are what an object of several materials gets from trimesh."""
    scene = trimesh.Scene()
    names = ("Pump_casing", "Pump_roller", "Pump_lid")
    for low, name in enumerate(names):
        scene.add_geometry(box((low, 0, 0), (low + 1, 1, 1)), node_name=name)

    def under_one(content):
        inside = [i for i, node in enumerate(content["nodes"]) if "mesh" in node]
        content["scenes"], content["scene"] = [{"nodes": [len(content["nodes"])]}], 0
        content["nodes"].append({"name": "Pump", "children": inside})

    glb.change(scene.export(file_type="glb"), under_one, tmp_path / "pump.glb")
    parts.split(model=tmp_path / "pump.glb", out=tmp_path / "meshes")
    assert {path.stem for path in (tmp_path / "meshes").iterdir()} == set(names)


def _in_one_mesh(content):
    primitives = [mesh["primitives"][0] for mesh in content["meshes"]]
    content["meshes"] = [{"primitives": primitives}]
    content["nodes"] = [{"name": "world", "children": [1]}, {"name": "Knob", "mesh": 0}]
    content["scenes"], content["scene"] = [{"nodes": [0]}], 0


# Which bodies the states show: the plate and its bolt come and go together, and the arm is of two
# bodies.
BODIES = {
    "base": [((0, 0, 0), (9, 9, 1))],
    "plate": [((0, 0, 1), (4, 4, 2))],
    "bolt": [((1, 1, 2), (2, 2, 3))],
    "arm": [((5, 5, 1), (6, 6, 5)), ((7, 7, 1), (8, 8, 5))],
}
PROCEDURE = toy.content("base, plate, bolt, arm", "1000 1110 1001 1111")


@pytest.fixture
def states(tmp_path):
    folder = tmp_path / "part_geometries"
    folder.mkdir()
    (folder / "overview_of_states.pdf").touch()
    for number, state in enumerate(PROCEDURE["states"], start=1):
        shown = [
            box(*bounds)
            for bit, name in zip(state, BODIES, strict=True)
            for bounds in BODIES[name]
            if bit == "1"
        ]
        # In another order each time, and as one mesh, although plate and base have a corner in
        # the same place.
        trimesh.util.concatenate(shown[:: (-1) ** number]).export(folder / f"state{number}.obj")
    (tmp_path / "toy.json").write_text(json.dumps(PROCEDURE))
    return folder


def test_components_are_what_differs_between_states(states, tmp_path):
    arguments = {"model": states, "states_of": tmp_path / "toy.json"}
    with pytest.raises(ValueError) as error:
        parts.split(out=tmp_path / "meshes", **arguments)
    assert str(error.value).endswith(
        'plate and bolt come and go together; say whose their bodies are, as in --bodies="bolt=2". '
        "Their sizes are 1: 4 × 4 × 1; 2: 1 × 1 × 1"
    )
    assert not any(tmp_path.glob("meshes*"))
    parts.split(out=tmp_path / "meshes", bodies={"bolt": [2]}, **arguments)
    for name, bounds in BODIES.items():
        mesh = trimesh.load_mesh(tmp_path / "meshes" / f"{name}.glb")
        np.testing.assert_allclose(mesh.bounds[0], np.min(bounds, axis=(0, 1)), atol=1e-6)
        np.testing.assert_allclose(mesh.bounds[1], np.max(bounds, axis=(0, 1)), atol=1e-6)


def test_bodies_of_files_without_common_vertices_hang_together_by_place(states, tmp_path):
    for path in states.glob("*.obj"):
        trimesh.load_mesh(path).export(path.with_suffix(".stl"))
        path.unlink()
    options = {"states_of": tmp_path / "toy.json", "bodies": {"bolt": [2]}}
    with pytest.raises(ValueError, match=r"only 5.% of the surface is of bodies"):
        parts.split(model=states, out=tmp_path / "meshes", **options)  # the corner is one


def test_a_state_of_very_many_bodies_is_refused(states, tmp_path, monkeypatch):
    """Each is held against all others."""
    options = {"model": states, "states_of": tmp_path / "toy.json", "bodies": {"bolt": [2]}}
    monkeypatch.setattr(state_parts, "MAX_BODIES", 4)
    with pytest.raises(ValueError, match=r"state4\.obj: has more than 4 bodies; export it with"):
        parts.split(out=tmp_path / "meshes", **options)
    monkeypatch.setattr(state_parts, "MAX_BODIES", 5)
    parts.split(out=tmp_path / "meshes", **options)


def test_states_may_be_numbered_from_zero(states, tmp_path):
    for number in range(1, 5):
        (states / f"state{number}.obj").rename(states / f"state{number - 1}.obj")
    options = {"states_of": tmp_path / "toy.json", "bodies": {"bolt": [2]}}
    parts.split(model=states, out=tmp_path / "meshes", **options)
    assert len(list((tmp_path / "meshes").glob("*.glb"))) == 4


def test_states_that_do_not_fit_the_procedure_are_told(states, tmp_path):
    options = {"states_of": tmp_path / "toy.json", "bodies": {"bolt": [2]}}
    swapped = states / "state1.obj", states / "state4.obj"
    swapped[0].rename(states / "x.obj")
    swapped[1].rename(swapped[0])
    (states / "x.obj").rename(swapped[1])
    with pytest.raises(ValueError, match="of the surface is of bodies that come and go as"):
        parts.split(model=states, out=tmp_path / "meshes", **options)
    swapped[0].unlink()
    with pytest.raises(ValueError, match=r"no file for states 1 of the 4 of procedure 'toy'"):
        parts.split(model=states, out=tmp_path / "meshes", **options)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--model=nothing.glb"], "nothing.glb: cannot be read"),
        (["--model=x.ldr"], "--model=x.ldr needs a library: --parts=FOLDER"),
        (["--model=x.glb", "--parts=y"], "--parts is for models of LDraw, and --model=x.glb is"),
        (["--model=x.glb", "--procedure=y"], "--procedure is for a folder of states, and --model="),
        (["--model=STATES"], "is a folder of states: give --procedure too"),
        (["--model=STATES", "--procedure=toy.json", "--bodies=lid=1"], "--bodies: 'lid' is not a"),
        (
            ["--model=STATES", "--procedure=toy.json", "--bodies=bolt=9"],
            "--bodies: bolt has bodies",
        ),
        (
            ["--model=STATES", "--procedure=toy.json", "--bodies=bolt=2,2"],
            "--bodies: bolt has bodies",
        ),
        (["--model=x", "--bodies=bolt"], 'invalid list like "pin=2,3; screw=1" value'),
        (["--model=x.dae"], "x.dae: .dae is not read"),
    ],
)
def test_what_is_wrong_is_one_line_and_nothing_is_written(
    states, tmp_path, arguments, expected, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    given = [argument.replace("STATES", str(states)) for argument in arguments]
    assert expected in refused(capsys, parts.main, [*given, "--out=meshes"])
    assert not any(tmp_path.glob("meshes*"))


def test_objects_of_a_3mf_file_are_in_millimetres(tmp_path):
    pytest.importorskip("lib3mf")
    mesh = box((0, 0, 0), (1, 2, 3))
    named = f'<object id="1" type="model" name="Peg">{three_mf.mesh(mesh.vertices, mesh.faces)}'
    build = three_mf.item(1) + three_mf.item(1, (2, 0, 0))
    three_mf.write(tmp_path / "pump.3mf", named + "</object>", build, "inch")
    parts.split(model=tmp_path / "pump.3mf", out=tmp_path / "meshes")
    for name, low in (("Peg 1", 0), ("Peg 2", 50.8)):
        mesh = trimesh.load_mesh(tmp_path / "meshes" / f"{name}.glb")
        np.testing.assert_allclose(mesh.bounds, [(low, 0, 0), (low + 25.4, 50.8, 76.2)], rtol=1e-6)
