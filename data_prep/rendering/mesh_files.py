"""Files of meshes, read in a process with limits: a small one can ask for any memory and any time.

A GLB of 2 MB may show the same thousand triangles a hundred thousand times.
"""

import io
import json
import os
import pickle
import struct
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.rendering.product import Mesh, join
from stormpsr_jax.media import limited

# What reading a file may take: an OBJ of 50 MB takes 500 MiB and 3 s of a processor.
MEMORY, GROWTH = 2**28, 24  # bytes: so many, and so many times its size
SECONDS, BYTES_OF_SECOND = 3, 2**22
# Those of STEP files, whose reader OpenCASCADE takes 200 MB before it reads anything.
STEP = ("step", "stp")
STEP_MEMORY, STEP_SECONDS = 2**30, 60
# How far triangles may be from a curved surface: a share of an edge's length, and radians.
_FLAT, _TURN = 0.01, 0.3
_MILLIMETRES = 1000.0  # that a GLB of a STEP file is in metres
_ADVICE = "export the part again, as a plain triangle mesh"
_LENGTH = struct.Struct("<Q")  # of an answer, which stands in front of it
_ERROR = b"error: "

Request = tuple[Path, np.ndarray | None, np.ndarray]  # as of `load`


def load_all(requests: Sequence[Request]) -> list[Mesh]:
    """Returns what `load` returns of each, from a process with limits.

    Raises:
        ValueError: as `load` says of the first one; also one that takes too much memory or time.
    """
    output = limited.call(
        __name__, requests, lambda output: str(requests[len(_answers(output))][0]), _ADVICE
    )
    meshes = []
    for answer in _answers(output):
        if answer.startswith(_ERROR):
            raise ValueError(answer.removeprefix(_ERROR).decode())
        with np.load(io.BytesIO(answer), allow_pickle=False) as arrays:
            meshes.append(Mesh(arrays["vertices"], arrays["faces"], arrays["colours"]))
    return meshes


def _answers(output: bytes) -> list[bytes]:
    """The answers that are whole."""
    found, at = [], 0
    while at + _LENGTH.size <= len(output):
        (length,) = _LENGTH.unpack_from(output, at)
        at += _LENGTH.size
        if at + length <= len(output):
            found.append(output[at : at + length])
        at += length
    return found


def load(path: Path, colour: np.ndarray | None, drawn: np.ndarray) -> Mesh:
    """The mesh of one file, from its bytes alone: no other file is ever opened.

    Args:
        path: of the file.
        colour: display colour (3,) in 0..1; None if the file decides.
        drawn: the display colour if that has none.

    Raises:
        ValueError: it cannot be read, refers to another file, or has no triangle with an area.
        MemoryError: as it says.
    """
    import trimesh  # here, as flags and --help do without it

    kind = path.suffix.lower()[1:]
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from error
    if step := kind in STEP:
        data, kind = _tessellated(path, data), "glb"
    elif kind == "glb":
        _check_glb(path, data)
    scale = np.diag([_MILLIMETRES] * 3 + [1.0]) if step else np.eye(4)
    options: dict[str, Any] = {"skip_materials": True} if kind == "obj" else {}
    try:
        scene = trimesh.load_scene(
            io.BytesIO(data), file_type=kind, resolver=None, process=False, **options
        )
        pieces = []
        for node in scene.graph.nodes_geometry:
            matrix, name = scene.graph[node]
            geometry = scene.geometry[name]
            if isinstance(geometry, trimesh.Trimesh) and len(geometry.faces):
                display = colour if colour is not None else _own_colours(geometry)
                display = np.broadcast_to(
                    drawn if display is None else display, (len(geometry.faces), 3)
                )
                # Rendering is linear; pictures are its square root.
                piece = Mesh(
                    np.array(geometry.vertices, np.float64),
                    np.array(geometry.faces, np.int64),
                    np.square(display, dtype=np.float64),
                )
                pieces.append(piece.moved(scale @ np.asarray(matrix)))
    except MemoryError:
        raise
    except Exception as error:  # whatever a parser may raise on a malformed file
        text = " ".join(f"{type(error).__name__}: {error}".split())[:120]
        named = path.suffix[1:].upper()
        raise ValueError(f"{path}: not a readable {named} mesh ({text})") from error
    if not pieces:
        raise ValueError(f"{path}: holds no triangles; export the part as a triangle mesh")
    mesh = join(pieces)
    corners = mesh.vertices[mesh.faces]
    areas = np.linalg.norm(
        np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1
    )
    solid = areas > 0  # NaN is not
    if not solid.any():
        raise ValueError(f"{path}: all its {len(areas)} triangles are degenerate (without area)")
    faces = mesh.faces[solid]
    used, faces = np.unique(faces, return_inverse=True)
    return Mesh(mesh.vertices[used], faces.reshape(-1, 3), mesh.colours[solid])


def _tessellated(path: Path, data: bytes) -> bytes:
    """A STEP file as a GLB in metres, with the axes of the file."""
    import cascadio  # here, as it is an extra of its own

    glb = cascadio.load(
        data, "step", tol_linear=_FLAT, tol_angular=_TURN, tol_relative=True, use_parallel=False
    )
    if not glb:
        raise ValueError(f"{path}: not a readable STEP file; export the part again, as AP214")
    return glb


def _check_glb(path: Path, data: bytes) -> None:
    """Refuses a GLB that refers to other files."""
    try:
        magic, _, _, length, kind = struct.unpack_from("<4sII I4s", data)
        if magic != b"glTF" or kind != b"JSON":
            raise ValueError("no GLB header")
        content = json.loads(data[20 : 20 + length])
        entries = [e for key in ("buffers", "images") for e in content.get(key, [])]
        uris = [e["uri"] for e in entries if "uri" in e]
    except (struct.error, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path}: not a readable GLB mesh ({error})") from error
    for uri in uris:
        if not str(uri).startswith("data:"):
            raise ValueError(
                f"{path}: refers to another file ({str(uri)[:60]!r}); export it with everything "
                "embedded"
            )


def _own_colours(geometry: Any) -> np.ndarray | None:
    """Display colours in 0..1, (3,) or (F, 3); None if the mesh has none. Textures are not read."""
    from trimesh.visual import ColorVisuals
    from trimesh.visual.material import PBRMaterial

    visual = geometry.visual
    if isinstance(visual, ColorVisuals):
        return None if visual.kind is None else visual.face_colors[:, :3] / 255
    material = getattr(visual, "material", None)
    if not isinstance(material, PBRMaterial) or material.baseColorFactor is None:
        return None
    return None if material.baseColorTexture is not None else material.main_color[:3] / 255


def _main() -> None:
    """Answers with the mesh of each file, up to the first one that cannot be read."""
    requests: Sequence[Request] = pickle.load(sys.stdin.buffer)  # of who has started this process
    import trimesh  # noqa: F401 - before there are limits: it is not the file that takes this

    # What a library prints is no answer.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    for path, colour, drawn in requests:
        answer = io.BytesIO()
        try:
            size = path.stat().st_size
            step = path.suffix.lower()[1:] in STEP
            limited.limit(
                (STEP_MEMORY if step else MEMORY) + GROWTH * size,
                (STEP_SECONDS if step else SECONDS) + size // BYTES_OF_SECOND,
            )
            mesh = load(path, colour, drawn)
            np.savez(answer, vertices=mesh.vertices, faces=mesh.faces, colours=mesh.colours)
        except MemoryError:
            what = "reading it takes more memory than a file of its size may"
            answer = io.BytesIO(_ERROR + f"{path}: {what}; {_ADVICE}".encode())
        except ValueError as error:
            answer = io.BytesIO(_ERROR + str(error).encode())
        answers.write(_LENGTH.pack(len(answer.getvalue())) + answer.getvalue())
        answers.flush()
        if answer.getvalue().startswith(_ERROR):
            return


if __name__ == "__main__":
    _main()
