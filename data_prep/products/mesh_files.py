"""Files of meshes, read by trimesh, with the colours and names that it loses of them."""

import dataclasses
import io
import re
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.products import glb_files
from data_prep.rendering.mesh import Mesh

_LIBRARY = re.compile(rb"^[ \t]*mtllib[ \t]+(.+?)[ \t\r]*$", re.MULTILINE)
_NOT_FROM_1 = re.compile(rb"^f[ \t][^\n]*?(?<=[ \t])(?:0|-\d+)(?=[/\s]|$)", re.MULTILINE)
_COLOURED = re.compile(rb"^v(?:[ \t]+[^\s#]+){6}", re.MULTILINE)  # x y z r g b
_TEXTURE = re.compile(rb"^[ \t]*map_kd\b", re.MULTILINE | re.IGNORECASE)


def library(path: Path, data: bytes) -> tuple[str, bytes | None]:
    """The name of the material library, "" without one, and its content if beside the file."""
    match = _LIBRARY.search(data)
    name = re.split(r"[/\\]", match[1].decode(errors="replace"))[-1] if match else ""
    file = path.parent / name
    return name, file.read_bytes() if name and file.is_file() else None


def prepared(path: Path, data: bytes) -> tuple[bytes, list[str], dict[str, Any]]:
    """An OBJ file with numbers in place of the names of its objects, which trimesh joins to others.

    Returns:
        its bytes; the names by number, the first of which is of what is before all objects; and how
        trimesh is to read it. ValueError: vertices are not numbered from 1, which it does not
        notice.
    """
    if other := _NOT_FROM_1.search(data):
        line = data.count(b"\n", 0, other.start()) + 1
        raise ValueError(f"line {line}: numbers of vertices are not from 1 on; export it as GLB")
    _, materials = library(path, data)
    names = [""]
    of_group: dict[bytes, int] = {}
    # Where nothing is an object, groups are; one may be gone back to.
    key = b"o" if re.search(rb"^o[ \t]", data, re.MULTILINE) else b"g"

    def number(match: re.Match) -> bytes:
        name = match[1].strip()
        if key == b"o" or name not in of_group:
            of_group[name] = len(names)
            names.append(name.decode(errors="replace"))
        return b"o %d" % of_group[name]

    data = re.sub(rb"^%s[ \t]+(.*)$" % key, number, _LIBRARY.sub(b"", data), flags=re.MULTILINE)
    options = {
        "split_objects": True,
        # trimesh has Kd of a material with a texture too, which says nothing.
        "resolver": {"all": _TEXTURE.sub(b"textured", materials or b"")},
        "skip_materials": _COLOURED.search(data) is not None,  # what is finer counts
    }
    return b"mtllib all\no 0\n" + data, names, options


MAX_FACES = 2_000_000  # of a file, and of a product
SUFFIXES = (".stl", ".obj", ".ply", ".glb", ".3mf", ".step", ".stp")
# Known formats that refer to other files or need a library of their own.
OTHER_SUFFIXES = (".gltf", ".off", ".dae", ".fbx", ".iges", ".igs", ".wrl")
# What trimesh reads these with.
_LIBRARIES = {".3mf": ("lxml", "networkx"), ".step": ("cascadio",), ".stp": ("cascadio",)}
# How far triangles may be from a curved surface: a share of an edge's length, and radians.
_FLAT, _TURN = 0.01, 0.3
_MAX_NAME = 200  # characters of a piece's name that are told


@dataclasses.dataclass(frozen=True)
class Piece:
    """An object of a file, or what is of one material in it, where the file places it.

    Attributes:
        name: of the object in the file; may be empty.
        number: of the object in the file.
        mesh: in display colours, NaN of a face that has none; each face has an area.
    """

    name: str
    number: int
    mesh: Mesh


def check_file(path: Path) -> None:
    """Raises ValueError for a file of another format, or one that takes what is not installed."""
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(
            f"{path}: {suffix} is not read; export it as STL, OBJ, PLY, GLB, 3MF or STEP"
        )
    if missing := [name for name in _LIBRARIES.get(suffix, ()) if not find_spec(name)]:
        raise ValueError(
            f"{path}: reading it takes {' and '.join(missing)}: pip install {' '.join(missing)}; "
            "or export it as STL, OBJ or GLB"
        )


def read(path: Path) -> list[Piece]:
    """The pieces of one file; beside it only the material library of an OBJ is opened.

    ValueError: it cannot be read, refers to another file, or has no triangle with an area.
    """
    kind = path.suffix[1:].upper()
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from error
    try:
        pieces = list(_objects(path, data))
        solid = [dataclasses.replace(piece, mesh=_solid(piece.mesh)) for piece in pieces]
    except Exception as error:  # whatever a parser may raise on a malformed file
        text = " ".join(f"{type(error).__name__}: {error}".split())[:120]
        raise ValueError(f"{path}: not a readable {kind} mesh ({text})") from error
    if not pieces:
        raise ValueError(f"{path}: holds no triangles; export the part as a triangle mesh")
    count = sum(len(piece.mesh.faces) for piece in pieces)
    if count > MAX_FACES:
        raise ValueError(
            f"{path}: has {count:,} triangles, more than {MAX_FACES:,}; reduce the mesh (decimate) "
            "before exporting it"
        )
    if not (found := [piece for piece in solid if len(piece.mesh.faces)]):
        raise ValueError(f"{path}: all its {count} triangles are degenerate (without area)")
    return found


def _objects(path: Path, data: bytes) -> Iterator[Piece]:
    """The pieces of a file as they are in it, in millimetres if it says in which unit they are."""
    import trimesh  # here, as flags and --help do without it

    kind = path.suffix.lower()[1:]
    unit: str | None = None
    names: list[str] = []
    materials: list[Any] | None = None
    options: dict[str, Any] = {"resolver": None}
    if kind in ("step", "stp"):
        data, kind, unit = _tessellated(data), "glb", "meters"
    if kind == "glb":
        data, materials = glb_files.prepared(data)
    elif kind == "obj":
        data, names, options = prepared(path, data)
    else:
        _check_whole(kind, data)
    scene = trimesh.load_scene(io.BytesIO(data), file_type=kind, process=False, **options)
    if kind == "3mf":
        unit = scene.units
    to_mm = trimesh.units.unit_conversion(unit, "millimeters") if unit else 1.0
    numbers: dict[str, int] = {}
    for node in scene.graph.nodes_geometry:
        matrix, name = scene.graph[node]
        geometry = scene.geometry[name]
        if not isinstance(geometry, trimesh.Trimesh) or not len(geometry.faces):
            continue
        colours = np.full((len(geometry.faces), 3), np.nan)
        if (own := _colours(geometry, materials)) is not None:
            colours[:] = own
        if names:  # the object's number comes first, perhaps with that of a material
            number = int(str(name).partition("_")[0])
            owner = names[number]
        else:
            owner = _owner(scene, node, geometry)
            number = numbers.setdefault(owner, len(numbers))
        mesh = Mesh(np.array(geometry.vertices), np.array(geometry.faces), colours)
        placed = mesh.moved(np.diag([to_mm] * 3 + [1.0]) @ matrix)
        yield Piece(owner[:_MAX_NAME], number, placed)


def _tessellated(data: bytes) -> bytes:
    """A STEP file as a GLB in metres, with the axes of the file."""
    import cascadio  # here, as not everybody has it

    glb = cascadio.load(
        data, "step", tol_linear=_FLAT, tol_angular=_TURN, tol_relative=True, use_parallel=False
    )
    if not glb:
        raise ValueError("damaged, or no STEP file; export it again, as AP214")
    return glb


def _check_whole(kind: str, data: bytes) -> None:
    """Raises ValueError for a text that ends early: trimesh leaves out what is missing."""
    if kind == "stl" and b"outer loop" in data.lower().rpartition(b"endsolid")[2]:
        raise ValueError("ends within a solid")
    head, _, body = data.partition(b"end_header")
    if kind == "ply" and b"format ascii" in head:
        counts = map(int, re.findall(rb"^element\s+\S+\s+(\d+)", head, re.MULTILINE))
        if len(body.strip().splitlines()) < sum(counts):
            raise ValueError("ends early")


def _colours(geometry: Any, materials: Sequence[Any] | None) -> np.ndarray | None:
    """Display colours in 0..1, (3,) or (F, 3); None if the mesh has none. Textures are not read."""
    from trimesh.visual import ColorVisuals

    visual = geometry.visual
    if materials is not None:
        return glb_files.colours(geometry, materials)
    if isinstance(visual, ColorVisuals):
        return None if visual.kind is None else visual.face_colors[:, :3] / 255
    given = getattr(visual.material, "kwargs", {})  # of a material library
    return None if "textured" in given or "kd" not in given else np.clip(given["kd"], 0, 1)


def _owner(scene: Any, node: str, geometry: Any) -> str:
    """The node of a GLB that a node is of: trimesh makes one for each material, named at random."""
    above, name = str(scene.graph.transforms.parents.get(node)), str(node)
    # The file may have such names too, so the mesh has to be of several materials.
    several = geometry.metadata.get("from_gltf_primitive")
    return above if several and re.fullmatch(rf"{re.escape(above)}_\w{{6}}", name) else name


def _solid(mesh: Mesh) -> Mesh:
    if mesh.faces.min() < 0 or mesh.faces.max() >= len(mesh.vertices):
        raise ValueError("a face of a vertex that is not there")
    corners = mesh.vertices[mesh.faces]
    if not np.isfinite(corners).all():
        raise ValueError("a face of a vertex whose place is no finite number")
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    solid = np.linalg.norm(normals, axis=1) > 0
    used, faces = np.unique(mesh.faces[solid], return_inverse=True)
    return Mesh(mesh.vertices[used], faces.reshape(-1, 3), mesh.colours[solid])
