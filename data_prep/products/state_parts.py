"""Parts of a product from one file for each of its states: by what differs between states.

IndustReal's `part_geometries` are such files. A body is what hangs together in a mesh; it is of
the component that is there in just the states that show the body.
"""

import collections
import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from data_prep.products import mesh_files
from data_prep.products.mesh_files import Piece
from stormpsr_jax.psr.procedure import Procedure

# Bodies of two states are one if they are this alike in place and size, as a share of the
# product's size: files have seven digits.
_SAME = 1e-3
MAX_BODIES = 2_000  # of a state
_SHARE = 0.9  # of all surface, which has to be of bodies that some component explains


@dataclasses.dataclass(frozen=True)
class _Body:
    """What hangs together: its piece, where it is (10,), its area, and the states that show it."""

    piece: Piece
    place: np.ndarray
    area: float
    states: np.ndarray  # (S,) bool


def find(folder: Path, procedure: Procedure) -> list[Path]:
    """The file of each catalogued state, by the number in its name, counted from 0 or from 1.

    Raises:
        ValueError: states without a file, or with two.
    """
    numbered: dict[int, Path] = {}
    for path in sorted(folder.iterdir()):
        found = re.fullmatch(r"\D*(\d{1,4})", path.stem)
        if found and path.suffix.lower() in mesh_files.SUFFIXES:
            other = numbered.setdefault(int(found[1]), path)
            if other != path:
                raise ValueError(f"{path}: {other.name} is a file of state {int(found[1])} too")
            mesh_files.check_file(path)
    count = procedure.num_states
    first = 0 if 0 in numbered and count not in numbered else 1
    missing = [str(n) for n in range(first, first + count) if n not in numbered]
    if missing:
        raise ValueError(
            f"{folder}: no file for states {', '.join(missing[:10])} of the {count} of procedure "
            f"{procedure.name!r}; their names end in the number of the state (state7.3mf)"
        )
    return [numbered[n] for n in range(first, first + count)]


def parts(
    folder: Path, procedure: Procedure, chosen: Mapping[str, Sequence[int]]
) -> dict[str, list[Piece]]:
    """The bodies of each component, in place.

    Args:
        folder: of the files.
        procedure: whose states they show.
        chosen: of components that come and go together, which bodies are theirs, by the numbers
            that the error tells.

    Raises:
        ValueError: a file is missing or cannot be read, states do not fit the procedure, or it
            takes `chosen` to tell components apart.
    """
    files = find(folder, procedure)
    bodies = _bodies(files, mesh_files.read_all(files))
    groups: dict[bytes, list[int]] = collections.defaultdict(list)
    for k in range(procedure.num_components):
        groups[procedure.states[:, k].astype(bool).tobytes()].append(k)
    of_group: dict[bytes, list[_Body]] = collections.defaultdict(list)
    for body in bodies:
        of_group[body.states.tobytes()].append(body)
    explained = sum(body.area for body in bodies if body.states.tobytes() in groups)
    if explained < _SHARE * sum(body.area for body in bodies):
        raise ValueError(
            f"{folder}: only {explained / sum(b.area for b in bodies):.0%} of the surface is of "
            "bodies that come and go as a component does; the files are of other states than those "
            f"of procedure {procedure.name!r}, or each is in coordinates of its own"
        )
    found: dict[str, list[Piece]] = {}
    for key, components in groups.items():
        names = [procedure.components[k] for k in components]
        shown = sorted(of_group.get(key, []), key=lambda body: -body.area)
        if not shown:
            raise ValueError(f"{folder}: no body comes and goes as {' and '.join(names)} does")
        for name, taken in _shared(names, shown, chosen, folder).items():
            found[name] = [body.piece for body in taken]
    return {name: found[name] for name in procedure.components}


def _shared(
    names: list[str], bodies: list[_Body], chosen: Mapping[str, Sequence[int]], folder: Path
) -> dict[str, list[_Body]]:
    """The bodies of components that come and go together."""
    rest = set(range(1, len(bodies) + 1))
    taken = {name: [n for n in chosen[name] if n in rest] for name in names if name in chosen}
    for name, numbers in taken.items():
        if set(numbers) - rest or not numbers or len(set(numbers)) < len(chosen[name]):
            raise ValueError(
                f"--bodies: {name} has bodies that are not in 1…{len(bodies)}, or twice"
            )
        rest -= set(numbers)
    open_names = [name for name in names if name not in taken]
    if len(open_names) > 1 or (open_names and not rest) or (rest and not open_names):
        sizes = "; ".join(
            f"{n}: {' × '.join(f'{edge:.3g}' for edge in np.ptp(body.piece.vertices, axis=0))}"
            for n, body in enumerate(bodies, start=1)
        )
        raise ValueError(
            f"{folder}: {' and '.join(names)} come and go together; say whose their bodies are, as "
            f'in --bodies="{names[-1]}=2". Their sizes are {sizes}'
        )
    taken |= {name: sorted(rest) for name in open_names}
    return {name: [bodies[n - 1] for n in numbers] for name, numbers in taken.items()}


def _bodies(files: Sequence[Path], states: Sequence[Sequence[Piece]]) -> list[_Body]:
    """Every body once, with the states that show it; ValueError if they are very many."""
    everything = np.concatenate([piece.vertices for pieces in states for piece in pieces])
    near = _SAME * np.linalg.norm(np.ptp(everything, axis=0))
    known: list[_Body] = []
    places = np.zeros((0, 10))
    for s, pieces in enumerate(states):
        for n, piece in enumerate(body for whole in pieces for body in _split(whole)):
            if n == MAX_BODIES:
                raise ValueError(
                    f"{files[s]}: has more than {MAX_BODIES:,} bodies; export it with faces that "
                    "have their corners in common"
                )
            place, area = _place(piece)
            same = np.flatnonzero((np.abs(places - place) < near).all(axis=1))
            if len(same):
                known[same[0]].states[s] = True
                continue
            shown = np.zeros(len(states), bool)
            shown[s] = True
            known.append(_Body(piece, place, area, shown))
            places = np.vstack([places, place])
    return known


def _place(piece: Piece) -> tuple[np.ndarray, float]:
    """(10,) lengths that tell bodies apart, however their vertices are ordered; and the area."""
    corners = piece.vertices[piece.faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    areas = np.linalg.norm(normals, axis=1) / 2
    middle = np.average(corners.mean(axis=1), axis=0, weights=areas)
    low, high = piece.vertices.min(axis=0), piece.vertices.max(axis=0)
    area = float(areas.sum())
    return np.concatenate([low, high, middle, [np.sqrt(area)]]), area


def _split(piece: Piece) -> Iterator[Piece]:
    """The bodies of a piece: faces with a common vertex hang together.

    Parts that touch may have vertices in the same places, so these count only where the file knows
    of no common ones (STL).
    """
    faces = piece.faces
    if len(piece.vertices) == 3 * len(faces):
        _, at = np.unique(piece.vertices.round(6), axis=0, return_inverse=True)
        faces = at.reshape(-1)[faces]
    label = np.arange(faces.max() + 1)
    while True:
        least = label[faces].min(axis=1)
        lower = label.copy()
        np.minimum.at(lower, faces.reshape(-1), np.repeat(least, 3))
        lower = lower[lower]
        if (lower == label).all():
            break
        label = lower
    of_face = label[faces[:, 0]]
    for each in np.unique(of_face):
        used, corners = np.unique(piece.faces[of_face == each], return_inverse=True)
        yield Piece(
            piece.name,
            piece.vertices[used],
            corners.reshape(-1, 3),
            piece.colours[of_face == each],
        )
