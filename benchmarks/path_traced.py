"""Does a detector that has seen our renders alone tell right from incorrect parts in others?

    python -m benchmarks.path_traced RUN… [--pictures=240] [--record=path_traced]

RUN are work folders whose stages `data` and `detector` are finished, of config `cad` with a product
that is drawn, or of the toy. Mitsuba 3, a path tracer (`pip install mitsuba`, an extra of nobody),
shows their products at work: soft shadows, light from one thing on another, rough and shiny
plastic, hands of its own. Nothing of it is ours but the meshes and the order of steps. A worn
camera takes half of the pictures, one of any side and lower down the others. Prints, for each RUN
and camera, the area under the ROC curve of the logits of one part in all pictures, a mean over
parts: "right" between correct and incorrect ones, "installed" between those that are there or not.
"""

import argparse
import functools
import math
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from benchmarks import record
from data_prep.products import products
from data_prep.products.product import Product
from data_prep.products.wrong_poses import with_wrong_poses
from data_prep.rendering.mesh import Mesh, affine
from data_prep.worlds.timelines import draw_timeline
from stormpsr_jax.base import files
from stormpsr_jax.base.progress import Bar
from stormpsr_jax.psr import analysis
from stormpsr_jax.serving.functions import Network, functions
from stormpsr_jax.stages import config_flag, order
from stormpsr_jax.stages.detector import MAX_DETECTIONS
from stormpsr_jax.stages.run import run_of
from stormpsr_jax.training.checkpoint import load_best
from stormpsr_jax.training.devices import make_mesh

SIZE, SAMPLES = 128, 24  # pixels each way, halved before a network sees them; rays a pixel
WRONG = 0.45  # chance that a part is put on wrong first
CAMERAS = {"worn": ((42, 68), (-32, 32)), "anywhere": ((12, 60), (40, 320))}  # degrees up, around
SKINS = ((0.75, 0.5, 0.38), (0.55, 0.33, 0.22), (0.3, 0.17, 0.11), (0.16, 0.09, 0.06))
FINGERS = ((-0.31, 0.6), (-0.1, 0.78), (0.11, 0.72), (0.3, 0.5))  # where they begin, and length


def colour(values: Any) -> dict[str, Any]:
    """A linear RGB colour."""
    return {"type": "rgb", "value": np.clip(values, 0.01, 0.95).tolist()}


def surface(mi: Any, mesh: Mesh, pose: np.ndarray, rng: np.random.Generator) -> Any:
    """A mesh in its colours at a pose; each face has corners of its own, so that it is flat."""
    albedo = {"type": "mesh_attribute", "name": "face_color"}
    matt = {"type": "twosided", "of": {"type": "diffuse", "reflectance": albedo}}
    plastic = {"type": "principled", "base_color": albedo, "roughness": rng.uniform(0.3, 0.7)}
    properties = mi.Properties()
    properties["bsdf"] = mi.load_dict(plastic if rng.random() < 0.6 else matt)
    corners = (mesh.vertices @ pose[:3, :3].T + pose[:3, 3])[mesh.faces]
    count = len(mesh.faces)
    made = mi.Mesh("part", 3 * count, count, props=properties)
    made.add_attribute("face_color", 3, np.clip(mesh.colours, 0.005, 0.95).ravel().tolist())
    values = mi.traverse(made)
    values["vertex_positions"] = corners.ravel().astype(np.float32)
    values["faces"] = np.arange(3 * count, dtype=np.uint32)
    values.update()
    return made


def hand(mi: Any, place: np.ndarray, side: int, rng: np.random.Generator) -> dict[str, Any]:
    """A hand (side 1 right, −1 left) whose palm is at `place`, and its arm."""
    skin = np.asarray(SKINS[rng.integers(len(SKINS))]) * rng.uniform(0.85, 1.15)
    sleeve = skin if rng.random() < 0.3 else rng.uniform(0.03, 0.8, 3)
    flesh = {"type": "roughplastic", "alpha": 0.35, "diffuse_reflectance": colour(skin)}
    to_world = mi.ScalarTransform4f(affine((0, 0, 0.35 * side), place).tolist())
    shapes: list[dict[str, Any]] = []

    def limb(start: Any, end: Any, radius: float, bsdf: Any = flesh) -> None:
        shapes.append({"type": "cylinder", "p0": start, "p1": end, "radius": radius, "bsdf": bsdf})
        shapes.append({"type": "sphere", "center": end, "radius": radius, "bsdf": bsdf})

    for x in (-0.2, 0.2):
        limb([x, -0.3, 0], [x, 0.3, 0], 0.2)
    for x, length in FINGERS:
        curl, joint = rng.uniform(0.2, 0.7), [1.1 * side * x, 0.4 + 0.55 * length, 0.04]
        limb([side * x, 0.38, 0], joint, 0.1)
        limb(joint, [joint[0], 0.4 + (1 - 0.5 * curl) * length, -curl * length], 0.085)
    limb([-0.3 * side, -0.1, 0], [-0.62 * side, 0.3, -0.2], 0.12)
    limb([0, -0.3, 0], [0, -1.1, 0.2], 0.22)
    cloth = {"type": "diffuse", "reflectance": colour(sleeve)}
    limb([0, -1, 0.2], [0.3 * side, -8, 3.2], 0.42, cloth)
    return {f"hand_{side}_{i}": {"to_world": to_world, **one} for i, one in enumerate(shapes)}


def scene(
    mi: Any, product: Product, state: np.ndarray, camera: str, rng: np.random.Generator
) -> Any:
    """A product in a state (K,) at a workplace that `rng` draws; the camera is of CAMERAS."""
    move = mi.ScalarTransform4f
    vertices = product.mesh(np.ones(len(product.parts))).vertices
    radius, top = np.linalg.norm(np.abs(vertices[:, :2]).max(0)), vertices[:, 2].max()
    lamp, tint = rng.uniform(0.6, 4), 1 + rng.uniform(-0.15, 0.15, 3) * (1, 0.3, 1)
    level = rng.uniform(0.5, 1.2) * 250 / (math.pi * lamp**2) * tint
    above = [*rng.uniform(-9, 9, 2), rng.uniform(14, 18)]  # over every camera
    grounds = rng.uniform(0.05, 0.7, (2, 3))
    squares = rng.uniform(4, 40)
    board = {"type": "checkerboard", "to_uv": move().scale([squares, squares, 1])}
    board |= {f"color{i}": colour(ground) for i, ground in enumerate(grounds)}
    content: dict[str, Any] = {
        "type": "scene",
        "integrator": {"type": "path", "max_depth": 5},
        "sky": {"type": "constant", "radiance": colour(rng.uniform(0.15, 0.6) * np.ones(3))},
        "lamp": {
            "type": "disk",
            "to_world": move().look_at(above, [0, 0, 0], [0, 1, 0.1]) @ move().scale([lamp] * 3),
            "emitter": {"type": "area", "radiance": {"type": "rgb", "value": level.tolist()}},
        },
        "table": {
            "type": "rectangle",
            "to_world": move().translate([0, 0, -0.01]) @ move().scale([30, 30, 1]),
            "bsdf": {
                "type": "roughplastic",
                "alpha": rng.uniform(0.1, 0.4),
                "diffuse_reflectance": board if rng.random() < 0.4 else colour(grounds[0]),
            },
        },
    }
    pose = affine((0, 0, rng.normal(0, 0.5)), (*rng.uniform(-0.2, 0.2, 2), 0))
    angles = 2 * math.pi * (rng.permutation(len(state)) + rng.uniform(-0.2, 0.2, len(state)))
    for k, (part, value) in enumerate(zip(product.parts, state.tolist(), strict=True)):
        far, angle = radius + rng.uniform(0.9, 1.4), angles[k] / len(state)
        place = (far * math.cos(angle), far * math.sin(angle), part.height / 2)
        at = affine((0, 0, rng.uniform(-3, 3)), place)
        if value:
            at = pose @ (part.right if value > 0 else part.wrong)
        content[f"part_{k}"] = surface(mi, part.mesh, at, rng)
    if len(product.board.faces):
        content["board"] = surface(mi, product.board, pose, rng)
    for i in range(5):
        size, far, angle = rng.uniform((0.2, 1.8, 0), (0.55, 3, 2 * math.pi))
        far += radius
        place = [far * math.cos(angle), far * math.sin(angle), size]
        bsdf = {"type": "roughplastic", "diffuse_reflectance": colour(rng.uniform(0.05, 0.8, 3))}
        kind = ("cube", "sphere")[rng.integers(2)]
        to_world = move().translate(place) @ move().scale([size] * 3)
        content[f"thing_{i}"] = {"type": kind, "to_world": to_world, "bsdf": bsdf}
    for side in (1, -1):
        if rng.random() < 0.6:  # at work, or beside it
            at_work = rng.random() < 0.5
            away = np.array([side * (radius + 0.3), -0.6 * radius, 0.5])
            near = np.array([side * 0.5, -0.3, 0.6 + 0.5 * top]) + rng.normal(0, 0.4, 3)
            content |= hand(mi, near if at_work else away, side, rng)
    (low, high), around = CAMERAS[camera]
    up, turn = np.radians(rng.uniform(low, high)), np.radians(rng.uniform(*around))
    view = np.radians(rng.uniform(30, 44))
    target = np.array([*rng.normal(0, 0.12, 2), 0.3 * top])
    far = 1.17 * radius * rng.uniform(0.95, 1.25) / math.tan(view / 2)
    flat = math.cos(up)
    way = np.array([math.sin(turn) * flat, -math.cos(turn) * flat, math.sin(up)])
    seen = move().look_at((target + far * way).tolist(), target.tolist(), [0, 0, 1])
    content["camera"] = {
        "type": "perspective",
        "fov": math.degrees(view),
        "to_world": seen @ move().rotate([0, 0, 1], rng.normal(0, 3)),
        "film": {"type": "hdrfilm", "width": SIZE, "height": SIZE, "rfilter": {"type": "box"}},
        "sampler": {"type": "independent", "sample_count": SAMPLES},
    }
    return mi.load_dict(content)


def pictures(of: products.Assembly, count: int, camera: str) -> tuple[np.ndarray, np.ndarray]:
    """Pictures uint8 (N, SIZE/2, SIZE/2, 3) of a product, and the states (N, K) that they show."""
    import mitsuba as mi  # here, as --help does without it

    mi.set_variant("scalar_rgb")
    made, states = [], []
    with Bar(total=count, desc=f"{of.procedure.name}, {camera}", unit="picture") as bar:
        for i in range(count):
            rng = np.random.default_rng([i, *camera.encode()])
            told = draw_timeline(of.procedure, rng, wrong=WRONG).per_frame()
            state = told[rng.choice(np.flatnonzero(told.any(axis=1)))]
            product = with_wrong_poses(of.product, rng)
            light = np.array(mi.render(scene(mi, product, state, camera, rng), seed=i))[..., :3]
            shown = 255 * np.clip(light * rng.uniform(0.8, 1.2), 0, 1) ** (1 / 2.2)
            shown += rng.uniform(1, 6) * rng.standard_normal(shown.shape)
            half = shown.reshape(SIZE // 2, 2, SIZE // 2, 2, 3).mean(axis=(1, 3))
            made.append(np.clip(half + 0.5, 0, 255).astype(np.uint8))
            states.append(state)
            bar.update(1)
    return np.stack(made), np.stack(states)


def area(logits: np.ndarray, yes: np.ndarray, no: np.ndarray) -> float | None:
    """Mean area under the ROC curve over parts (N, K), weighted by how many are rarer; no ties."""
    areas, weights = [], []
    for k in range(logits.shape[1]):
        a, b = logits[yes[:, k], k], logits[no[:, k], k]
        if len(a) and len(b):
            areas.append((a[:, None] > b).mean())
            weights.append(min(len(a), len(b)))
    return float(np.average(areas, weights=weights)) if areas else None


def detector(workdir: Path) -> tuple[ConfigDict, Any]:
    """The config of a run, and pictures → what its detector says of parts, (N, 2K)."""
    config = ConfigDict(files.read_json(workdir / "config.json"))
    values = config_flag.typed(config)
    stage: Any = order.stages(values)["detector"]
    run = run_of(values, workdir, make_mesh(1, 1))
    network = Network(stage.network(run), {"params": load_best(workdir / "detector")[0]})
    framed = run.data.pictures(run.data.source("val"))
    detect = functions({"detector": network}, framed, MAX_DETECTIONS, stage.detector.batch)
    return config, lambda rows: np.asarray(detect["detect"](rows)[-1][-1])


@functools.cache
def of_product(product_seed: int | None, seed: int, count: int, camera: str) -> Any:
    """`pictures` of a run's product, and its name; runs of the same product share them."""
    of = products.find(product_seed=product_seed, seed=seed)
    return of.procedure.name, *pictures(of, count, camera)


def scored(workdir: Path, count: int) -> list[dict[str, Any]]:
    """A row per camera."""
    config, parts = detector(workdir)
    made = config.data.synthetic
    rows = []
    for camera in CAMERAS:
        name, shown, states = of_product(made.product_seed, made.seed, count, camera)
        there, right = np.split(parts(shown), 2, axis=1)
        row = {"run and camera": f"{workdir.name}, {camera}", "product": name}
        row |= {"right": area(right, states == 1, states == -1)}
        row |= {"installed": area(there, states != 0, states == 0)}
        counts = {"correct": int((states == 1).sum()), "incorrect": int((states == -1).sum())}
        rows.append(row | counts)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", metavar="RUN", type=Path)
    parser.add_argument("--pictures", type=int, default=240, help="by camera (%(default)s)")
    parser.add_argument("--record", metavar="NAME", help="keep the table in benchmarks/results")
    args = parser.parse_args()
    jax.config.update("jax_platforms", "cpu")
    found = [row for run in args.runs for row in scored(run, args.pictures)]
    print(analysis.format_rows(found))
    if args.record:
        record.save(args.record, {"one picture": found})


if __name__ == "__main__":
    sys.exit(main())
