"""How fast are pictures drawn, against tracing their rays?

python -m benchmarks.rendering [--sizes=64,224,640] [--pictures=40] [--rounds=3]

Draws pictures of a recording of the synthetic assembly, spread over all of it, in turn by

* the rasteriser of `data_prep.rendering.scene`;
* the ray tracer that drew them before and is now the tests' reference (tests/support/tracer.py):
  Embree, a scene for each body, built once;
* Embree with one scene for all bodies, built for each picture, as most poses are others: the least
  that it can take, without shading and without asking what is hidden. (embreex has no instances,
  which would save the building.)

All in one process, in milliseconds of its processor time for a picture: the least of the rounds,
and so the ratio. Then how many pictures a second one core makes as recordings have them, with
scenes, noise and JPEG files; and what compiling takes that is done once, in a process of its own.
"""

import argparse
import functools
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
from embreex.mesh_construction import TriangleMesh
from embreex.rtcore_scene import EmbreeScene

from data_prep.products.product import toy_product
from data_prep.rendering import scene, seeds
from data_prep.worlds import hiding, motion, rendered, workplace
from data_prep.worlds.timelines import draw_timeline
from data_prep.worlds.workplace import Workplace
from stormpsr_jax.psr.procedure import load_procedure
from tests.support import tracer

ROOT = Path(__file__).parents[1]

COMPILE = """
import time
import numpy as np
from data_prep.rendering import scene
from data_prep.products.product import solid
start = time.process_time()
placed = scene.Placed(scene.Body(solid("box", (1, 1, 1), (1, 0, 0))), np.eye(4))
camera = scene.look_at(np.array([0.0, -3, 4]), np.zeros(3), 0, 0.3)
light = scene.Light(np.array([0.0, 0, 1]), np.ones(3), np.ones(3))
scene.render(placed, [], camera, light, np.ones(3), 64)
print(time.process_time() - start)
"""


def recording(size: int, spread: bool, count: int) -> Iterator[scene.Picture]:
    """`count` pictures of a recording, drawn as they are asked for: its first, or all over it."""
    procedure = load_procedure("synthetic")
    product = toy_product(seeds.streams(0, "product")[0])
    when, how, looks, _ = seeds.streams(0, "recording", "train", "train_000")
    timeline = draw_timeline(procedure, when)
    places = np.array([part.right[:2, 3] for part in product.parts])
    occlusion = hiding.OCCLUSIONS["default"]
    motions = motion.plan_recording(timeline, places, procedure.fps, occlusion, how)
    states = timeline.per_frame()
    body = functools.lru_cache(12)(lambda state: scene.Body(product.mesh(state)))
    place = Workplace(product, body, looks)
    last = timeline.num_frames - 1 if spread else count - 1
    for i in np.linspace(0, last, count).astype(int):
        yield place.picture(motions, i, states[i], size)


def arguments_of_render(size: int, count: int) -> list[tuple]:
    """What `scene.render` is called with for pictures from all of a recording."""
    calls: list[tuple] = []
    before = workplace.render
    workplace.render = lambda *args, **_: calls.append(args)  # of world toy: no lens
    try:
        list(recording(size, True, count))
    finally:
        workplace.render = before
    return calls


def edge_rays(product, others, camera, light, ground, size) -> list[np.ndarray]:
    """The points through which the reference traces rays, first once and then at edges."""
    points = tracer.grid(size)
    colours = tracer.Scene(camera, [product, *others], light, ground).trace(points).colours
    edges = tracer.find_edges(np.sqrt(colours).reshape(size, size, 3)).ravel()
    return [points, np.tile(points[edges], (4, 1))]


def one_scene(points: list[np.ndarray], product, others, camera, *_) -> None:
    """Traces rays through points in a scene of all bodies."""
    embree = EmbreeScene()
    for body, pose in ((p.body, p.pose) for p in (product, *others)):
        vertices = body.vertices @ pose[:3, :3].T + pose[:3, 3]
        TriangleMesh(embree, vertices.astype(np.float32), body.faces)
    for some in points:
        origin = np.tile(camera.position.astype(np.float32), (len(some), 1))
        embree.run(origin, tracer.rays(camera, some), output=1)


def seconds(function: Callable, calls: Iterable[tuple]) -> float:
    """Of the processor."""
    start = time.process_time()
    for args in calls:
        function(*args)
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", default="64,224,640")
    parser.add_argument("--pictures", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    print("| pixels | rasteriser, ms | ray tracer, ms | ratio | one scene, ms | made, pictures/s |")
    print("|---|---|---|---|---|---|")
    procedure = load_procedure("synthetic")
    for size in map(int, args.sizes.split(",")):
        count = max(2, min(args.pictures, args.pictures * 224 // size))
        calls = arguments_of_render(size, count)
        one = [(edge_rays(*call), *call) for call in calls]
        sides = {
            "rasteriser": (scene.render, calls),
            "tracer": (tracer.render, calls),
            "one scene": (one_scene, one),
        }
        least = dict.fromkeys([*sides, "whole"], np.inf)
        for function, its_calls in sides.values():
            seconds(function, its_calls)  # compiles, and builds what lasts
        for _ in range(args.rounds):
            for name, (function, its_calls) in sides.items():
                least[name] = min(least[name], seconds(function, its_calls) / count)
            states = np.zeros((10 * count, procedure.num_components), np.int8)
            pictures = recording(size, False, len(states))
            made = rendered.encode("", 0, pictures, states, procedure, np.random.default_rng(0))
            least["whole"] = min(least["whole"], seconds(list, [(made.jpegs,)]) / len(states))
        ours, rays = least["rasteriser"], least["tracer"]
        print(
            f"| {size} | {1e3 * ours:.2f} | {1e3 * rays:.2f} | {rays / ours:.1f} | "
            f"{1e3 * least['one scene']:.2f} | {1 / least['whole']:.0f} |",
            flush=True,
        )
    with tempfile.TemporaryDirectory() as folder:
        cold, kept = (compiling(folder) for _ in range(2))
    print(f"compiled in {cold:.1f} s of processor time, read back in {kept:.1f} s")


def compiling(folder: str) -> float:
    """Processor time until a first picture is there, with numba's files in a folder."""
    env = {**os.environ, "NUMBA_CACHE_DIR": folder, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", COMPILE], env=env, capture_output=True, text=True, check=True
    )
    return float(done.stdout)


if __name__ == "__main__":
    main()
