"""Reads the part meshes of a product: one self-contained file per component, with its pose."""

import dataclasses
import hashlib
import json
import os
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.products import mesh_files
from data_prep.products.mesh_files import MAX_FACES, OTHER_SUFFIXES, SUFFIXES
from data_prep.products.product import Part, Product
from data_prep.products.wrong_poses import is_visible
from data_prep.rendering.mesh import Mesh, affine, join
from stormpsr_jax.base.errors import gathering, raise_all
from stormpsr_jax.base.files import check_name, read_json
from stormpsr_jax.recordings.procedure import Procedure

_NEAR = 2e-3  # of a mesh's size: so near are distances of one mesh that was exported twice
_HAND = 1e-4  # by which `_hand` of a mirrored mesh differs; of one exported twice, by a hundredth
_COLOUR = 0.08  # of display values: mean colours so close are one


def groups(meshes: Sequence[Mesh], coloured: Sequence[bool]) -> list[list[int]]:
    """Numbers of the meshes that look the same, in groups of two or more.

    `coloured`: whether each has colours, which are display ones; those without are of one.
    """
    all_groups: list[list[int]] = []
    for k, mesh in enumerate(meshes):
        for group in all_groups:
            first = group[0]
            same = coloured[k] == coloured[first] and congruent(mesh, meshes[first])
            if same and (not coloured[k] or _same_colour(mesh, meshes[first])):
                group.append(k)
                break
        else:
            all_groups.append([k])
    return [group for group in all_groups if len(group) > 1]


def congruent(a: Mesh, b: Mesh) -> bool:
    """Whether one mesh is the other one, turned and moved, but not mirrored.

    Their triangles have the same areas, and corners as far from the middle of the surface.
    """
    if len(a.faces) != len(b.faces):
        return False
    near = _NEAR * float(np.linalg.norm(np.ptp(a.vertices, axis=0)))
    measured = _measured(a), _measured(b)
    areas = [np.sqrt(np.sort(each)) for each, _ in measured]
    radii = [np.sort(np.linalg.norm(corners, axis=2), axis=None) for _, corners in measured]
    hands = [_hand(areas, corners / radii[0][-1]) for areas, corners in measured]
    return bool(
        np.abs(areas[0] - areas[1]).max() < near
        and np.abs(radii[0] - radii[1]).max() < near
        and abs(hands[0] - hands[1]) < _HAND
    )


def _measured(mesh: Mesh) -> tuple[np.ndarray, np.ndarray]:
    """Areas (F,) of triangles, and their corners (F, 3, 3) seen from the surface's middle."""
    corners = mesh.vertices[mesh.faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    areas = np.linalg.norm(normals, axis=1) / 2
    return areas, corners - np.average(corners.mean(axis=1), axis=0, weights=areas)


def _hand(areas: np.ndarray, corners: np.ndarray) -> float:
    """In −1…1, the volume of three vectors that turn with a mesh; a mirrored one's is negative."""
    points, weights = corners.reshape(-1, 3), np.repeat(areas / areas.sum(), 3)[:, None]
    spread = points.T @ (weights * points)
    skew = np.sum(weights * points * np.square(points).sum(axis=1, keepdims=True), axis=0)
    vectors = np.array([skew, spread @ skew, spread @ spread @ skew])
    # Of a symmetric mesh they are rounding errors.
    return float(np.linalg.det(vectors) / (np.linalg.norm(vectors, axis=1).prod() + 1e-12))


def _same_colour(a: Mesh, b: Mesh) -> bool:
    means = [np.average(m.colours, axis=0, weights=_measured(m)[0]) for m in (a, b)]
    return bool(np.abs(means[0] - means[1]).max() < _COLOUR)


RADIUS = 2.0  # half the diagonal of a complete product, in the units of the scene (about 5 cm)
POSES = "poses.json"
COLOURS, WRONG = "colors", "wrong"  # keys of poses.json; the others are components
_Y_TO_Z = np.array([[1.0, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]])
_NO_BOARD = Mesh(np.zeros((0, 3)), np.zeros((0, 3), int), np.zeros((0, 3)))


def load_product(
    directory: str | Path,
    procedure: Procedure,
    drawn: Sequence[np.ndarray],
    poses_file: str | Path | None = None,
    y_up: bool = False,
) -> tuple[Product, str]:
    """Puts the product of a folder of meshes on the table, scaled to RADIUS, over the origin.

    Args:
        drawn: K display colours (3,), for components that have none.
        poses_file: of poses, colours and wrong poses; None is poses.json in the folder, if any.
        y_up: whether y of the files points up, which is z in the product.

    Returns:
        The product, and a checksum of the meshes, their colours and their poses.

    Raises:
        ValueError: no such folder; or all of these: components without a mesh or with several,
            meshes of no component or of another format, and mistakes in poses.json; or a mesh
            cannot be read, is empty or flat, refers to other files, or has too many triangles.
    """
    directory, errors = Path(directory), list[str]()
    paths = _find_meshes(directory, procedure, errors)
    content: Any = {}
    poses_file, given = Path(poses_file or directory / POSES), poses_file
    with gathering(errors):
        if given or os.path.lexists(poses_file):
            content = read_json(poses_file)
        placed, colours, wrong = _read_poses(poses_file, content, procedure)
    raise_all(errors)
    up = _Y_TO_Z if y_up else np.eye(4)
    files = [paths[k] for k in range(procedure.num_components)]
    poses = [up @ placed.get(name, np.eye(4)) for name in procedure.components]
    meshes = []
    coloured = []
    for path, pose, name in zip(files, poses, procedure.components, strict=True):
        mesh = join([piece.mesh for piece in mesh_files.read(path)])
        if (own := colours.get(name)) is not None:
            mesh = dataclasses.replace(mesh, colours=np.tile(own, (len(mesh.faces), 1)))
        mesh = mesh.moved(pose)
        if mesh.volume() < 0:
            mesh = dataclasses.replace(mesh, faces=mesh.faces[:, ::-1])
        if not np.isfinite(mesh.vertices).all() or np.abs(mesh.vertices).max() > 1e9:
            raise ValueError(f"{path}: has coordinates that are no finite numbers below 1e9")
        meshes.append(mesh)
        coloured.append(not np.isnan(mesh.colours).any())
        if (faces := sum(len(m.faces) for m in meshes)) > MAX_FACES:
            raise ValueError(
                f"{path}: with it the product has {faces:,} triangles, more than {MAX_FACES:,}; "
                "reduce the meshes (decimate) before exporting them"
            )
    meshes = _painted(meshes, coloured, drawn)
    corners = np.concatenate([m.vertices for m in meshes])
    low, high = corners.min(0), corners.max(0)
    scale = 2 * RADIUS / float(np.linalg.norm(high - low))
    origin = np.append((low + high)[:2] / 2, low[2])
    to_scene = affine(translation=-scale * origin, scale=scale)
    parts = []
    for mesh, at, name in zip(meshes, poses, procedure.components, strict=True):
        vertices = (mesh.vertices - origin) * scale
        centre = (vertices.min(0) + vertices.max(0)) / 2
        pose = np.eye(4)
        pose[:3, 3] = centre
        around = Mesh(vertices - centre, mesh.faces, mesh.colours)
        # From the part around its centre back to its mesh, and from there to where it is wrong.
        back = np.linalg.inv(to_scene @ at) @ pose
        known = tuple(to_scene @ (up @ one) @ back for one in wrong.get(name, ()))
        part = Part(around, float(np.ptp(vertices[:, 2])), pose, pose, known_wrong=known)
        errors += _wrong_errors(f"{poses_file}: {WRONG}: {name}", part)
        parts.append(part)
    raise_all(errors)
    product = Product(
        _NO_BOARD,
        tuple(parts),
        scale=scale,
        origin=tuple((-origin * scale).tolist()),
        coloured=tuple(coloured),
        notes=tuple(_notes(files, coloured)),
    )
    return product, _checksum(files, content)


def _find_meshes(directory: Path, procedure: Procedure, errors: list[str]) -> dict[int, Path]:
    """The mesh of each component, by its index; `errors` gets what is wrong with the folder."""
    paths: dict[int, Path] = {}
    for path in files_of(directory):
        with gathering(errors):
            k = _component(path, procedure)
            other = paths.setdefault(k, path)
            mesh_files.check_file(path)
            if other != path:
                raise ValueError(
                    f"{path}: {other.name} is a mesh of component {procedure.components[k]!r} "
                    "too; keep one of them"
                )
    if missing := [c for k, c in enumerate(procedure.components) if k not in paths]:
        errors.append(
            f"{directory}: no mesh for {', '.join(missing)}; add files named after these "
            f"components ({', '.join(SUFFIXES)})"
        )
    return paths


def _checksum(meshes: Sequence[Path], content: Any) -> str:
    digest = hashlib.sha256(json.dumps(content).encode())
    for file in meshes:
        data = file.read_bytes()
        digest.update(hashlib.sha256(data).digest() + file.suffix.lower().encode())
        if file.suffix.lower() == ".obj":
            _, materials = mesh_files.library(file, data)
            if materials is not None:
                digest.update(hashlib.sha256(materials).digest())
    return digest.hexdigest()


def files_of(directory: Path) -> list[Path]:
    """The meshes of a folder, by name, also those in formats that are not read."""
    if not directory.is_dir():
        raise ValueError(f"--meshes={directory}: no such folder")
    known = SUFFIXES + OTHER_SUFFIXES
    return [path for path in sorted(directory.iterdir()) if path.suffix.lower() in known]


def plain(name: str) -> str:
    """A name without what file names and component names differ in."""
    # macOS writes "ü" as two characters.
    return re.sub(r"[\s_-]+", " ", unicodedata.normalize("NFC", name)).strip().casefold()


def _component(path: Path, procedure: Procedure) -> int:
    check_name(path.stem, str(path))
    names = [plain(name) for name in procedure.components]
    if plain(path.stem) in names:
        return names.index(plain(path.stem))
    if re.fullmatch("[0-9]{1,4}", path.stem) and int(path.stem) < procedure.num_components:
        return int(path.stem)
    raise ValueError(
        f"{path}: belongs to no component of procedure {procedure.name!r}; name it after one of "
        f"{', '.join(procedure.components)} (or its index, 0…{procedure.num_components - 1}), or "
        "take it out of the folder"
    )


def _read_poses(path: Path, content: Any, procedure: Procedure) -> list[dict[str, Any]]:
    if not isinstance(content, dict):
        raise ValueError(f"{path}: is not an object with components as keys")
    poses = {key: value for key, value in content.items() if key not in (COLOURS, WRONG)}
    read = []
    for place, entries, parse in (
        (f"{path}", poses, _pose),
        (f"{path}: {COLOURS}", content.get(COLOURS, {}), _colour),
        (f"{path}: {WRONG}", content.get(WRONG, {}), _poses),
    ):
        if not isinstance(entries, dict):
            raise ValueError(f"{place}: is not an object with components as keys")
        for key in entries:
            if key not in procedure.components:
                raise ValueError(
                    f"{path}: {key!r} is not a component of procedure {procedure.name!r}; it has "
                    f"{', '.join(procedure.components)}"
                )
        read.append({key: parse(f"{place}: {key}", value) for key, value in entries.items()})
    return read


def _poses(where: str, value: Any) -> tuple[np.ndarray, ...]:
    if not isinstance(value, list) or not value or isinstance(value[0], int | float):
        raise ValueError(f"{where}: is not a list of poses: [POSE, …]")
    return tuple(_pose(f"{where}[{i}]", pose) for i, pose in enumerate(value))


def _numbers(value: Any, shape: tuple[int, ...]) -> np.ndarray | None:
    try:
        array = np.array(value, np.float64)
    except (TypeError, ValueError, OverflowError):
        return None
    return array if array.shape == shape and np.isfinite(array).all() else None


def _pose(where: str, value: Any) -> np.ndarray:
    if isinstance(value, dict):
        translation = _numbers(value.get("translation", [0, 0, 0]), (3,))
        quaternion = _numbers(value.get("quaternion", [1, 0, 0, 0]), (4,))
        unknown = value.keys() - {"translation", "quaternion"}
        if unknown or translation is None or quaternion is None or not quaternion.any():
            raise ValueError(
                f'{where}: give {{"translation": [x, y, z], "quaternion": [w, x, y, z]}}'
            )
        import trimesh  # here, as flags and --help do without it

        matrix = trimesh.transformations.quaternion_matrix(quaternion)
        matrix[:3, 3] = translation
        return matrix
    matrix = _numbers(value, (4, 4))
    if matrix is None or matrix[3].tolist() != [0, 0, 0, 1]:
        raise ValueError(f"{where}: is not a 4 × 4 matrix with last row 0 0 0 1")
    if abs(np.linalg.det(matrix[:3, :3])) < 1e-12:
        raise ValueError(f"{where}: the matrix makes the part flat (its determinant is 0)")
    return matrix


def _colour(where: str, value: Any) -> np.ndarray:
    if isinstance(value, str) and re.fullmatch("#[0-9a-fA-F]{6}", value):
        return np.frombuffer(bytes.fromhex(value[1:]), np.uint8) / 255
    colour = _numbers(value, (3,))
    if colour is None or colour.min() < 0 or colour.max() > 1:
        raise ValueError(f'{where}: is neither "#rrggbb" nor three numbers in 0…1')
    return colour


def _painted(
    meshes: Sequence[Mesh], coloured: Sequence[bool], drawn: Sequence[np.ndarray]
) -> list[Mesh]:
    """The meshes in linear colours: what has none gets a drawn one, the same for one mesh."""
    first = {k: group[0] for group in groups(meshes, coloured) for k in group}
    painted = []
    for k, mesh in enumerate(meshes):
        own = drawn[k if coloured[k] else first.get(k, k)]
        display = np.where(np.isnan(mesh.colours), own, mesh.colours)
        # Rendering is linear; pictures are its square root.
        painted.append(dataclasses.replace(mesh, colours=np.square(display)))
    return painted


def _notes(files: Sequence[Path], coloured: Sequence[bool]) -> list[str]:
    lines = []
    without = [
        path.name for path, has_colours in zip(files, coloured, strict=True) if not has_colours
    ]
    if without:
        missing = [
            f"{path.name} names {name}, which is not beside it"
            for path, has_colours in zip(files, coloured, strict=True)
            if path.suffix.lower() == ".obj" and not has_colours
            for name, materials in [mesh_files.library(path, path.read_bytes())]
            if name and materials is None
        ]
        lines += [f"{files[0].parent}: {line}; add it for the part's colours" for line in missing]
        lines.append(
            f"{files[0].parent}: {', '.join(without)}: without colours, or with faces that have "
            f'none; drawn ones stand for them (give the right ones in {POSES}, as "colors")'
        )
    return lines


def _wrong_errors(place: str, part: Part) -> list[str]:
    """Wrong poses in which a part looks right, or in which nobody would see it."""
    errors = []
    for i, pose in enumerate(part.known_wrong):
        there = part.mesh.moved(pose).vertices
        if not is_visible(part, pose):
            errors.append(f"{place}[{i}]: looks correct, as it hardly moves the part; leave it out")
        elif np.abs(there).max() > 6 * RADIUS or there[:, 2].max() < 0:
            errors.append(
                f"{place}[{i}]: is far from the product, or below the table; poses take the mesh "
                "to the product, in the mesh's units"
            )
    return errors
