"""The parts of a product by the files of their meshes, and its page.

`python -m stormpsr_jax.procedure draft` and `show --meshes` ask here.
"""

from pathlib import Path

from data_prep.products import product_page
from data_prep.products.mesh_files import SUFFIXES
from data_prep.products.meshes import files_of
from data_prep.products.products import from_meshes
from stormpsr_jax.base.files import check_name
from stormpsr_jax.recordings.procedure import Procedure


def part_names(meshes: str | Path) -> list[str]:
    """Returns the names of a folder's mesh files, sorted; ValueError if it has none."""
    folder = Path(meshes)
    if (order := folder / "order.json").exists():
        raise ValueError(f"{order}: is not read; remove it, and put the draft's parts in order")
    names = list(dict.fromkeys(check_name(path.stem, str(path)) for path in files_of(folder)))
    if not names:
        raise ValueError(f"{folder}: holds no mesh ({', '.join(SUFFIXES)})")
    return names


def write_page(
    path: str | Path, meshes: str | Path, procedure: Procedure, y_up: bool = False
) -> list[str]:
    """Writes the page of a procedure whose parts have meshes, and returns the warnings.

    Raises:
        ValueError: a mesh is missing or wrong.
    """
    of = from_meshes(meshes, procedure, up="y" if y_up else "z")
    product_page.write(path, of.product, procedure, of.warnings)
    return list(of.warnings)
