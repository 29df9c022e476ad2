"""Writes a mesh for each part of a product that comes as one file.

    python -m data_prep.parts --model=tower.mpd --parts=/usr/share/ldraw --out=meshes
    python -m data_prep.parts --model=pump.step --out=meshes
    python -m data_prep.parts --model=part_geometries --procedure=industreal --out=meshes

--out becomes a folder for `--meshes` of data_prep.cad, data_prep.synthetic and `procedure draft`: a
GLB for each component, named after it, in the coordinates of the assembled product. --model is

* a model of LDraw (.ldr, .mpd). --parts is the library with `parts`, `p` and LDConfig.ldr. Each
  line of the model that places a part is a component, and so is one that places a submodel; with
  --flat the parts of submodels are components of their own. Components have the titles of parts
  and their colours as names ("Brick 2 x 4 red 1"). The steps of the model become `order.json`,
  which `procedure draft` follows. Lengths are in millimetres (a unit of LDraw is 0.4), z points up.
* a file of several objects (GLB, 3MF, STEP): each object is a component, with its name in the file.
* a folder with a file (3MF, …) for each catalogued state of --procedure, named by the number of the
  state, as IndustReal's `part_geometries`: a component is what is there in just its states. Of
  components that always come and go together, --bodies="front chassis pin=2,3; …" says which
  bodies are whose, by the numbers that the error tells.

`order.json` is a list of steps, each a list of components: [["base"], ["left wheel", "right
wheel"]]. You may write or change it, and colours and poses in a poses.json (data_prep.cad --help).
"""

import argparse
import collections
import os
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from data_prep import command
from data_prep.products import ldraw, mesh_files, state_parts
from data_prep.products.mesh_files import Piece
from data_prep.products.meshes import ORDER, plain
from stormpsr_jax.base.files import check_name, write_json
from stormpsr_jax.psr.procedure import Procedure, load_procedure

MAX_COLOURS = 500  # of an object, that get a mesh each


def split(
    *,
    model: str | Path,
    out: str | Path,
    parts: str | Path | None = None,
    flat: bool = False,
    states_of: str | Path | None = None,
    bodies: Mapping[str, Sequence[int]] | None = None,
) -> None:
    """Writes the folder of meshes; see the module's docstring.

    Args:
        model: the file or folder.
        out: the folder, which must not exist yet.
        parts: library of LDraw.
        flat: whether the parts of submodels are components.
        states_of: name or file of the procedure whose states a folder shows.
        bodies: of components that come and go together.

    Raises:
        ValueError: an argument, a file or a line is wrong; names it.
        OSError: the folder cannot be written.
    """
    model, out = Path(model), Path(out)
    if os.path.lexists(out):
        raise ValueError(f"--out={out}: is there already; give a folder that is not")
    kind = model.suffix.lower()
    is_ldraw = kind in mesh_files.LDRAW and not model.is_dir()
    for flag, given, wanted in (
        ("parts", parts, is_ldraw),
        ("flat", flat, is_ldraw),
        ("procedure", states_of, model.is_dir()),
        ("bodies", bodies, model.is_dir()),
    ):
        if given and not wanted:
            use = (
                "models of LDraw" if is_ldraw or flag in ("parts", "flat") else "a folder of states"
            )
            raise ValueError(f"--{flag} is for {use}, and --model={model} is none")
    order: list[list[str]] = []
    if is_ldraw:
        if parts is None:
            raise ValueError(f"--model={model} needs a library: --parts=FOLDER with parts and p")
        placed = ldraw.read(model, Path(parts), flat)
        names = _names([part.title for part in placed])
        found = {
            name: [Piece(name, part.vertices, part.faces, part.colours)]
            for name, part in zip(names, placed, strict=True)
        }
        steps: list[list[str]] = [[] for _ in range(1 + max(part.step for part in placed))]
        for name, part in zip(names, placed, strict=True):
            steps[part.step].append(name)
        order = steps if len(steps) > 1 else []
    elif model.is_dir():
        if states_of is None:
            raise ValueError(f"--model={model} is a folder of states: give --procedure too")
        procedure = load_procedure(states_of)
        _check_known(bodies or {}, procedure)
        found = state_parts.parts(model, procedure, bodies or {})
    else:
        mesh_files.check_file(model)
        (pieces,) = mesh_files.read_all([model])
        objects = collections.defaultdict(list)
        for piece in pieces:
            objects[piece.number].append(piece)
        names = _names([of[0].name for of in objects.values()])
        found = dict(zip(names, objects.values(), strict=True))
    whole = out.with_name(out.name + ".part")
    shutil.rmtree(whole, ignore_errors=True)  # of a process that was killed
    try:
        whole.mkdir(parents=True)
        for name, pieces in found.items():
            (whole / f"{check_name(name, str(model))}.glb").write_bytes(_glb(pieces))
        if order:
            write_json(whole / ORDER, order)
        whole.rename(out)
    finally:
        shutil.rmtree(whole, ignore_errors=True)
    count = "1 part" if len(found) == 1 else f"{len(found)} parts"
    print(f"{out}: {count}" + (f" in {len(order)} steps" if order else ""))


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


def _glb(pieces: Sequence[Piece]) -> bytes:
    """A GLB with a mesh for each colour: of more than one in a mesh, GLB would blur the borders.

    Of very many, as a scan has, it is one mesh, whose triangles have no corner in common.
    """
    import trimesh  # here, as flags and --help do without it
    from trimesh.visual import TextureVisuals
    from trimesh.visual.material import PBRMaterial

    scene = trimesh.Scene()
    for piece in pieces:
        shown = np.where(np.isnan(piece.colours), -1, np.rint(255 * piece.colours)).astype(int)
        bare = shown[:, 0] < 0
        colours = np.unique(shown, axis=0)
        if len(colours) > MAX_COLOURS:
            corners = piece.vertices[piece.faces[~bare]].reshape(-1, 3)
            faces = np.arange(len(corners)).reshape(-1, 3)
            looks = np.repeat(shown[~bare], 3, axis=0).astype(np.uint8)
            mesh = trimesh.Trimesh(corners, faces, vertex_colors=looks, process=False)
            scene.add_geometry(mesh)
            colours = colours[colours[:, 0] < 0]
        for colour in colours:
            used, faces = np.unique(piece.faces[(shown == colour).all(axis=1)], return_inverse=True)
            mesh = trimesh.Trimesh(piece.vertices[used], faces.reshape(-1, 3), process=False)
            if colour[0] >= 0:
                material = PBRMaterial(baseColorFactor=[*colour.tolist(), 255])
                mesh.visual = TextureVisuals(material=material)
            scene.add_geometry(mesh)
    return scene.export(file_type="glb")


def _check_known(bodies: Mapping[str, Sequence[int]], procedure: Procedure) -> None:
    for name in bodies:
        if name not in procedure.components:
            raise ValueError(
                f"--bodies: {name!r} is not a component of procedure {procedure.name!r}; it has "
                f"{', '.join(procedure.components)}"
            )


def _bodies(text: str) -> dict[str, list[int]]:
    found = {}
    for entry in filter(None, map(str.strip, text.split(";"))):
        name, _, numbers = entry.partition("=")
        found[name.strip()] = [int(number) for number in numbers.split(",")]
    return found


_bodies.__name__ = 'list like "pin=2,3; screw=1"'  # argparse shows it: "invalid … value: 'x'"


def _add_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--model", required=True, metavar="PATH", help="the file or folder")
    add("--out", required=True, metavar="DIR", help="folder for the meshes, which must not exist")
    add("--parts", metavar="FOLDER", help="library of LDraw")
    add("--flat", action="store_true", help="parts of submodels are components of their own")
    what = "whose states a folder shows: a procedure file, or a packaged name"
    add("--procedure", dest="states_of", metavar="FILE", help=what)
    what = "bodies of components that come and go together"
    add("--bodies", type=_bodies, metavar='"NAME=N,N; …"', help=what)


main = command.command(
    "parts",
    __doc__,
    _add_flags,
    split,
    renders=True,
    interrupted="; nothing was written",
)

if __name__ == "__main__":
    sys.exit(main())
