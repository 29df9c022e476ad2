"""Models of LDraw as the parts that they place, in millimetres with z up.

A model (.ldr, or .mpd with files in one) places files of a library of parts, which place others.
Formats: ldraw.org, "LDraw File Format Specification" (1.0.2), "Language Extension for Back Face
Culling" (1.0.1), "MPD Extension" and "Colour Definition" (LDConfig.ldr).
"""

import dataclasses
import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np

from stormpsr_jax.base.files import check_regular, shorten

MILLIMETRES = 0.4  # a unit of LDraw
MAX_FACES = 2_000_000  # of the model
MAX_DEPTH = 64  # of files that place files
MAX_FILES, MAX_BYTES = 20_000, 2**28  # that are read, and of all of them
MAX_PARTS = 5_000  # of the model
MAX_STEPS = 100_000  # of the model, with those of its submodels each time that they are placed
MAX_HELD = 5  # times MAX_FACES: faces of all files, which are kept
CONFIG = "LDConfig.ldr"
# Where parts lie in a library, and what they are made of.
_FOLDERS = ("parts", "p", "unofficial/parts", "unofficial/p")
_MODELS = (".ldr", ".mpd")
_INHERITED, _EDGE = 16, 24  # colours of whoever places a file
_DIRECT = 0x2000000  # and the colour itself, 0xRRGGBB
_Z_UP = np.array([[1.0, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0], [0, 0, 0, 1]])  # of y down
_FIELDS = {"1": 15, "3": 11, "4": 14}  # of a line by its type
_LONGEST = 500  # characters of a line that defines a colour


@dataclasses.dataclass(frozen=True)
class Shape:
    """What a file shows.

    Attributes:
        corners: (T, 3, 3) of its triangles in units of LDraw, counter-clockwise from outside.
        colours: (T,) codes.
    """

    corners: np.ndarray
    colours: np.ndarray


@dataclasses.dataclass(frozen=True)
class Part:
    """A part, or a submodel, where the model places it.

    Attributes:
        title: for people, with its colour.
        vertices: (V, 3) in millimetres, z up.
        faces: (F, 3).
        colours: (F, 3) display colours in 0..1, NaN where the model leaves them open.
        step: number of the building step in which it comes, from 0 on.
    """

    title: str
    vertices: np.ndarray
    faces: np.ndarray
    colours: np.ndarray
    step: int


@dataclasses.dataclass(frozen=True)
class _Source:
    """A file, or one within a file.

    Attributes:
        place: for messages.
        first: number of its first line there.
        lines: of text.
        model: it is no part of the library.
    """

    place: str
    first: int
    lines: list[str]
    model: bool


@dataclasses.dataclass(frozen=True)
class _Placed:
    """A line that places a file."""

    name: str
    colour: int
    matrix: np.ndarray  # (4, 4), file to whoever places it
    step: int
    where: str


def read(model: Path, library: Path, flat: bool = False) -> list[Part]:
    """Reads the parts of a model, in the order of its lines.

    Args:
        model: .ldr or .mpd.
        library: the folder with `parts`, `p` and LDConfig.ldr.
        flat: whether a submodel is not one part, but made of parts, which come before it.

    Raises:
        ValueError: a file or a line is wrong, which it names; or the model is larger than what is
            read.
    """
    reader = _Reader(model, library)
    placed = list(reader.placed(reader.main, np.eye(4), _INHERITED, flat, ()))
    if not placed:
        raise ValueError(f"{model}: places no part (a line of type 1)")
    # Submodels have steps of their own: they are numbered as they come.
    steps = {step: i for i, step in enumerate(dict.fromkeys(each.step for each in placed))}
    parts, total = [], 0
    for each in placed:
        shape = reader.shape(each.name, each.where)
        total = _counted(total + len(shape.colours), "the model", each.where)
        if not len(shape.colours):
            raise ValueError(f"{each.where}: {each.name} has no faces")
        shape = _moved(shape, each.matrix, each.colour, False)
        flat_corners = shape.corners.reshape(-1, 3) @ (MILLIMETRES * _Z_UP[:3, :3]).T
        vertices, faces = np.unique(flat_corners.round(5), axis=0, return_inverse=True)
        colours = reader.display(shape.colours, each.where)
        title = reader.title(each.name, each.colour)
        parts.append(Part(title, vertices, faces.reshape(-1, 3), colours, steps[each.step]))
    return parts


class _Reader:
    """The files of a model and of a library, each read once."""

    def __init__(self, model: Path, library: Path):
        self._folders: dict[Path, dict[str, Path]] = {}
        self._sources: dict[str, _Source] = {}
        self._shapes: dict[str, Shape] = {}
        self._bytes = self._steps = self._parts = self._held = 0
        self._library, self._beside = library, model.parent
        if not any((library / folder).is_dir() for folder in _FOLDERS[:2]):
            raise ValueError(f"--parts={library}: is no library of LDraw (no folder parts or p)")
        self._colours: dict[int, tuple[str, list[float]]] = {}
        if (library / CONFIG).exists():
            self._define(_Source(str(library / CONFIG), 1, self._read(library / CONFIG), False))
        self.main = ""
        for name, source in _sections(model, self._read(model)):
            self.main = self.main or name
            if self._sources.setdefault(name, source) is not source:
                raise ValueError(f"{source.place}: line {source.first}: {name} is there twice")
            self._define(source)

    def _read(self, path: Path) -> list[str]:
        self._bytes += check_regular(path, "give a file on a disk").st_size
        if self._bytes > MAX_BYTES or len(self._sources) > MAX_FILES:
            raise ValueError(
                f"{path}: with it the model takes more than {MAX_FILES:,} files or "
                f"{MAX_BYTES // 2**20} MiB of them"
            )
        try:
            # Older files are Latin-1; in what is read of them both are the same. Some programs put
            # a mark in front that is no part of the first line.
            return path.read_bytes().decode("utf-8-sig", "replace").splitlines()
        except OSError as error:
            raise ValueError(f"{path}: cannot be read ({error.strerror})") from error

    def _define(self, source: _Source) -> None:
        """Notes the colours that a file defines."""
        pattern = r"\s*0\s+!COLOUR\s+(\S+)\s.*?CODE\s+(\d{1,9})\s.*?VALUE\s+(?:#|0x)([0-9A-F]{6})\b"
        for line in source.lines:
            if "!COLOUR" in line and (found := re.match(pattern, line[:_LONGEST], re.I)):
                self._colours[int(found[2])] = found[1], _rgb(int(found[3], 16))

    def _source(self, name: str, where: str) -> _Source:
        """The file that a line calls by a name; `where` is the line."""
        if name in self._sources:
            return self._sources[name]
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or ":" in name:
            raise ValueError(f"{where}: {shorten(name)} is not the name of a file in a library")
        for base in (self._beside, *(self._library / folder for folder in _FOLDERS)):
            found = self._in_folder(base / path.parent).get(path.name)
            if found is not None:
                model = base == self._beside and path.suffix in _MODELS
                self._sources[name] = _Source(str(found), 1, self._read(found), model)
                return self._sources[name]
        raise ValueError(
            f"{where}: {shorten(name)} is neither in the model nor in --parts={self._library}"
        )

    def _in_folder(self, folder: Path) -> dict[str, Path]:
        """The files of a folder by their names in lower case: the names in models are in any."""
        if folder not in self._folders:
            names = os.listdir(folder) if folder.is_dir() else []
            self._folders[folder] = {each.lower(): folder / each for each in sorted(names)}
        return self._folders[folder]

    def title(self, name: str, colour: int) -> str:
        """What people call a file in a colour."""
        text, known = "", set[str]()
        while name not in known and not (source := self._source(name, name)).model:
            known.add(name)
            text = source.lines[0].strip().removeprefix("0").strip() if source.lines else ""
            if moved := re.match(r"~Moved to (\S+)$", text):
                name = f"{_key(moved[1])}.dat"
        text = text.lstrip("~=_| ") or PurePosixPath(name).stem
        tint = "" if colour == _INHERITED else self._colours.get(colour, ("", []))[0]
        tint = tint.replace("_", " ").lower()
        return " ".join(f"{text} {tint}".split())

    def display(self, colours: np.ndarray, where: str) -> np.ndarray:
        """Display colours (T, 3) of codes (T,), NaN of the one that is left open."""
        codes, of_code = np.unique(colours, return_inverse=True)
        table = np.full((len(codes), 3), np.nan)
        for i, code in enumerate(codes.tolist()):
            if code >= _DIRECT:
                table[i] = _rgb(code - _DIRECT)
            elif code == _INHERITED:
                continue  # what LDConfig.ldr has for it is of editors, and of no part
            elif code in self._colours:
                table[i] = self._colours[code][1]
            else:
                raise ValueError(f"{where}: colour {code} is not in {self._library / CONFIG}")
        return table[of_code]

    def placed(
        self, name: str, matrix: np.ndarray, colour: int, flat: bool, above: tuple[str, ...]
    ) -> Iterator[_Placed]:
        """What a model places, step by step; `above` are the models that it is in."""
        source = self._source(name, name)
        step: list[_Placed] = []
        for fields, where in _lines(source):
            if fields[0] in ("3", "4"):
                raise ValueError(
                    f"{where}: faces of a model belong to no part; put them into a file that the "
                    "model places"
                )
            if fields[0] == "1":
                each = _reference(fields, where)
                of = colour if each.colour in (_INHERITED, _EDGE) else each.colour
                step.append(dataclasses.replace(each, colour=of, matrix=matrix @ each.matrix))
            elif fields[:2] in (["0", "STEP"], ["0", "ROTSTEP"]):
                yield from self._step(step, flat, (*above, name))
                step = []
        yield from self._step(step, flat, (*above, name))

    def _step(self, step: list[_Placed], flat: bool, above: tuple[str, ...]) -> Iterator[_Placed]:
        whole = []
        for each in step:
            if flat and self._source(each.name, each.where).model:
                _check_depth(each.name, above, each.where)
                yield from self.placed(each.name, each.matrix, each.colour, flat, above)
            else:
                whole.append(each)
        self._steps += 1
        if self._steps > MAX_STEPS:
            raise ValueError(f"{above[0]}: has over {MAX_STEPS:,} steps, with those of submodels")
        self._parts += len(whole)
        if self._parts > MAX_PARTS:
            raise ValueError(f"{whole[-1].where}: with it the model has over {MAX_PARTS:,} parts")
        for each in whole:
            yield dataclasses.replace(each, step=self._steps)

    def shape(self, name: str, where: str, above: tuple[str, ...] = ()) -> Shape:
        """What a file shows, with all that it places; `above` are the files that it is in."""
        if name in self._shapes:
            return self._shapes[name]
        _check_depth(name, above, where)
        source = self._source(name, where)
        found: list[Shape] = []
        corners: list[list[float]] = []
        colours: list[int] = []
        clockwise = inverted = False
        total = 0
        for fields, place in _lines(source):
            if fields[:2] == ["0", "BFC"]:
                inverted = inverted or "INVERTNEXT" in fields
                clockwise = "CW" in fields or (clockwise and "CCW" not in fields)
            elif fields[0] == "1":
                each = _reference(fields, place)
                inner = self.shape(each.name, place, (*above, name))
                total = _counted(total + len(inner.colours), name, place)
                found.append(_moved(inner, each.matrix, each.colour, inverted))
                inverted = False
            elif fields[0] in ("3", "4"):
                colour, numbers = _colour(fields[1], place), _floats(fields[2:], place)
                points = [numbers[i : i + 3] for i in range(0, len(numbers), 3)]
                if clockwise:
                    points.reverse()
                total = _counted(total + len(points) - 2, name, place)
                for i in range(1, len(points) - 1):
                    corners.append([*points[0], *points[i], *points[i + 1]])
                    colours.append(_INHERITED if colour == _EDGE else colour)
        own = Shape(np.array(corners, np.float64).reshape(-1, 3, 3), np.array(colours, np.int64))
        shapes = [own, *found]
        self._held += total
        if self._held > MAX_HELD * MAX_FACES:
            raise ValueError(
                f"{where}: with {name} all files have over {MAX_HELD * MAX_FACES:,} faces"
            )
        self._shapes[name] = Shape(
            np.concatenate([shape.corners for shape in shapes]),
            np.concatenate([shape.colours for shape in shapes]),
        )
        return self._shapes[name]


def _sections(path: Path, lines: list[str]) -> Iterator[tuple[str, _Source]]:
    """The files in a file by their names, the main one first; it may be the only one."""
    starts = [i for i, line in enumerate(lines) if re.match(r"\s*0\s+FILE\s+\S", line)]
    for i, line in enumerate(lines[: starts[0]] if starts else ()):
        if line.split()[:1] not in ([], ["0"]):
            raise ValueError(f"{path}: line {i + 1}: stands before the first file (0 FILE NAME)")
    if not starts:
        yield _key(path.name), _Source(str(path), 1, lines, True)
        return
    for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
        name = _key(re.sub(r"^\s*0\s+FILE\s+", "", lines[start]))
        inside = lines[start + 1 : end]
        stop = [i for i, line in enumerate(inside) if re.match(r"\s*0\s+NOFILE\b", line)]
        inside = inside[: stop[0]] if stop else inside
        yield name, _Source(str(path), start + 2, inside, not name.endswith(".dat"))


def _lines(source: _Source) -> Iterator[tuple[list[str], str]]:
    """The fields of each line that is not empty, and where it stands."""
    for number, line in enumerate(source.lines, start=source.first):
        where = f"{source.place}: line {number}"
        fields = line.split(None, 14)  # the last one of a line of type 1 is a name, maybe of words
        if not fields:
            continue
        wanted = _FIELDS.get(fields[0])
        if wanted and len(fields) < wanted:
            raise ValueError(f"{where}: a line of type {fields[0]} has {wanted} fields")
        yield fields[:wanted], where


def _reference(fields: list[str], where: str) -> _Placed:
    """A line of type 1: colour, place, the rows of a turn, and a name."""
    numbers = _floats(fields[2:14], where)
    matrix = np.eye(4)
    matrix[:3, 3] = numbers[:3]
    matrix[:3, :3] = np.reshape(numbers[3:], (3, 3))
    return _Placed(_key(fields[14]), _colour(fields[1], where), matrix, 0, where)


def _key(name: str) -> str:
    return name.strip().lower().replace("\\", "/")


def _floats(fields: list[str], where: str) -> list[float]:
    try:
        numbers = [float(field) for field in fields]
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    if not np.isfinite(numbers).all() or max(map(abs, numbers)) > 1e9:
        raise ValueError(f"{where}: has numbers that are not finite ones below 1e9")
    return numbers


def _colour(text: str, where: str) -> int:
    """A code, or `_DIRECT` and the colour itself."""
    if found := re.fullmatch(r"(?:0x|#)[0-9a-f]([0-9a-f]{6})", text, re.IGNORECASE):
        return _DIRECT + int(found[1], 16)
    if not re.fullmatch(r"\d{1,7}", text):
        raise ValueError(f"{where}: {shorten(text)} is not the code of a colour")
    return int(text)


def _rgb(value: int) -> list[float]:
    return [(value >> shift & 255) / 255 for shift in (16, 8, 0)]


def _check_depth(name: str, above: tuple[str, ...], where: str) -> None:
    if name in above:
        raise ValueError(f"{where}: {name} places itself ({' → '.join((*above, name))})")
    if len(above) >= MAX_DEPTH:
        raise ValueError(f"{where}: files place files more than {MAX_DEPTH} deep")


def _counted(total: int, what: str, where: str) -> int:
    """The number of faces up to a line; ValueError if they are too many."""
    if total > MAX_FACES:
        raise ValueError(f"{where}: with it {what} has more than {MAX_FACES:,} faces")
    return total


def _moved(shape: Shape, matrix: np.ndarray, colour: int, inverted: bool) -> Shape:
    """A shape as a line places it; a mirrored one would look inwards."""
    corners = shape.corners @ matrix[:3, :3].T + matrix[:3, 3]
    if inverted != (np.linalg.det(matrix[:3, :3]) < 0):
        corners = corners[:, ::-1]
    return Shape(corners, np.where(shape.colours == _INHERITED, colour, shape.colours))
