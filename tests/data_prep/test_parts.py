import numpy as np
import pytest
import trimesh
from trimesh.visual import TextureVisuals
from trimesh.visual.material import PBRMaterial

from data_prep import parts
from data_prep.products import mesh_files
from tests.support import glb
from tests.support.boxes import box
from tests.support.processes import refused


def test_objects_of_a_file_become_meshes_in_their_places(tmp_path, capsys):
    """Two with one name, one of two materials, and those of a group named like them."""
    scene = trimesh.Scene()
    scene.add_geometry(box((0, 0, 0), (4, 4, 1)), node_name="base/plate")
    for name, x in (("Peg", 0), ("peg", 3), ("Pump_casing", 5), ("Pump_roller", 6)):
        scene.add_geometry(box((x, 0, 1), (x + 1, 1, 3)), node_name=name)
    for x, colour in ((7, [255, 0, 0, 255]), (8, [0, 0, 255, 255])):
        half = box((x, 0, 0), (x + 1, 1, 1))
        half.visual = TextureVisuals(material=PBRMaterial(baseColorFactor=colour))
        scene.add_geometry(half, node_name=f"half {x}")

    def regroup(content):
        nodes = content["nodes"]
        number = {node.get("name"): i for i, node in enumerate(nodes)}
        red, blue = (content["meshes"][nodes[number[f"half {x}"]]["mesh"]] for x in (7, 8))
        red["primitives"] += blue["primitives"]
        inside = [number["Pump_casing"], number["Pump_roller"]]
        nodes[number["half 7"]]["name"] = "Knob"
        nodes += [{"name": "Pump", "children": inside}]
        others = [number[name] for name in ("base/plate", "Peg", "peg", "half 7")]
        content["scenes"], content["scene"] = [{"nodes": [*others, len(nodes) - 1]}], 0

    glb.change(scene.export(file_type="glb"), regroup, tmp_path / "pump.glb")
    out = tmp_path / "new" / "meshes"
    arguments = [f"--model={tmp_path}/pump.glb", f"--out={out}"]
    assert parts.main(arguments) == 0
    assert "6 parts" in capsys.readouterr().out
    names = ("base plate", "Peg 2", "peg 1", "Pump_casing", "Pump_roller", "Knob")
    assert {path.name for path in out.iterdir()} == {f"{name}.glb" for name in names}
    found = {name: mesh_files.read(out / f"{name}.glb") for name in names}
    lows = [np.min([piece.mesh.vertices.min(0)[0] for piece in found[name]]) for name in names]
    assert lows == [0, 0, 3, 5, 6, 7]
    assert np.isnan(found["Peg 2"][0].mesh.colours).all()
    assert b"COLOR" not in (out / "Peg 2.glb").read_bytes()
    shown = np.concatenate([piece.mesh.colours for piece in found["Knob"]])
    assert np.unique(shown.round(6), axis=0).tolist() == [[0, 0, 1], [1, 0, 0]]
    assert "is there already" in refused(capsys, parts.main, arguments)


@pytest.mark.parametrize("key", ["o", "g"])
def test_objects_of_an_obj_file_keep_their_names_and_colours(tmp_path, key):
    """As programs export an assembly: each with a material; of groups one is gone back to."""
    names = ("base", "column", "arm 1", "shade", "bulb")
    rows = ["mtllib lamp.mtl"]
    for i, name in enumerate(names):
        part = box((i, 0, 0), (i + 1, 1, 1))
        rows += [f"v {x} {y} {z}" for x, y, z in part.vertices] + [f"{key} {name}"]
        rows += [f"usemtl m{i % 3}"]
        rows += ["f " + " ".join(str(8 * i + k + 1) for k in face) for face in part.faces]
    if key == "g":
        rows += ["usemtl m0", "g base", "f 1 2 3"]
    (tmp_path / "lamp.obj").write_text("\r\n".join(rows))
    colours = [(1, 0, 0), (0, 0.5, 0), (0.25, 0.25, 1)]
    texts = [f"newmtl m{i}\nKd {r} {g} {b}\n" for i, (r, g, b) in enumerate(colours)]
    (tmp_path / "lamp.mtl").write_text("".join(texts))
    parts.split(model=tmp_path / "lamp.obj", out=tmp_path / "meshes")
    assert {path.stem for path in (tmp_path / "meshes").iterdir()} == {*names}
    for i, name in enumerate(names):
        (piece,) = mesh_files.read(tmp_path / "meshes" / f"{name}.glb")
        assert (piece.mesh.vertices[:, 0].min(), piece.mesh.vertices[:, 0].max()) == (i, i + 1)
        assert len(piece.mesh.faces) == 12 + (key == "g" and name == "base")
        np.testing.assert_allclose(
            piece.mesh.colours, [colours[i % 3]] * len(piece.mesh.faces), atol=1e-6
        )
