"""A product as a stranger brings it: five boxes and cylinders as OBJ, assembled, in millimetres."""

import json
from pathlib import Path
from typing import Any

import trimesh

from tests.support import toy

STATES = "00000 10000 11000 10010 11010 11100 11110 11111"
CONTENT = toy.content("plate, post, lamp, box, lid", STATES, name="lantern", variant="assembly")
CONTENT["variants"]["assembly"]["precedence"] = [[0, 3], [3, 6], [0, 9], [6, 12], [9, 12]]


def _box(*bounds: tuple[float, float, float]) -> trimesh.Trimesh:
    return trimesh.creation.box(bounds=bounds)


def _cylinder(radius: float, x: float, bottom: float, top: float) -> trimesh.Trimesh:
    mesh = trimesh.creation.cylinder(radius, top - bottom, sections=16)
    mesh.apply_translation((x, 0, (bottom + top) / 2))
    return mesh


def write(folder: Path, **poses: Any) -> tuple[Path, Path]:
    """Writes meshes, procedure and poses.json; returns the meshes' folder and the procedure."""
    meshes, procedure = folder / "meshes", folder / "lantern.json"
    meshes.mkdir(parents=True)
    for name, mesh in {
        "plate": _box((-60, -40, 0), (60, 40, 8)),
        "post": _cylinder(8, -35, 8, 70),
        "lamp": _cylinder(22, -35, 70, 95),
        "box": _box((0, -30, 8), (50, 30, 40)),
        "lid": _box((-5, -34, 40), (55, 34, 46)),
    }.items():
        mesh.export(meshes / f"{name}.obj")
    if poses:
        (meshes / "poses.json").write_text(json.dumps(poses))
    procedure.write_text(json.dumps(CONTENT))
    return meshes, procedure
