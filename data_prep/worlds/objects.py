"""Random products in random states, to train a general encoder on."""

import functools
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from data_prep.products.product import random_product
from data_prep.rendering import seeds
from data_prep.worlds import rendered
from data_prep.worlds.motion import plan_views
from data_prep.worlds.workplace import Workplace, bodies_of
from data_prep.writing import shards
from data_prep.writing.parallel import Workers
from stormpsr_jax.psr.procedure import Procedure, Variant

# Objects for the general encoder have seeds from here on, the products of a run seeds below:
# what an encoder was trained on never comes up in the run that starts from it.
FIRST_OBJECT_SEED = 1_000_000_000
OBJECT_STATES = 12


def make_objects(
    out: str | Path,
    *,
    seed: int = FIRST_OBJECT_SEED,
    objects: Mapping[str, int],
    frames_per_object: int = 100,
    size: int = 64,
    num_components: int = 11,
    workers: Workers = 1,
    glob: str = "*",
) -> Procedure:
    """Writes random products in random states, to train a general encoder on.

    Each recording is one product: independent frames with their own camera, light, table, clutter
    and (half of them) hands, in a dozen states that are one change apart.

    Args:
        seed: at least FIRST_OBJECT_SEED.
        objects: number of products per split.
        frames_per_object: N.
        num_components: K of every product.
        workers: processes, or a cluster.
        glob: on the products' names; only these are made.

    Returns:
        The procedure of the data; it catalogues the complete product only.

    Raises:
        ValueError: the seed is that of a dataset.
    """
    if seed < FIRST_OBJECT_SEED:
        raise ValueError(
            f"--seed={seed} is below {FIRST_OBJECT_SEED}: such seeds are for the recordings of a "
            "run, which no general encoder may have seen."
        )
    procedure = Procedure(
        "objects",
        1.0,
        tuple(f"part {k}" for k in range(1, num_components + 1)),
        np.ones((1, num_components), np.int8),
        {"any": Variant("any", (0,) * num_components, (), ("*",))},
    )
    splits, first = {}, 0
    for split, count in objects.items():
        splits[split] = tuple(f"object_{i:05d}" for i in range(first, first + count))
        first += count
    make = functools.partial(
        make_object, procedure=procedure, seed=seed, count=frames_per_object, size=size
    )
    shards.build(
        out,
        procedure=procedure,
        image_size=(size, size),
        splits=splits,
        make=make,
        workers=workers,
        settings={"seed": seed, "frames_per_object": frames_per_object},
        recordings=glob,
        num_frames={name: frames_per_object for names in splits.values() for name in names},
    )
    return procedure


def make_object(
    split: str, name: str, *, procedure: Procedure, seed: int, count: int, size: int
) -> shards.RecordingData:
    """Renders one random product; see make_objects."""
    when, how, looks, noise = seeds.streams(seed, "object", split, name)
    product = random_product(int(when.integers(2**62)), procedure.num_components)
    known = related_states(when, procedure.num_components)
    states = known[when.integers(len(known), size=count)]
    motion = plan_views(count, how, hands=0.5)
    bodies = bodies_of(product)
    pictures = (
        Workplace(product, bodies, looks).picture(motion, i, states[i], size) for i in range(count)
    )
    return rendered.encode(name, 0, pictures, states, procedure, noise)


def related_states(rng: np.random.Generator, num_components: int) -> np.ndarray:
    """(OBJECT_STATES, K) different states, each one change away from another one."""
    states = [(rng.random(num_components) < rng.uniform(0.2, 0.8)).astype(np.int8)]
    while len(states) < OBJECT_STATES:
        state = states[rng.integers(len(states))].copy()
        k = rng.integers(num_components)
        others = [v for v in (-1, 0, 1) if v != state[k]]
        state[k] = rng.choice(others, p=(0.2, 0.8) if -1 in others else (0.5, 0.5))
        if not any((state == other).all() for other in states):
            states.append(state)
    return np.stack(states)
