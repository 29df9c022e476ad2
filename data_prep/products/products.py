"""Products to assemble: the toy, or of the meshes of a user's parts."""

import colorsys
import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from data_prep.products import meshes as products_meshes
from data_prep.products.meshes import load_product
from data_prep.products.product import Product, toy_product
from data_prep.rendering import ranges
from data_prep.rendering.scene import Body, Light, Placed, around, render
from stormpsr_jax.recordings.procedure import Procedure, load_procedure

_MOST = 0.5  # of the smaller box in the other: so much of most pairs have parts that lie on a heap
_TINY = 0.01  # of the product's size: no part is that small, unless its unit is another one
_NEAR = 0.005  # of it: parts so close may touch
_UNITS = {"inches": 25.4, "metres": 1000.0, "cm": 10.0}  # and how many mm they are
# Cameras that look for a part: turns around the product and degrees above the table, as renders are
# seen from; a part that fewer than so many of them see shows by chance alone.
_AROUND, _ABOVE, _LEAST = 8, (35.0, 60.0), 3
_SIZE = 64  # pixels
_SEEN = 6.0  # pixels of a part in one of the pictures, that it is seen


def warnings(product: Product, procedure: Procedure) -> list[str]:
    """What is odd about a product and its files, a line each; its K parts are the components."""
    names = procedure.components
    placed = [part.mesh.moved(part.right).vertices for part in product.parts]
    boxes = np.array([(v.min(axis=0), v.max(axis=0)) for v in placed]) - product.origin
    lines = _heap(boxes), _other_units(boxes, names), _same(product, names)
    return list(itertools.chain(product.notes, *lines, _unseen(product, procedure)))


def _heap(boxes: np.ndarray) -> Iterator[str]:
    """Whether most parts, by their boxes (K, 2, 3), lie in each other."""
    pairs = list(itertools.combinations(boxes, 2))
    within = 0
    for a, b in pairs:
        common = np.clip(np.minimum(a[1], b[1]) - np.maximum(a[0], b[0]), 0, None).prod()
        within += common > _MOST * min(np.ptp(a, axis=0).prod(), np.ptp(b, axis=0).prod())
    if len(pairs) > 1 and within > len(pairs) / 2:
        yield (
            f"most parts lie in each other ({within} of {len(pairs)} pairs of boxes around them); "
            "if they do not in the product, export them in the places that they have in it, or say "
            "where they go in poses.json"
        )


def _other_units(boxes: np.ndarray, names: Sequence[str]) -> Iterator[str]:
    """Parts, by their boxes (K, 2, 3), that may be in another unit."""
    size = float(np.linalg.norm(boxes[:, 1].max(axis=0) - boxes[:, 0].min(axis=0)))
    for k, name in enumerate(names):
        share = float(np.linalg.norm(boxes[k, 1] - boxes[k, 0]) / size)
        others = np.delete(boxes, k, axis=0)
        units = " or ".join(
            unit
            for unit, factor in _UNITS.items()
            if _TINY < factor * share < 1 and _meets(factor * boxes[k], others, size)
        )
        if share >= _TINY and (not units or _meets(boxes[k], others, size)):
            continue
        what = f"is {share:.1g} of the product's size" if share < _TINY else "is by itself"
        if units:
            what += f" (it would fit if its numbers are {units}, and the others' mm)"
        yield f"{name}: {what}; look at its unit and its pose"


def _meets(box: np.ndarray, others: np.ndarray, size: float) -> bool:
    apart = np.maximum(box[0] - others[:, 1], others[:, 0] - box[1])
    return bool((apart.max(axis=1) <= _NEAR * size).any())


def _same(product: Product, names: Sequence[str]) -> Iterator[str]:
    coloured = product.coloured or (True,) * len(names)
    meshes = [part.mesh for part in product.parts]
    shown = [dataclasses.replace(mesh, colours=np.sqrt(mesh.colours)) for mesh in meshes]
    for group in products_meshes.groups(shown, coloured):
        alike = [names[k] for k in group]
        yield (
            f"{', '.join(alike[:-1])} and {alike[-1]} look the same; they differ in "
            "their places alone, so nobody can see that they were swapped"
        )


def _unseen(product: Product, procedure: Procedure) -> Iterator[str]:
    for k, name in enumerate(procedure.components):
        states = procedure.states[procedure.states[:, k] == 1]
        order = np.argsort(states.sum(axis=1), kind="stable")
        if len(states) and not any(_seen(product, states[s], k) for s in order):
            yield (
                f"{name}: hardly a camera sees it in any catalogued state (from {_AROUND} sides, "
                f"{_ABOVE[0]:g} and {_ABOVE[1]:g} degrees above the table), so nobody can see "
                "whether it is there: catalogue a state before it is covered, or leave it out"
            )


def _seen(product: Product, state: np.ndarray, k: int) -> bool:
    for j, part in enumerate(product.parts):  # white amid black ones
        grey = np.full_like(part.mesh.colours, float(j == k))
        product = product.changed(j, mesh=dataclasses.replace(part.mesh, colours=grey))
    body = Placed(Body(product.mesh(state)), np.eye(4))
    light = Light(np.array([0.0, 0.0, 1.0]), np.ones(3), np.zeros(3))
    whole = product.mesh(np.ones(len(product.parts)))
    turns = 2 * np.pi * np.arange(_AROUND) / _AROUND
    cameras = (around(whole, turn, above) for above in np.radians(_ABOVE) for turn in turns)
    pictures = (render(body, [], camera, light, np.zeros(3), _SIZE) for camera in cameras)
    seen = (picture for picture in pictures if np.square(picture.image[..., 0]).sum() > _SEEN)
    return len(list(itertools.islice(seen, _LEAST))) == _LEAST


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
    found = warnings(product, procedure)
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
    rng = ranges.streams(seed, "cad colours")[0]
    hues = (rng.permutation(count) + rng.random()) / count
    return [
        np.array(colorsys.hsv_to_rgb(hue, rng.uniform(0.45, 1.0), rng.uniform(0.35, 1.0)))
        for hue in hues
    ]


def find(
    *,
    meshes: str | Path | None = None,
    procedure: Procedure | None = None,
    poses: str | Path | None = None,
    up: str = "z",
    seed: int = 0,
) -> Assembly:
    """The product that flags or fields tell, or the toy; ValueError: they do not fit each other."""
    if not meshes:
        if poses or procedure is not None:
            raise ValueError("--procedure and --poses are of --meshes: give that too")
        toy = toy_product(ranges.streams(seed, "product")[0])
        return Assembly(toy, load_procedure("synthetic"), {})
    if procedure is None:
        raise ValueError(f"--meshes={meshes}: give --procedure=FILE too, whose components they are")
    return from_meshes(meshes, procedure, poses=poses, seed=seed, up=up)
