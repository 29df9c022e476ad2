"""Files of meshes, read in a process with limits: a small one can ask for any memory and any time.

A GLB of 2 MB may show the same thousand triangles a hundred thousand times.
"""

import dataclasses
import importlib.util
import io
import os
import pickle
import re
import struct
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.products import glb_files, obj_files, three_mf
from data_prep.rendering.mesh import Mesh
from stormpsr_jax.base import installed
from stormpsr_jax.base.files import check_regular
from stormpsr_jax.media import limited

MAX_BYTES = 2**29  # of a file
MAX_FACES = 2_000_000  # of a file, and of a product
# What reading a file may take: bytes, so many and so many times its size (of a 3MF file, of what is
# packed in it), and seconds. OpenCASCADE takes 200 MB before it reads anything of a STEP file.
MEMORY, GROWTH = 2**30, 24
SECONDS, BYTES_OF_SECOND = 60, 2**22
STEP = ("step", "stp")
SUFFIXES = (".stl", ".obj", ".ply", ".glb", ".3mf", ".step", ".stp")
# Known formats that refer to other files or need a library of their own.
OTHER_SUFFIXES = (".gltf", ".off", ".dae", ".fbx", ".iges", ".igs", ".wrl")
# How far triangles may be from a curved surface: a share of an edge's length, and radians.
_FLAT, _TURN = 0.01, 0.3
_MILLIMETRES = 1000.0  # that a GLB of a STEP file is in metres
_ADVICE = "export the part again, as a plain triangle mesh"
_MAX_NAME = 200  # characters of a piece's name that are told


@dataclasses.dataclass(frozen=True)
class Piece:
    """An object of a file, or what is of one material in it, where the file places it.

    Attributes:
        name: of the object in the file; may be empty.
        faces: (F, 3), each with an area.
        colours: (F, 3) display colours in 0..1, NaN of a face that has none.
    """

    name: str
    vertices: np.ndarray
    faces: np.ndarray
    colours: np.ndarray
    number: int = 0


def check_file(path: Path) -> None:
    """Raises ValueError for a file of another format, and for what is too large or no file."""
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(
            f"{path}: {suffix} is not read; export it as STL, OBJ, PLY, GLB, 3MF or STEP"
        )
    module, extra = ("lib3mf", "3mf") if suffix == ".3mf" else ("cascadio", "step")
    if suffix[1:] in ("3mf", *STEP) and importlib.util.find_spec(module) is None:
        raise ValueError(
            f"{path}: reading a {extra.upper()} file needs {module}: {installed.extra(extra)}; or "
            "export it as STL, OBJ or GLB"
        )
    if (size := check_regular(path, "replace it").st_size) > MAX_BYTES:
        raise ValueError(
            f"{path}: has {size / 2**20:.0f} MiB, more than {MAX_BYTES // 2**20}; reduce the mesh"
        )


def read_all(paths: Sequence[Path]) -> list[list[Piece]]:
    """Returns what `read` returns of each file, from a process with limits.

    Raises:
        ValueError: as `read` says of the first one; also one that takes too much memory or time.
    """

    def unanswered(output: bytes) -> str | None:
        *lines, _ = output.split(b"\n")
        return None if len(lines) == len(paths) or any(lines) else str(paths[len(lines)])

    with tempfile.TemporaryDirectory() as folder:
        answers = limited.call(__name__, (paths, folder), unanswered, _ADVICE).decode()
        if answers.strip("\n"):
            raise ValueError(answers.strip("\n"))
        return [_loaded(f"{folder}/{number}.npz") for number in range(len(paths))]


def _loaded(path: str) -> list[Piece]:
    with np.load(path, allow_pickle=False) as arrays:
        known = zip(arrays["names"], arrays["numbers"], strict=True)
        return [
            Piece(str(name), arrays[f"v{i}"], arrays[f"f{i}"], arrays[f"c{i}"], int(number))
            for i, (name, number) in enumerate(known)
        ]


def read(path: Path) -> list[Piece]:
    """The pieces of one file; beside it only material libraries of an OBJ are opened.

    Raises:
        ValueError: it cannot be read, refers to another file, or has no triangle with an area.
        MemoryError: as it says.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from error
    kind = path.suffix.lower()[1:]
    if kind in STEP:
        data = _tessellated(path, data)
    materials: list[Any] | None = None
    names: list[str] = []
    options: dict[str, Any] = {"resolver": None}
    if kind in ("glb", *STEP):
        data, materials = glb_files.prepared(path, data)
    elif kind == "obj":
        data, names, options = obj_files.prepared(path, data)
    try:
        if kind == "3mf":
            pieces = [
                Piece(name, mesh.vertices, mesh.faces, mesh.colours, i)
                for i, (name, mesh) in enumerate(three_mf.objects(data))
            ]
        else:
            if kind == "stl":
                _check_stl(data)
            elif kind == "ply":
                _check_ply(data)
            read_as = kind if materials is None else "glb"
            scale = np.diag([_MILLIMETRES if kind in STEP else 1.0] * 3 + [1.0])
            pieces = list(_objects(data, read_as, scale, options, names, materials))
        pieces = [piece for piece in pieces if len(piece.faces)]
        solid = [_solid(piece) for piece in pieces]
    except MemoryError:
        raise
    except SystemError as error:  # of NumPy, where it gets no memory for something small
        raise MemoryError from error
    except Exception as error:  # whatever a parser may raise on a malformed file
        text = " ".join(f"{type(error).__name__}: {error}".split())[:120]
        named = path.suffix[1:].upper()
        raise ValueError(f"{path}: not a readable {named} mesh ({text})") from error
    if not pieces:
        raise ValueError(f"{path}: holds no triangles; export the part as a triangle mesh")
    count = sum(len(piece.faces) for piece in pieces)
    if count > MAX_FACES:
        raise ValueError(
            f"{path}: has {count:,} triangles, more than {MAX_FACES:,}; reduce the mesh (decimate) "
            "before exporting it"
        )
    if not any(len(piece.faces) for piece in solid):
        raise ValueError(f"{path}: all its {count} triangles are degenerate (without area)")
    return [piece for piece in solid if len(piece.faces)]


def _objects(
    data: bytes,
    kind: str,
    scale: np.ndarray,
    options: Mapping[str, Any],
    names: Sequence[str],
    materials: Sequence[Any] | None,
) -> Iterator[Piece]:
    """The pieces of a file as `prepared` returns it.

    Those of an OBJ with the names of its objects, of a GLB with its materials.
    """
    import trimesh  # here, as flags and --help do without it

    scene = trimesh.load_scene(io.BytesIO(data), file_type=kind, process=False, **options)
    numbers: dict[str, int] = {}
    for node in scene.graph.nodes_geometry:
        matrix, name = scene.graph[node]
        geometry = scene.geometry[name]
        if isinstance(geometry, trimesh.Trimesh) and len(geometry.faces):
            own = (
                _own_colours(geometry)
                if materials is None
                else glb_files.colours(geometry, materials)
            )
            colours = np.full((len(geometry.faces), 3), np.nan)
            if own is not None:
                colours[:] = own
            vertices, faces = np.array(geometry.vertices), np.array(geometry.faces)
            mesh = Mesh(vertices, faces, colours).moved(scale @ np.asarray(matrix))
            if names:  # the object's number comes first, perhaps with that of a material
                number = int(str(name).partition("_")[0])
                owner = names[number]
            else:
                owner = _owner(scene, node, geometry)
                number = numbers.setdefault(owner, len(numbers))
            yield Piece(owner, mesh.vertices, mesh.faces, mesh.colours, number)


def _owner(scene: Any, node: str, geometry: Any) -> str:
    """The node of a GLB that a node is of: trimesh makes one for each material, named at random.

    The file may have names like these, so the mesh has to be of several materials.
    """
    above = scene.graph.transforms.parents.get(node)
    if above is None or not geometry.metadata.get("from_gltf_primitive"):
        return str(node)
    of_material = re.fullmatch(rf"{re.escape(str(above))}_\w{{6}}", str(node))
    return str(above if of_material else node)


def _solid(piece: Piece) -> Piece:
    """The piece without triangles that have no area, and without vertices of no triangle.

    Raises:
        ValueError: a face is of a vertex that is not there, or nowhere.
    """
    if piece.faces.min() < 0 or piece.faces.max() >= len(piece.vertices):
        raise ValueError("a face of a vertex that is not there")
    corners = piece.vertices[piece.faces]
    if not np.isfinite(corners).all():
        raise ValueError("a face of a vertex whose place is no finite number")
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    solid = np.linalg.norm(normals, axis=1) > 0
    used, faces = np.unique(piece.faces[solid], return_inverse=True)
    return dataclasses.replace(
        piece,
        name=piece.name[:_MAX_NAME],
        vertices=piece.vertices[used],
        faces=faces.reshape(-1, 3),
        colours=piece.colours[solid],
    )


def _tessellated(path: Path, data: bytes) -> bytes:
    """A STEP file as a GLB in metres, with the axes of the file."""
    import cascadio  # here, as it is an extra of its own

    glb = cascadio.load(
        data, "step", tol_linear=_FLAT, tol_angular=_TURN, tol_relative=True, use_parallel=False
    )
    if not glb:
        raise ValueError(f"{path}: not a readable STEP file; export the part again, as AP214")
    return glb


def _check_stl(data: bytes) -> None:
    """Raises ValueError for a text that ends within a solid: trimesh leaves that one out."""
    if len(data) >= 84 and len(data) == 84 + 50 * struct.unpack_from("<80xI", data)[0]:
        return  # it is no text
    text = data.lower()
    if b"outer loop" in text[text.rfind(b"endsolid") :]:
        raise ValueError("ends within a solid")


def _check_ply(data: bytes) -> None:
    """Raises ValueError for a text that ends early: trimesh leaves out what is missing."""
    head, _, body = data.partition(b"end_header")
    counts = map(int, re.findall(rb"^element\s+\S+\s+(\d+)", head, re.MULTILINE))
    if b"format ascii" in head and len(body.split(b"\n")) - 1 < sum(counts):
        raise ValueError("ends early")


def _own_colours(geometry: Any) -> np.ndarray | None:
    """Display colours in 0..1, (3,) or (F, 3); None if the mesh has none. Textures are not read."""
    from trimesh.visual import ColorVisuals

    visual = geometry.visual
    if isinstance(visual, ColorVisuals):
        return None if visual.kind is None else visual.face_colors[:, :3] / 255
    given = getattr(visual.material, "kwargs", {})  # of a material library
    return None if "textured" in given or "kd" not in given else np.clip(given["kd"], 0, 1)


def _main() -> None:
    """Reads files into a folder, one after the other, and writes a line of what is wrong with each.

    The first with which anything is, is the last one.
    """
    paths, folder = pickle.load(sys.stdin.buffer)  # of who has started this process
    import trimesh  # noqa: F401 - before there are limits: it is not the file that takes this

    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no answer
    for number, path in enumerate(paths):
        answer = ""
        try:
            packed = path.suffix.lower() == ".3mf"
            size = three_mf.unpacked_bytes(path) if packed else path.stat().st_size
            limited.limit(MEMORY + GROWTH * size, SECONDS + size // BYTES_OF_SECOND)
            pieces = read(path)
            arrays: dict[str, Any] = {
                "names": np.array([piece.name for piece in pieces], np.str_),
                "numbers": np.array([piece.number for piece in pieces]),
            }
            for i, piece in enumerate(pieces):
                arrays[f"v{i}"], arrays[f"f{i}"] = piece.vertices, piece.faces
                arrays[f"c{i}"] = piece.colours
            np.savez(f"{folder}/{number}.npz", **arrays)
        except MemoryError:
            answer = f"{path}: reading it takes more memory than a file of its size may; {_ADVICE}"
        except (ValueError, OSError) as error:
            answer = str(error)
        print(" ".join(answer.splitlines()), file=answers, flush=True)
        if answer:
            break
    limited.end()


if __name__ == "__main__":
    _main()
