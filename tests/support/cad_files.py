import json

import numpy as np
import trimesh

from data_prep.products import meshes as cad_meshes
from stormpsr_jax.recordings.procedure import Procedure
from tests.support import glb, toy
from tests.support.boxes import box

CONTENT = toy.content("base, front wheel, lid", "000 100 110 111")
PROCEDURE = Procedure.from_json(CONTENT)
PARTS = {
    "base.stl": box((0, 0, 0), (40, 30, 5)),
    "Front_wheel.obj": box((0, 0, 5), (10, 30, 15)),
    "2.glb": box((20, 0, 5), (40, 30, 15)),
}
COLOURS = {"base": "#ff0000", "front wheel": "#00ff00", "lid": [0, 0, 1]}


def write(folder):
    folder.mkdir()
    for name, mesh in PARTS.items():
        mesh.export(folder / name)
    (folder / "poses.json").write_text(json.dumps({"colors": COLOURS}))
    return folder


def product(folder, y_up=False):
    """What the commands make of a folder; parts without colours are grey."""
    inputs = cad_meshes.read_inputs(folder, PROCEDURE)
    grey = [np.full(3, 0.5)] * 3
    return cad_meshes.load_product(inputs, PROCEDURE, y_up=y_up, drawn=grey)


def needs(folder, extension):
    """Says of the lid's GLB that it needs an extension."""

    def change(content):
        content["extensionsUsed"] = content["extensionsRequired"] = [extension]

    glb.change((folder / "2.glb").read_bytes(), change, folder / "2.glb")


def as_text(name):
    return trimesh.exchange.stl.export_stl_ascii(PARTS[name])


def _with_a_hole(path):
    """Writes a box of which one corner of one triangle is nowhere."""
    corners = PARTS["base.stl"].triangles.reshape(-1, 3).copy()
    corners[0] = np.nan
    trimesh.Trimesh(corners, np.arange(36).reshape(-1, 3), process=False).export(path)


def _cut_ply(path):
    path.with_suffix(".stl").unlink()
    PARTS["base.stl"].export(path, encoding="ascii")
    path.write_bytes(path.read_bytes()[:-30])


def _flat(path):
    trimesh.Trimesh([[0, 0, 0], [1, 0, 0], [2, 0, 0]], [[0, 1, 2]], process=False).export(path)


def _other_file(folder, key):
    def change(content):
        content[key] = [{"uri": "../secret.bin", "byteLength": 8}]

    glb.change((folder / "2.glb").read_bytes(), change, folder / "2.glb")


def _obj(text):
    return lambda m: (m / "Front_wheel.obj").write_text(text)


def _poses(content):
    text = content if isinstance(content, str) else json.dumps(content)
    return lambda m: (m / "poses.json").write_text(text)


_TRIANGLE = "v 0 0 0\nv 1 0 0\nv 0 1 0\n"
_NO_OBJ = "Front_wheel.obj: not a readable OBJ mesh (ValueError: "
_NO_GLB = "2.glb: not a readable GLB mesh (ValueError: "
# By name: what is done to the folder, and what is said.
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
    "no faces": (_obj(_TRIANGLE), "Front_wheel.obj: "),
    "bad index": (_obj(f"{_TRIANGLE}f 1 2 9\n"), "Front_wheel.obj: "),
    "first vertex 0": (
        _obj(f"{_TRIANGLE}f 0 1 2\n"),
        f"{_NO_OBJ}line 4: numbers of vertices are not from 1 on; export it as GLB",
    ),
    "vertices that count back": (
        _obj(f"{_TRIANGLE}f -3//1 -2//1 -1//1\n"),
        f"{_NO_OBJ}line 4: numbers of vertices are not from 1 on",
    ),
    "not finite": (_obj("v nan 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n"), "Front_wheel.obj: "),
    "a part of it nowhere": (
        lambda m: _with_a_hole(m / "base.stl"),
        "base.stl: not a readable STL mesh (ValueError: a face of a vertex whose place is no",
    ),
    "cut off": (
        lambda m: (m / "base.stl").write_text((2 * as_text("base.stl"))[:-500]),
        "base.stl: not a readable STL mesh (ValueError: ends within a solid",
    ),
    "cut ply": (
        lambda m: _cut_ply(m / "base.ply"),
        "base.ply: not a readable PLY mesh (ValueError: ends early)",
    ),
    "draco": (
        lambda m: needs(m, "KHR_draco_mesh_compression"),
        f"{_NO_GLB}needs KHR_draco_mesh_compression, which is not read; export it without",
    ),
    "buffer": (lambda m: _other_file(m, "buffers"), f"{_NO_GLB}refers to another file"),
    "image": (lambda m: _other_file(m, "images"), f"{_NO_GLB}refers to another file"),
    "degenerate": (lambda m: _flat(m / "base.stl"), "base.stl: all its 1 triangles are degenerate"),
    "poses json": (_poses("{"), "poses.json: line 1: not JSON"),
    "poses list": (_poses([]), "poses.json: is not an object"),
    "poses name": (_poses({"roof": 1}), "poses.json: 'roof' is not a component"),
    "pose": (_poses({"lid": [1]}), "json: lid: is not a 4 × 4"),
    "flat pose": (_poses({"lid": np.diag([1, 1, 0, 1]).tolist()}), "lid: the matrix makes the pa"),
    "quaternion": (_poses({"lid": {"quaternion": [0, 0, 0, 0]}}), "json: lid: give"),
    "colour": (_poses({"colors": {"lid": "red"}}), "json: colors: lid: is neither"),
    "wrong": (_poses({"wrong": []}), "wrong: is not an object with components as keys"),
    "wrong name": (_poses({"wrong": {"roof": [{}]}}), "'roof' is not a component of procedure"),
    "no wrong poses": (_poses({"wrong": {"lid": []}}), "wrong: lid: is not a list of poses"),
    "wrong pose": (_poses({"wrong": {"lid": [{}, [1, 2]]}}), "wrong: lid[1]: is not a 4 × 4"),
}
