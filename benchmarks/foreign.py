"""Does a model know its own product, and keep silent on another one?

    python -m benchmarks.foreign --workdir=runs/foreign [--model=demo] [--lamp=runs/own_product/run]
        [--videos=20] [--films=NAME=DIR ...]

Renders videos that no model has seen: of the toy (the demo's product), of it in other light, of the
lamp of `benchmarks.own_product`, and of products of random parts; and an empty bench, noise, black.
Each model recognises all of them, and the MP4 files of each folder of --films, such as those that
`benchmarks.own_product --renderer=vtk` and `benchmarks.from_cad` have filmed. Prints, of each kind,
how many videos were found to fit, not to fit, and neither, and the steps that were told. What was
rendered before is not rendered again.
"""

import argparse
import functools
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

import stormpsr_jax
from benchmarks import own_product
from data_prep.products.product import Product, random_product, toy_product
from data_prep.rendering import seeds
from data_prep.rendering.scene import Body
from data_prep.worlds.hiding import OCCLUSIONS
from data_prep.worlds.motion import plan_recording
from data_prep.worlds.timelines import draw_timeline
from data_prep.worlds.workplace import Workplace
from stormpsr_jax.base import files
from stormpsr_jax.media.trees import Tree
from stormpsr_jax.media.video import open_resampled
from stormpsr_jax.psr.evaluation import tables
from stormpsr_jax.psr.procedure import Procedure, load_procedure
from stormpsr_jax.psr.streams.rules import reported
from stormpsr_jax.serving.model import Model
from stormpsr_jax.serving.recogniser import stack
from stormpsr_jax.stages.product_gate import draw_light, in_light

SIZE = 64
NOISE = 2.5  # grey levels
FIRST_RANDOM = 500  # seed of the products of random parts


def film(product: Product, procedure: Procedure, name: str, parts: bool = True) -> np.ndarray:
    """A video uint8 (N, SIZE, SIZE, 3); without `parts` of the bench and the hands alone."""
    when, how, looks, noise = np.random.default_rng(zlib.crc32(name.encode())).spawn(4)
    timeline = draw_timeline(procedure, when, wrong=1 / 6)
    places = np.array([part.right[:2, 3] for part in product.parts])
    motion = plan_recording(timeline, places, procedure.fps, OCCLUSIONS["default"], how)
    body = functools.cache(lambda state: Body(product.mesh(state)))
    workplace = Workplace(product, body, looks)
    pictures = []
    for frame, state in enumerate(timeline.per_frame()):
        image = workplace.picture(motion, frame, state if parts else 0 * state, SIZE).image
        image = 255 * image + NOISE * noise.standard_normal(image.shape, np.float32)
        pictures.append(np.clip(image + 0.5, 0, 255).astype(np.uint8))
    return np.stack(pictures)


def kinds(folder: Path) -> dict[str, Callable[[int], np.ndarray]]:
    """What makes the i-th video of each kind."""
    lamp, toy = own_product.write_procedure(folder / "lamp.json"), load_procedure("synthetic")
    truck = toy_product(toy.num_components, seeds.streams(0, "product")[0])

    def cached(name: str, make: Callable[[], np.ndarray]) -> np.ndarray:
        path = folder / f"{name}.npy"
        if not path.exists():
            with files.replacing(path) as part, part.open("wb") as file:
                np.save(file, make())
        return np.load(path)

    def lit(i: int) -> np.ndarray:
        return in_light(toys(i), draw_light(np.random.default_rng([7, i])))

    def toys(i: int) -> np.ndarray:
        return cached(f"toy_{i:02d}", lambda: film(truck, toy, f"foreign_toy_{i}"))

    def lamps(i: int) -> np.ndarray:
        return cached(f"lamp_{i:02d}", lambda: film(own_product.lamp(), lamp, f"foreign_lamp_{i}"))

    def lit_lamps(i: int) -> np.ndarray:
        return in_light(lamps(i), draw_light(np.random.default_rng([8, i])))

    def others(i: int) -> np.ndarray:
        product = random_product(FIRST_RANDOM + i, toy.num_components)
        return cached(f"random_{i:02d}", lambda: film(product, toy, f"foreign_random_{i}"))

    def empty(i: int) -> np.ndarray:
        return cached(f"empty_{i:02d}", lambda: film(truck, toy, f"foreign_empty_{i}", False))

    def noise(i: int) -> np.ndarray:
        return np.random.default_rng(i).integers(0, 256, (400, SIZE, SIZE, 3), np.uint8)

    return {
        "toy": toys,
        "toy, other light": lit,
        "lamp": lamps,
        "lamp, other light": lit_lamps,
        "random parts": others,
        "toy's empty base": empty,
        "noise": noise,
        "black": lambda i: np.zeros((400 + i, SIZE, SIZE, 3), np.uint8),
    }


def filmed(folder: str, fps: float) -> dict[str, Callable[[], np.ndarray]]:
    """What reads each video of a folder, at a rate."""

    def read(path: Path) -> np.ndarray:
        opened = open_resampled(Tree(str(path.parent)), path.name, fps)
        return np.stack([picture for _, picture in opened.read()])

    found = sorted(Path(folder).glob("*.mp4"))
    if not found:
        raise SystemExit(f"error: --films: {folder} has no MP4 files")
    return {path.stem: functools.partial(read, path) for path in found}


def judged(model: Model, video: np.ndarray) -> tuple[bool | None, int]:
    """Whether a video fits the model, and how many steps are told."""
    watch, recogniser = model.watch(), model.recogniser()
    for start in range(0, len(video), model.batch):
        part = [model.prepare(picture) for picture in video[start : start + model.batch]]
        for value in watch.of(recogniser(stack(part))):
            watch.update(value)
    return watch.finish(), len(reported(model.recognise(video)))


def rows(
    name: str, model: Model, folder: Path, count: int, films: Mapping[str, str]
) -> Iterator[dict]:
    videos: dict[str, list[Callable[[], np.ndarray]]] = {}
    for kind, make in kinds(folder).items():
        number = 1 if kind in ("noise", "black") else count
        videos[kind] = [functools.partial(make, i) for i in range(number)]
    for kind, place in films.items():
        videos[kind] = [*filmed(place, model.fps).values()]
    for kind, made in videos.items():
        found = [judged(model, make()) for make in made]
        verdicts = [fits for fits, _ in found]
        yield {
            "model": name,
            "videos": kind,
            "number": len(found),
            "fit": verdicts.count(True),
            "do not": verdicts.count(False),
            "unknown": verdicts.count(None),
            "with steps": sum(events > 0 for _, events in found),
            "steps": sum(events for _, events in found),
        }


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workdir", type=Path, required=True, help="where videos are kept")
    parser.add_argument("--model", default="demo", help="of the toy")
    parser.add_argument("--lamp", help="model of the lamp, a work folder of own_product")
    parser.add_argument("--videos", type=int, default=20, help="of each kind")
    add = "videos of your own, or of another benchmark; may be repeated"
    parser.add_argument("--films", action="append", default=[], metavar="NAME=DIR", help=add)
    args = parser.parse_args(argv)
    films = dict(word.partition("=")[::2] for word in args.films)
    args.workdir.mkdir(parents=True, exist_ok=True)
    found = []
    for name, folder in (("toy", args.model), ("lamp", args.lamp)):
        if folder is not None:
            model = stormpsr_jax.load_model(folder)
            for row in rows(name, model, args.workdir, args.videos, films):
                print(row, flush=True)
                found.append(row)
    print(tables.format_rows(found))


if __name__ == "__main__":
    main()
