"""A first procedure for a product, and a page to look at, from the meshes of its parts.

This is what `python -m stormpsr_jax.procedure draft` and `show --meshes` do.
"""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data_prep.products import building, product_page, relations, warnings
from data_prep.products.mesh_files import SUFFIXES
from data_prep.products.meshes import ORDER, files_of, load_product, read_inputs
from data_prep.products.product import Product
from data_prep.products.products import drawn_colours, from_meshes
from stormpsr_jax.base.files import check_name, read_json, shorten
from stormpsr_jax.psr.procedure import Procedure

MAX_PARTS = 200


@dataclasses.dataclass(frozen=True)
class Draft:
    """A drafted procedure.

    Attributes:
        product: its parts, in the order of the components.
        rules: in the order of `precedence`, why each holds.
    """

    content: dict[str, Any]
    product: Product
    rules: list[str]

    def write_page(self, path: str | Path) -> None:
        """Writes a page of it to look at; OSError if it cannot be written."""
        procedure = Procedure.from_json(self.content)
        product_page.write(path, self.product, procedure, self.content["draft"], self.rules)


def draft(meshes: str | Path, *, name: str, fps: float, limit: int, y_up: bool = False) -> Draft:
    """Drafts a procedure from the files' names and from what touches, carries or blocks what.

    Args:
        meshes: folder of part meshes, of which `order.json` may say the order of building.
        limit: how many states are catalogued at most.
        y_up: y of the meshes points up, not z.

    Raises:
        ValueError: a mesh or a file is wrong, or the limit is too small for the parts.
    """
    folder = Path(meshes)
    names = list(dict.fromkeys(check_name(path.stem, str(path)) for path in files_of(folder)))
    if not names:
        raise ValueError(f"{folder}: holds no mesh ({', '.join(SUFFIXES)})")
    if len(names) > MAX_PARTS:
        raise ValueError(f"{folder}: holds {len(names)} meshes, more than {MAX_PARTS} parts")
    if limit < len(names):
        raise ValueError(f"--states={limit}: the order of {len(names)} parts has as many states")
    steps = _steps(folder / ORDER, names)
    in_order = [part for step in steps for part in step] or names
    whole = _content(name, fps, in_order, ["1" * len(in_order)], [])
    given = Procedure.from_json(whole, "draft")
    colours = drawn_colours(0, len(in_order))
    product = load_product(read_inputs(folder, given), given, y_up=y_up, drawn=colours)
    found = relations.find(product)
    numbers = {part: k for k, part in enumerate(in_order)}
    plan = building.plan(found, in_order, [[numbers[part] for part in step] for step in steps])
    states, total = building.states(plan, limit)
    place = {k: n for n, k in enumerate(plan.order)}
    content = _content(
        name,
        fps,
        [in_order[k] for k in plan.order],
        ["".join(map(str, row)) for row in states[:, plan.order].tolist()],
        [[3 * place[rule.before], 3 * place[rule.after]] for rule in plan.rules],
    )
    procedure = Procedure.from_json(content, "draft")
    parts = tuple(product.parts[k] for k in plan.order)
    coloured = tuple(product.coloured[k] for k in plan.order)
    product = dataclasses.replace(product, parts=parts, coloured=coloured)
    notes = warnings.warnings(product, procedure)
    if total > len(states):
        more = "more than " if total == building.MAX_COUNTED else ""
        notes.append(
            f"{len(states)} of {more}{total:,} states are catalogued, those of some orders "
            "(--states=N for more, or more precedence for fewer)"
        )
    return Draft({**content, "draft": notes}, product, [rule.why for rule in plan.rules])


def write_page(
    path: str | Path, meshes: str | Path, procedure: Procedure, y_up: bool = False
) -> list[str]:
    """Writes the page of a procedure whose parts have meshes, and returns the warnings.

    Raises:
        ValueError: a mesh is missing or wrong.
        OSError: the page cannot be written.
    """
    of = from_meshes(meshes, procedure, up="y" if y_up else "z")
    product_page.write(path, of.product, procedure, of.warnings)
    return list(of.warnings)


def _steps(path: Path, names: Sequence[str]) -> list[list[str]]:
    """The building steps of `order.json`; none without that file."""
    if not os.path.lexists(path):
        return []
    content = read_json(path)
    if not isinstance(content, list) or not all(isinstance(step, list) for step in content):
        raise ValueError(f'{path}: is not a list of steps such as [["base"], ["lid", "knob"]]')
    parts = [part for step in content for part in step]
    for part in parts:
        if part not in names:
            raise ValueError(f"{path}: {shorten(part)} has no mesh; there are {', '.join(names)}")
        if parts.count(part) > 1:
            raise ValueError(f"{path}: {shorten(part)} is there twice")
    if missing := [name for name in names if name not in parts]:
        raise ValueError(f"{path}: {', '.join(missing)} are in no step")
    return [step for step in content if step]


def _content(
    name: str, fps: float, components: Sequence[str], states: Sequence[str], rules: list[list[int]]
) -> dict[str, Any]:
    """The content of a procedure file: assembly, in which every part may come off again."""
    steps = range(0, 3 * len(components), 3)
    return {
        "name": name,
        "fps": fps,
        "components": list(components),
        "states": list(states),
        "variants": {
            "assembly": {
                "initial_state": "0" * len(components),
                "expected": list(steps),
                "allowed": [step + 2 for step in steps],
                "recordings": ["*"],
                "precedence": rules,
            }
        },
    }
