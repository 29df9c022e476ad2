"""From a file of CAD to meshes (`data_prep.parts`), a procedure and its page (`draft`)."""

import base64
import io
import json
import re
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import trimesh
from PIL import Image
from trimesh.visual import TextureVisuals
from trimesh.visual.material import PBRMaterial

from data_prep import draft, parts
from data_prep.products import mesh_files
from stormpsr_jax import procedure as command
from stormpsr_jax.recordings.procedure import load_procedure
from tests.support import glb
from tests.support.boxes import box, shell
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


PARTS = {
    "lid": box((0, 0, 30), (40, 40, 40)),
    "cup": shell((0, 0, 0), (40, 40, 30), 10),
    "peg": box((10, 10, 10), (30, 30, 30)),
    "foot": box((40, 10, 0), (50, 30, 10)),
}
COLOURS = {"lid": "#2030c0", "cup": "#c03020", "peg": "#20a030", "foot": "#808080"}


@pytest.fixture
def meshes(tmp_path):
    folder = tmp_path / "box"
    folder.mkdir()
    for name, mesh in PARTS.items():
        mesh.export(folder / f"{name}.obj")
    (folder / "poses.json").write_text(json.dumps({"colors": COLOURS}))
    return folder


def pictures(page):
    """Those of a page by what they show, as arrays (H, W, 3)."""
    found = re.findall(r'src="data:image/jpeg;base64,([^"]+)" alt="([^"]+)"', page)
    return [
        (alt, np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))).astype(int))
        for data, alt in found
    ]


def test_a_draft_has_parts_and_states_in_the_order_of_the_files_and_says_so(
    meshes, tmp_path, capsys
):
    out = tmp_path / "box.json"
    draft.main([f"--meshes={meshes}", f"--out={out}"])
    warning, said = capsys.readouterr().out.splitlines()
    assert warning.startswith("warning: the parts are built in the order of their files' names: ")
    assert said == f"{out}: a draft of 4 parts, 4 states"
    procedure = load_procedure(out)
    assert procedure.name == "box"
    assert procedure.components == ("cup", "foot", "lid", "peg")
    assert procedure.states.tolist() == np.tri(4, dtype=int).tolist()
    variant = procedure.variants["assembly"]
    assert variant.expected == (0, 3, 6, 9)
    assert variant.precedence == ()
    command.main(["check", str(out)])
    said = capsys.readouterr().out
    assert f"warning: {out}: draft: the parts are built in the order of" in said
    assert "is a draft: check what it says, then remove the key 'draft'" in said


def run(words, check):
    """As a process would."""
    del check
    assert words[:3] == [sys.executable, "-m", "data_prep.draft"]
    return SimpleNamespace(returncode=draft.main(words[3:]))


@pytest.mark.system
def test_a_page_shows_states_wrong_fittings_and_warnings(meshes, tmp_path, capsys, monkeypatch):
    """A draft that somebody has put in order, with another foot that looks the same."""
    PARTS["foot"].copy().apply_translation([-50, 0, 0]).export(meshes / "foot 2.obj")
    colours = {**COLOURS, "foot 2": COLOURS["foot"]}
    (meshes / "poses.json").write_text(json.dumps({"colors": colours}))
    out, page = tmp_path / "box.json", tmp_path / "box.html"
    draft.main([f"--meshes={meshes}", f"--out={out}"])
    names = ["cup", "peg", "lid", "foot", "foot 2"]
    out.write_text(json.dumps(json.loads(out.read_text()) | {"components": names}))
    capsys.readouterr()
    monkeypatch.setattr(subprocess, "run", run)
    command.main(["show", str(out), f"--meshes={meshes}", f"--page={page}"])
    warning, said = capsys.readouterr().out.splitlines()
    assert warning.startswith("warning: foot and foot 2 look the same")
    assert said == f"{page}: 5 parts, 5 states"
    text = page.read_text()
    assert text.index('id="warnings"') < text.index("foot and foot 2 look the same")
    shown = pictures(text)
    states = [image for alt, image in shown if alt.startswith("state ")]
    assert len(states) == 5
    assert sum(alt.endswith(", incorrect") for alt, _ in shown) == 5 * 6
    for number, image in enumerate(states):
        blue = image[..., 2] > image[..., :2].max(-1) + 40
        assert (blue.sum() > 50) == (number >= names.index("lid"))
    for name in names:
        right = next(image for alt, image in shown if alt == f"{name}, correct")
        wrong = [image for alt, image in shown if alt == f"{name}, incorrect"]
        assert min(np.abs(image - right).mean() for image in wrong) > 0.1
    assert "http" not in re.sub(r"base64,[^\"]+", "", text)
