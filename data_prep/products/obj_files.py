"""OBJ files as trimesh reads them right, with the material library that lies beside them."""

import re
from pathlib import Path
from typing import Any

from stormpsr_jax.base.files import check_regular

MAX_BYTES = 2**24  # of a material library
_LIBRARY = re.compile(rb"^[ \t]*mtllib[ \t]+(.+?)[ \t\r]*$", re.MULTILINE)
_ZERO = re.compile(rb"^f[ \t][^\n]*?(?<=[ \t])0(?=[/\s]|$)", re.MULTILINE)
_COLOURED = re.compile(rb"^v(?:[ \t]+[^\s#]+){6}", re.MULTILINE)  # x y z r g b
_TEXTURE = re.compile(rb"^[ \t]*map_kd\b", re.MULTILINE | re.IGNORECASE)


def library(path: Path, data: bytes) -> tuple[str, bytes | None]:
    """The name of an OBJ file's material library, "" without one, and what is in it.

    It is looked for beside the file, whatever folder it names: nothing else is opened. What is in
    it is None where it is not there.

    Raises:
        ValueError: it is no regular file, or too large.
    """
    match = _LIBRARY.search(data)
    name = re.split(r"[/\\]", match[1].decode(errors="replace"))[-1] if match else ""
    file = path.parent / name
    if not name or not file.exists():
        return name, None
    if check_regular(file, f"take it out of {path}").st_size > MAX_BYTES:
        raise ValueError(f"{file}: has more than {MAX_BYTES // 2**20} MiB; reduce it")
    return name, file.read_bytes()


def prepared(path: Path, data: bytes) -> tuple[bytes, list[str], dict[str, Any]]:
    """An OBJ file with numbers in place of the names of its objects.

    Returns:
        its bytes; the names by number, the first of which is of what is before all objects; and how
        trimesh is to read it.

    Raises:
        ValueError: its vertices are numbered from 0.
    """
    if zero := _ZERO.search(data):
        line = data.count(b"\n", 0, zero.start()) + 1
        raise ValueError(
            f"{path}: line {line}: a face of vertex 0, but OBJ counts vertices from 1; write the "
            "file with numbers that are 1 higher"
        )
    _, materials = library(path, data)
    try:
        data = _LIBRARY.sub(b"", _from_the_first(data))
    except ValueError as error:
        raise ValueError(f"{path}: not a readable OBJ mesh (ValueError: {error})") from error
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

    data = re.sub(rb"^%s[ \t]+(.*)$" % key, number, data, flags=re.MULTILINE)
    options = {
        "split_objects": True,
        # trimesh has Kd of a material with a texture too, which says nothing.
        "resolver": {"all": _TEXTURE.sub(b"textured", materials or b"")},
        "skip_materials": _COLOURED.search(data) is not None,  # what is finer counts
    }
    return b"mtllib all\no 0\n" + data, names, options


def _from_the_first(data: bytes) -> bytes:
    """An OBJ file whose faces count vertices from the first one of the file.

    Below 0 they count back from where the face stands; trimesh counts from the end of the file.
    """
    if not re.search(rb"^f.*\s-", data, re.MULTILINE):
        return data
    count = 0
    lines = data.replace(b"\r\n", b"\n").replace(b"\\\n", b"").split(b"\n")
    for i, line in enumerate(lines):
        if line.startswith(b"v "):
            count += 1
        elif line.startswith(b"f "):  # numbers behind a slash are of textures, which are not read
            corners = [int(corner.partition(b"/")[0]) for corner in line[2:].split()]
            if min(corners) < -count:
                raise ValueError("a face of a vertex that is not there")
            found = [k + count + 1 if k < 0 else k for k in corners]
            lines[i] = b" ".join([b"f", *(b"%d" % k for k in found)])
    return b"\n".join(lines)
