"""Writes a mesh for each part of a product that comes as one file.

    python -m data_prep.parts --model=pump.glb --out=meshes

--out becomes a folder for `--meshes` of data_prep.synthetic and `procedure draft`: a GLB for each
component, named after it, in the coordinates of the assembled product. --model is a file of several
objects (GLB, OBJ, STEP, 3MF): each of them is a component, with its name in the file. Where an OBJ
has no objects (`o`), its groups (`g`) are such. You may add colours
and poses in a poses.json (docs/formats.md#mesh-folders).
"""

import argparse
import collections
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from data_prep import command
from data_prep.products import glb_files, mesh_files
from data_prep.products.meshes import plain
from stormpsr_jax.base import files


def split(*, model: str | Path, out: str | Path) -> None:
    """Writes the folder of meshes; see the module. ValueError: an argument or the file is wrong."""
    model, out = Path(model), Path(out)
    if os.path.lexists(out):
        raise ValueError(f"--out={out}: is there already; give a folder that is not")
    mesh_files.check_file(model)
    titles: dict[int, str] = {}
    objects = collections.defaultdict(list)
    for piece in mesh_files.read(model):
        titles[piece.number] = piece.name
        objects[piece.number].append(piece.mesh)
    names = _names(list(titles.values()))
    with files.replacing_folder(out) as part:
        for name, of in zip(names, objects.values(), strict=True):
            path = part / f"{files.check_name(name, str(model))}.glb"
            path.write_bytes(glb_files.written(of))
    print(f"{out}: {len(names)} part{'s' if len(names) > 1 else ''}")


def _names(titles: Sequence[str]) -> list[str]:
    """Names of components: titles, numbered where several would be the same."""
    cleaned = []
    for title in titles:
        name = " ".join(re.sub(r"[/\\\x00-\x1f\x7f]", " ", title).split()).lstrip(". ")
        cleaned.append(name.encode()[:150].decode(errors="ignore").strip() or "part")
    counts = collections.Counter(map(plain, cleaned))
    taken = {name for name in map(plain, cleaned) if counts[name] == 1}
    names = []
    for name in cleaned:
        if counts[plain(name)] > 1:
            number = next(n for n in range(1, 10**6) if plain(f"{name} {n}") not in taken)
            name = f"{name} {number}"
            taken.add(plain(name))
        names.append(name)
    return names


def _add_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--model", required=True, metavar="FILE", help="the file of all parts")
    add("--out", required=True, metavar="DIR", help="folder for the meshes, which must not exist")


main = command.command("parts", __doc__, _add_flags, split, renders=True)

if __name__ == "__main__":
    sys.exit(main())
