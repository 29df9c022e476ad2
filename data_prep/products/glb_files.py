"""GLB files: what is in them that trimesh does not read as it is, and how they are written.

Colours are linear in them, and display colours everywhere else (glTF 2.0, 3.9.2).
"""

import json
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np

from data_prep.rendering.mesh import Mesh

# Beginnings of extensions without which shapes and places are the same.
_LOOKS = ("KHR_materials_", "KHR_texture_", "EXT_texture_")
# trimesh takes bytes for all colours; what has a name of its own it leaves as it is.
_COLOURS, _KEPT = "COLOR_0", "_COLOR_0"


def prepared(data: bytes) -> tuple[bytes, list[Any]]:
    """A GLB file whose materials are named by their numbers, and these materials.

    ValueError: it refers to other files, needs what is not read, or is none.
    """
    magic, version, _, length, kind = struct.unpack_from("<4sII I4s", data)
    if magic != b"glTF" or kind != b"JSON":
        raise ValueError("no GLB header")
    content = json.loads(data[20 : 20 + length])
    for entry in (e for key in ("buffers", "images") for e in content.get(key, [])):
        if not entry.get("uri", "data:").startswith("data:"):
            raise ValueError("refers to another file; export it with everything embedded")
    for extension in content.get("extensionsRequired", []):
        if not extension.startswith(_LOOKS):
            raise ValueError(f"needs {extension}, which is not read; export it without")
    materials = [dict(material) for material in content.get("materials", [])]
    for number, material in enumerate(content.get("materials", [])):
        material["name"] = str(number)
    for attributes in (p["attributes"] for m in content.get("meshes", []) for p in m["primitives"]):
        if _COLOURS in attributes:
            attributes[_KEPT] = attributes.pop(_COLOURS)
    text = json.dumps(content).encode()
    text += b" " * (-len(text) % 4)
    whole = text + data[20 + length :]
    return struct.pack(
        "<4sIII4s", magic, version, 20 + len(whole), len(text), kind
    ) + whole, materials


def colours(geometry: Any, materials: Sequence[Any]) -> np.ndarray | None:
    """Display colours in 0..1, (3,) or (F, 3); None if a mesh has none. Textures are not read."""
    from trimesh.visual.color import linear_to_srgb  # here, as flags and --help do without it

    linear, material = None, getattr(geometry.visual, "material", None)
    if material is not None:
        how = materials[int(material.name)].get("pbrMetallicRoughness", {})
        if "baseColorTexture" in how:
            return None
        if "baseColorFactor" in how:
            linear = np.asarray(how["baseColorFactor"], np.float64)[:3]
    if (corners := geometry.vertex_attributes.get(_KEPT)) is not None:
        whole = np.iinfo(corners.dtype).max if corners.dtype.kind in "iu" else 1
        shown = (corners[:, :3] / whole)[geometry.faces].mean(axis=1)
        linear = shown if linear is None else shown * linear
    return None if linear is None else linear_to_srgb(linear.clip(0, 1))


def written(meshes: Sequence[Mesh]) -> bytes:
    """A GLB of meshes, each in display colours, or without any (NaN).

    Its coloured triangles have no corner in common: it would blur their colours.
    """
    import trimesh
    from trimesh.visual.color import srgb_to_linear

    scene = trimesh.Scene()
    for mesh in meshes:
        vertices, faces = mesh.vertices, mesh.faces
        vertex_data: dict[str, Any] = {}
        if not np.isnan(mesh.colours).any():
            vertices = vertices[faces].reshape(-1, 3)
            faces = np.arange(len(vertices)).reshape(-1, 3)
            linear = srgb_to_linear(mesh.colours)
            vertex_data = {_KEPT: np.repeat(linear, 3, axis=0).astype(np.float32)}
        scene.add_geometry(
            trimesh.Trimesh(vertices, faces, vertex_attributes=vertex_data, process=False)
        )

    def named(tree: dict) -> None:
        for attributes in (p["attributes"] for mesh in tree["meshes"] for p in mesh["primitives"]):
            if _KEPT in attributes:
                attributes[_COLOURS] = attributes.pop(_KEPT)

    return scene.export(file_type="glb", tree_postprocessor=named)
