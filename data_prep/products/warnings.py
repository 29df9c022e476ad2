"""Warnings about a product, or about how a procedure builds it, before it is rendered."""

import dataclasses
from collections.abc import Iterator

import numpy as np

from data_prep.products import building, look_alikes, relations, views
from data_prep.products.product import Product
from data_prep.products.relations import Relations
from data_prep.rendering.mesh import Mesh
from data_prep.rendering.scene import Body, Light, Placed, render
from stormpsr_jax.psr.procedure import Procedure, Variant

DEEP = relations.NEAR  # of the product's size: parts that are further in each other are told
_SHARE = 0.01  # of the smaller part that is in the other
_MOST = 0.25  # of it: so much of most pairs have only parts that lie on top of each other
_ALL = 0.9  # of a part that is in another: then it is within that one
_TINY = 0.01  # of the product's size: no part is that small, unless its unit is another one
_UNITS = {"inches": 25.4, "metres": 1000.0, "cm": 10.0}  # and how many mm they are
# Cameras that look for a part: turns around the product and degrees above the table, as renders are
# seen from; a part that fewer than so many of them see shows by chance alone.
_AROUND, _ABOVE, _LEAST = 8, (35.0, 60.0), 3
_SIZE = 64  # pixels
_SEEN = 6.0  # pixels of a part in one of the pictures, that it is seen


def warnings(product: Product, procedure: Procedure) -> list[str]:
    """What is odd about a product's files, its parts and its order, a line each.

    Args:
        product: its K parts in their right places, on the table.
        procedure: of K components, in the same order.

    Raises:
        ValueError: the parts lie on top of each other, so that nothing could be made of them.
    """
    found = relations.find(product)
    names = procedure.components
    lines = list(product.notes)
    lines += _overlaps(product, found, procedure)
    lines += _other_units(product, found, names)
    lines += _same(product, names)
    lines += _unbuildable(procedure, found)
    lines += _unseen(product, procedure)
    return lines


def _overlaps(product: Product, found: Relations, procedure: Procedure) -> Iterator[str]:
    """Parts that are in each other, of those that are there at the same time."""
    names = procedure.components
    vertices = product.mesh(np.ones(len(product.parts))).vertices
    size = float(np.linalg.norm(np.ptp(vertices, axis=0)))
    count = len(names)
    smaller = np.maximum(np.minimum.outer(found.volumes, found.volumes), 1e-12)
    share = found.overlap / smaller
    pairs = count * (count - 1) // 2
    on_top = int(np.triu(share > _MOST, 1).sum())
    if count > 2 and on_top > pairs / 2:
        raise ValueError(
            f"the parts lie on top of each other ({on_top} of {pairs} pairs): export them in the "
            "places that they have in the product, or say where they go in poses.json"
        )
    states = np.array([*procedure.states, *map(_end, procedure.variants.values())], bool)
    together = (states[:, :, None] & states[:, None, :]).any(axis=0)
    for i in range(count):
        for j in range(i + 1, count):
            if not together[i, j]:
                continue  # one stands for the other
            if found.depth[i, j] > DEEP * size and share[i, j] > _SHARE:
                small = names[i] if found.volumes[i] <= found.volumes[j] else names[j]
                yield (
                    f"{names[i]} and {names[j]} are {found.depth[i, j] / product.scale:.2g} in "
                    f"each other ({min(share[i, j], 1):.0%} of {small}); look at their meshes and "
                    "poses"
                )


def _end(variant: Variant) -> np.ndarray:
    """The state (K,) after all that a variant expects."""
    expected = set(variant.expected)
    kept = (bit and 3 * k + 2 not in expected for k, bit in enumerate(variant.initial_state))
    return np.array([there or 3 * k in expected for k, there in enumerate(kept)], bool)


def _other_units(product: Product, found: Relations, names: tuple[str, ...]) -> Iterator[str]:
    """Parts that are tiny, by themselves, or within another one: these may be in another unit."""
    placed = [part.mesh.moved(part.right).vertices for part in product.parts]
    boxes = np.array([(v.min(axis=0), v.max(axis=0)) for v in placed]) - product.origin
    size = float(np.linalg.norm(boxes[:, 1].max(axis=0) - boxes[:, 0].min(axis=0)))
    for k, name in enumerate(names):
        share = float(np.linalg.norm(boxes[k, 1] - boxes[k, 0]) / size)
        others = np.delete(boxes, k, axis=0)
        inside = found.overlap[k] > _ALL * found.volumes[k]
        units = " or ".join(
            unit
            for unit, factor in _UNITS.items()
            if _TINY < factor * share < 1 and _meets(factor * boxes[k], others, size)
        )
        if share < _TINY:
            what = f"is {share:.1g} of the product's size"
        elif len(others) and not found.touches[k].any():
            if found.grounded[k] and not units:  # it stands on the table by itself
                continue
            what = "touches no other part"
        elif inside.any() and units:
            what = f"is within {names[int(inside.argmax())]}"
        else:
            continue
        if units:
            what += f" (it would fit if its numbers are {units}, and the others' mm)"
        yield f"{name}: {what}; look at its unit and its pose"


def _meets(box: np.ndarray, others: np.ndarray, size: float) -> bool:
    """Whether a box (2, 3) touches one of others (N, 2, 3) of a product of a size."""
    apart = np.maximum(box[0] - others[:, 1], others[:, 0] - box[1])
    return bool((apart.max(axis=1) <= relations.NEAR * size).any())


def _same(product: Product, names: tuple[str, ...]) -> Iterator[str]:
    """Parts that no picture tells apart where they lie loose."""
    coloured = product.coloured or (True,) * len(names)
    meshes = [part.mesh for part in product.parts]
    shown = [dataclasses.replace(mesh, colours=np.sqrt(mesh.colours)) for mesh in meshes]
    for group in look_alikes.groups(shown, coloured):
        alike = [names[k] for k in group]
        yield (
            f"{', '.join(alike[:-1])} and {alike[-1]} look the same; they differ in "
            "their places alone, so nobody can see that they were swapped"
        )


def _unbuildable(procedure: Procedure, found: Relations) -> Iterator[str]:
    """Parts whose way is closed when they come, and those that nothing would hold."""
    names = procedure.components
    for variant in procedure.variants.values():
        there = {k for k, bit in enumerate(variant.initial_state) if bit}
        for k in sorted({step // 3 for step in variant.expected if step % 3 == 0} - there):
            before = (there | _before(variant, k)) - {k}
            if before and not building.ways_out(found, k, before):
                yield (
                    f"variant {variant.name}: {names[k]} would have to pass through another part: "
                    f"{', '.join(names[j] for j in sorted(before))} come before it, and in its way "
                    f"are {building.in_the_way(found, names, k, before)}; look at precedence"
                )
            needed = before if variant.precedence else set(np.flatnonzero(_end(variant)).tolist())
            if k not in building.standing(found, needed | {k}):
                which = ", ".join(names[j] for j in sorted(needed - {k})) or "nothing"
                yield (
                    f"variant {variant.name}: {names[k]} would hover: what comes before it "
                    f"({which}) does not hold it over the table; look at its pose and at precedence"
                )
    known = {state.tobytes() for state in procedure.states}
    known |= {np.array(v.initial_state, np.int8).tobytes() for v in procedure.variants.values()}
    for k, name in enumerate(names):
        fitted = []
        for state in procedure.states[procedure.states[:, k] == 1]:
            earlier = state.copy()
            earlier[k] = 0
            if earlier.tobytes() in known and earlier.any():
                fitted.append(set(np.flatnonzero(earlier).tolist()))
        if fitted and not any(building.ways_out(found, k, others) for others in fitted):
            yield (
                f"states: {name} would have to pass through another part in each of them: of "
                f"{', '.join(names[j] for j in sorted(fitted[0]))}, in its way are "
                f"{building.in_the_way(found, names, k, fitted[0])}; look at the states before it"
            )


def _before(variant: Variant, k: int) -> set[int]:
    """The parts whose installation has to come before that of part k."""
    found: set[int] = set()
    waiting = [3 * k]
    while waiting:
        after = waiting.pop()
        for first, second in variant.precedence:
            if second == after and first % 3 == 0 and first // 3 not in found:
                found.add(first // 3)
                waiting.append(first)
    return found


def _unseen(product: Product, procedure: Procedure) -> Iterator[str]:
    """Parts that are hidden in every catalogued state in which they are installed."""
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
    pieces = []
    for j in np.flatnonzero(state):
        mesh = product.parts[j].mesh.moved(product.parts[j].right)
        colours = np.full((len(mesh.faces), 3), float(j == k))
        pieces.append(Mesh(mesh.vertices, mesh.faces, colours))
    body = Placed(Body(*pieces), np.eye(4))
    light = Light(np.array([0.0, 0.0, 1.0]), np.ones(3), np.zeros(3))
    whole, count = product.mesh(np.ones(len(product.parts))), 0
    for above in np.radians(_ABOVE):
        for turn in 2 * np.pi * np.arange(_AROUND) / _AROUND:
            camera = views.around(whole, turn, above)
            picture = render(body, [], camera, light, np.zeros(3), _SIZE)
            count += float(np.square(picture.image[..., 0]).sum()) > _SEEN
            if count == _LEAST:
                return True
    return False
