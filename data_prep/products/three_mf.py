"""3MF files as meshes in millimetres, read with lib3mf of the consortium behind the format."""

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.rendering.mesh import Mesh
from stormpsr_jax.base import memory

# A file of little packed text may become so much, however little it is.
FREE_BYTES = 2**26
# Of a unit of the file, by the library's numbers: µm, mm, cm, inch, foot, m.
_MILLIMETRES = (0.001, 1.0, 10.0, 25.4, 304.8, 1000.0)


def unpacked_bytes(path: Path) -> int:
    """How many bytes there are in the zip file that a 3MF file is.

    Raises:
        ValueError: it is none, or that is too many for a file of its size.
    """
    try:
        with zipfile.ZipFile(path) as file:
            unpacked = sum(entry.file_size for entry in file.infolist())
    except (OSError, ValueError, RuntimeError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: not a readable 3MF file ({error})") from error
    memory.check_growth(path.stat().st_size, unpacked, FREE_BYTES, str(path))
    return unpacked


def objects(data: bytes) -> Iterator[tuple[str, Mesh]]:
    """Reads names and meshes of what is to be built, object by object, where the file places them.

    Colours are display ones, of base materials and colour groups, NaN of a face without one;
    textures are not read.

    Raises:
        lib3mf.ELib3MFException: it is no 3MF file, or a damaged one.
    """
    import lib3mf  # here, as it is an extra of its own

    model = lib3mf.Wrapper().CreateModel()
    model.QueryReader("3mf").ReadFromBuffer(data)
    scale = np.diag([_MILLIMETRES[model.GetUnit()]] * 3 + [1.0])
    known: dict[int, Mesh] = {}
    items = model.GetBuildItems()
    while items.MoveNext():
        item = items.GetCurrent()
        pose = scale @ _matrix(item.GetObjectTransform())
        yield from _placed(model, item.GetObjectResource(), pose, known)


def _placed(model: Any, thing: Any, pose: np.ndarray, known: dict) -> Iterator[tuple[str, Mesh]]:
    """The meshes of an object and of those that it is made of."""
    number = thing.GetResourceID()
    if thing.IsMeshObject():
        if number not in known:
            known[number] = _mesh(model, model.GetMeshObjectByID(number))
        yield thing.GetName(), known[number].moved(pose)
    elif thing.IsComponentsObject():
        group = model.GetComponentsObjectByID(number)
        for i in range(group.GetComponentCount()):
            part = group.GetComponent(i)
            inner = pose @ _matrix(part.GetTransform())
            yield from _placed(model, part.GetObjectResource(), inner, known)


def _mesh(model: Any, mesh: Any) -> Mesh:
    # As one buffer each: to look at every vertex in Python takes ten times as long.
    vertices = np.frombuffer(b"".join(mesh.GetVertices()), np.float32).reshape(-1, 3)
    faces = np.frombuffer(b"".join(mesh.GetTriangleIndices()), np.uint32).reshape(-1, 3)
    properties = mesh.GetAllTriangleProperties()
    colours = np.full((len(faces), 3), np.nan)
    for number in {each.ResourceID for each in properties} - {0}:
        table = _colours(model, number)
        for i, each in enumerate(properties):
            if each.ResourceID == number:
                corners = [table[p] for p in each.PropertyIDs if p in table]
                colours[i] = np.mean(corners, axis=0) if corners else np.nan
    return Mesh(vertices.astype(np.float64), faces.astype(np.int64), colours)


def _colours(model: Any, number: int) -> dict[int, list[float]]:
    """The display colours of a group of properties; none of a group of anything else."""
    import lib3mf

    kind = model.GetPropertyTypeByID(number)
    if kind == lib3mf.PropertyType.BaseMaterial:
        group = model.GetBaseMaterialGroupByID(number)
        look = group.GetDisplayColor
    elif kind == lib3mf.PropertyType.Colors:
        group = model.GetColorGroupByID(number)
        look = group.GetColor
    else:
        return {}
    found = {}
    for i in group.GetAllPropertyIDs():
        colour = look(i)
        found[i] = [colour.Red / 255, colour.Green / 255, colour.Blue / 255]
    return found


def _matrix(transform: Any) -> np.ndarray:
    """(4, 4) of a transformation, which 3MF writes for rows: three axes and the origin."""
    matrix = np.eye(4)
    matrix[:3] = np.array(transform.Fields).T
    return matrix
