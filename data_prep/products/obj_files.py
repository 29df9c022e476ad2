"""OBJ files as trimesh reads them right, with the material library that lies beside them."""

import re
from pathlib import Path
from typing import Any

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
