"""Begins a procedure with the parts that have meshes, or writes its page with their pictures.

    python -m stormpsr_jax.procedure draft --meshes=DIR --out=FILE [--name=NAME] [--fps=F]
    python -m stormpsr_jax.procedure draft --meshes=DIR --of=FILE --page=FILE.html [--up=y]

Without --of the parts are in the order of their files' names, which is to be put right; the page
has pictures of states and incorrect installations.
"""

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from data_prep import command
from data_prep.products import product_page
from data_prep.products.mesh_files import SUFFIXES
from data_prep.products.meshes import files_of
from data_prep.products.products import from_meshes
from stormpsr_jax.base.errors import visible
from stormpsr_jax.base.files import check_name
from stormpsr_jax.procedure import template, write_new
from stormpsr_jax.recordings.procedure import load_procedure

_IN_ORDER = (
    "the parts are built in the order of their files' names: put the components in the order in "
    "which they are built, and add states and precedence if there are other orders"
)


def _make(meshes: str, of: str | None, page: str | None, up: str, **draft: Any) -> None:
    if (page is None) == (draft["out"] is None) or (of is None) != (page is None):
        raise ValueError(
            "give --out=FILE for a draft, or --of=FILE and --page=FILE.html for a page"
        )
    if page is not None and of is not None:
        procedure = load_procedure(of)
        found = from_meshes(meshes, procedure, up=up)
        product_page.write(page, found.product, procedure, found.warnings)
        _warn(found.warnings)
        print(f"{page}: {procedure.num_components} parts, {procedure.num_states} states")
        return
    files = files_of(Path(meshes))
    if not (names := list(dict.fromkeys(check_name(path.stem, str(path)) for path in files))):
        raise ValueError(f"{meshes}: holds no mesh ({', '.join(SUFFIXES)})")
    content = template(draft["name"] or Path(meshes).resolve().name, names, draft["fps"])
    content["variants"]["assembly"]["precedence"] = []
    content["draft"] = [_IN_ORDER]
    write_new(draft["out"], content)
    _warn(content["draft"])
    count = len(content["components"])
    print(f"{draft['out']}: a draft of {count} parts, {count} states")


def _warn(warnings: Iterable[str]) -> None:
    for warning in warnings:
        print(f"warning: {visible(warning)}")


def _add_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--meshes", required=True, metavar="DIR", help="a mesh for each part, named after it")
    add("--out", metavar="FILE", help="the draft to write, which must not exist")
    add("--name", help="of the product (the folder's name)")
    add("--fps", type=float, default=5.0, help="frames per second (%(default)s)")
    add("--of", metavar="FILE", help="the procedure that a page is of, or a packaged one's name")
    add("--page", metavar="FILE.html", help="the page to write")
    add("--up", choices=("z", "y"), default="z", help="axis of the meshes that points up (z)")


main = command.command("draft", __doc__, _add_flags, _make, renders=True)

if __name__ == "__main__":
    sys.exit(main())
