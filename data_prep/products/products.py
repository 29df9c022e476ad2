"""Products to assemble: the toy, of the meshes of a user's parts, or drawn at random."""

import colorsys
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from data_prep.products import warnings
from data_prep.products.meshes import load_product
from data_prep.products.product import BOARD_THICKNESS, Product, random_product, toy_product
from data_prep.rendering import seeds
from stormpsr_jax.recordings.procedure import Procedure, Variant, load_procedure

COMPONENTS = (5, 9)  # of a product that is drawn, fewest and most
MAX_STATES = 30  # that its catalogue has at most
FPS = 5.0  # of its procedure
_NAMES = (
    "base", "frame", "cover", "handle", "motor", "valve", "spring", "lever", "knob", "nozzle",
    "bracket", "gauge", "filter", "seal", "plug", "hinge",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Assembly:
    """A product, what is done with it, JSON values that change with it, what is odd about it."""

    product: Product
    procedure: Procedure
    settings: dict[str, Any]
    warnings: tuple[str, ...] = ()


def from_meshes(
    meshes: str | Path,
    procedure: Procedure,
    *,
    poses: str | Path | None = None,
    seed: int = 0,
    up: str = "z",
) -> Assembly:
    """Reads a product, as of `load_product`; `seed` is of the colours of parts that have none."""
    drawn = drawn_colours(seed, procedure.num_components)
    product, checksum = load_product(meshes, procedure, drawn, poses, y_up=up == "y")
    settings = {"meshes": checksum, "y_up": up == "y"}
    found = warnings.warnings(product, procedure)
    return Assembly(dataclasses.replace(product, kit=True), procedure, settings, tuple(found))


def show_drawn_colours(of: Assembly, out: Path) -> None:
    """If colours are drawn, writes OUT/product.html with the parts as rendered, and says so."""
    if all(of.product.coloured):
        return
    from data_prep.products import product_page  # here, as most products have colours

    path = out / "product.html"
    product_page.write(path, of.product, of.procedure, of.warnings)
    logging.warning("%s shows the parts in the colours that they are rendered in", path)


def drawn_colours(seed: int, count: int) -> list[np.ndarray]:
    """Display colours (3,) for parts that have none; any two differ in hue or brightness."""
    rng = seeds.streams(seed, "cad colours")[0]
    hues = (rng.permutation(count) + rng.random()) / count
    return [
        np.array(colorsys.hsv_to_rgb(hue, rng.uniform(0.45, 1.0), rng.uniform(0.35, 1.0)))
        for hue in hues
    ]


def drawn(seed: int) -> Assembly:
    """A product drawn at random, with a procedure of as random an order.

    A part on top of another one waits for it, and most others wait for some that come before them,
    until at most MAX_STATES states are possible, which are the catalogue.
    """
    rng = np.random.default_rng([seed, *b"product"])
    count = int(rng.integers(COMPONENTS[0], COMPONENTS[1] + 1))
    product = dataclasses.replace(random_product(seed, count), kit=True)
    pairs = _stacked(product)
    order = rng.permutation(count).tolist()
    order.sort(key=lambda k: k in {after for _, after in pairs})  # on top comes after below
    every = (np.arange(2**count)[:, None] >> np.arange(count)) & 1
    while len(states := _possible(every, pairs)) > MAX_STATES:
        later = int(rng.integers(1, count))
        pairs.add((order[int(rng.integers(later))], order[later]))
    expected = tuple(range(0, 3 * count, 3))
    precedence = tuple((3 * a, 3 * b) for a, b in sorted(pairs))
    names = rng.permutation(_NAMES)[:count].tolist()
    variant = Variant("assembly", (0,) * count, expected, ("*",), precedence)
    procedure = Procedure(f"drawn {seed}", FPS, tuple(names), states, {variant.name: variant})
    return Assembly(product, procedure, {"product_seed": seed})


def _stacked(product: Product) -> set[tuple[int, int]]:
    """(below, on top) of the parts that stand on others."""
    bottoms = [part.right[2, 3] - part.height / 2 for part in product.parts]
    on_board = [k for k, bottom in enumerate(bottoms) if bottom < BOARD_THICKNESS + 1e-6]
    places = np.array([part.right[:2, 3] for part in product.parts])
    return {
        (min(on_board, key=lambda j: np.linalg.norm(places[j] - places[k])), k)
        for k in range(len(bottoms))
        if k not in on_board
    }


def _possible(states: np.ndarray, pairs: set[tuple[int, int]]) -> np.ndarray:
    """Those of the states (N, K) in which nothing is there before what it waits for."""
    allowed = np.ones(len(states), bool)
    for before, after in pairs:
        allowed &= states[:, before] >= states[:, after]
    found = states[allowed]
    return found[np.argsort(found.sum(axis=1), kind="stable")].astype(np.int8)


def find(
    *,
    meshes: str | Path | None = None,
    procedure: Procedure | None = None,
    poses: str | Path | None = None,
    up: str = "z",
    product_seed: int | None = None,
    seed: int = 0,
) -> Assembly:
    """The product that flags or fields tell, or the toy; ValueError: they do not fit each other."""
    if product_seed is not None:
        if meshes or poses or procedure is not None:
            raise ValueError(
                f"--product_seed={product_seed} draws a product and its procedure: leave out "
                "--meshes, --poses and --procedure"
            )
        return drawn(product_seed)
    if not meshes:
        if poses or procedure is not None:
            raise ValueError("--procedure and --poses are of --meshes: give that too")
        toy = toy_product(seeds.streams(seed, "product")[0])
        return Assembly(toy, load_procedure("synthetic"), {})
    if procedure is None:
        raise ValueError(f"--meshes={meshes}: give --procedure=FILE too, whose components they are")
    return from_meshes(meshes, procedure, poses=poses, seed=seed, up=up)
