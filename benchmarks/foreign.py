"""Does a model know its own product, and keep silent on another one? All pairs, in each renderer.

    python -m benchmarks.foreign --workdir=runs/from_cad [--products=toy,lamp,1,2,3] [--videos=10]
        [--own=5] [--record=foreign]

Products, their films by VTK and as cartoons, and the models that are trained from their CAD alone
are those of `benchmarks.from_cad`, made in its WORKDIR where they are missing; the model of the toy
is the demo's. More videos are rendered as training recordings are, and shown in another light, too.

Each model judges all videos of all products, once as it is, and then once more for each renderer:
taught by --own of its own videos in it (as by `recognise --own`), which are drawn again and again,
it judges the others of that renderer. Where they teach nothing, it cannot tell. The tables count
own videos that were refused, foreign ones that passed, and those of which it cannot tell.
"""

import argparse
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks import from_cad, own_product, record
from benchmarks.risk import drawn, seen_by
from data_prep.products.product import Product
from data_prep.worlds.hiding import OCCLUSIONS
from data_prep.worlds.timelines import draw_timeline
from stormpsr_jax.base import files
from stormpsr_jax.base.progress import Bar
from stormpsr_jax.media.video import open_resampled
from stormpsr_jax.psr.evaluation import tables
from stormpsr_jax.psr.procedure import Procedure
from stormpsr_jax.serving import product_gate_own
from stormpsr_jax.serving.model import Model, load_model
from stormpsr_jax.serving.product_gate import Fits, Looks, joined
from stormpsr_jax.serving.product_gate_watch import Watch
from stormpsr_jax.serving.recogniser import Recognised
from stormpsr_jax.stages.product_gate import draw_light, in_light

RENDERED, OTHER_LIGHT = "renders", "renders, other light"
STYLES = tuple(from_cad.STYLES)
DRAWS = 4  # of the videos that teach

Seen = list[Recognised]  # a video, chunk by chunk


def render(product: Product, procedure: Procedure, name: str) -> np.ndarray:
    """A video uint8 (N, 64, 64, 3)."""
    when, *streams = np.random.default_rng(zlib.crc32(name.encode())).spawn(4)
    timeline = draw_timeline(procedure, when, wrong=from_cad.WRONG)
    return np.stack([*drawn(product, procedure, timeline, OCCLUSIONS["default"], streams)])


def read(path: Path, fps: float) -> np.ndarray:
    """A film at a rate."""
    opened = open_resampled(path, fps)
    return np.stack([picture for _, picture in opened.read()])


def videos_of(
    folder: Path, name: str, of: from_cad.products.OfUser, count: int, fps: float
) -> Iterator[tuple[str, np.ndarray]]:
    """(kind, video) of a product, from its folder of benchmarks.from_cad."""
    for i in range(count):
        kept = folder / f"rendered_{i:02d}.npy"
        if not kept.exists():
            with files.replacing(kept) as path, path.open("wb") as file:
                np.save(file, render(of.product, of.procedure, f"{name}_{i}"))
        rendered = np.load(kept)
        yield RENDERED, rendered
        yield OTHER_LIGHT, in_light(rendered, draw_light(np.random.default_rng([7, i])))
        for style, begin in from_cad.STYLES.items():
            place = ("test", f"{begin}film_{i:02d}")
            yield style, read(own_product.video_of(folder / "films", place), fps)


def model_of(folder: Path, words: Sequence[str], fields: Sequence[str], count: int) -> Model:
    """The demo's of the toy; else one that is trained from CAD, and scored on the films."""
    if folder.name == "toy":
        return load_model("demo")
    case = from_cad.Case(0, 0, STYLES, "cad", count)
    from_cad.train(folder, words, case, fields)
    return load_model(folder / case.folder / "model")


def taught(model: Model, videos: Sequence[Seen]) -> Fits | None:
    """As by `recognise --own`, which looks at one picture a second; None: they do not teach it."""
    initial, every = model.procedure.initial_classes, round(model.fps / product_gate_own.RATE)
    looks = {}
    for i, seen in enumerate(videos):
        *detected, embeddings = joined(Looks.of(part, initial) for part in seen)
        thinned = None if embeddings is None else embeddings[::every]
        looks[str(i)] = Looks(*(column[::every] for column in detected), thinned)
    known = None if model.gate is None else model.gate.prototypes
    try:
        return product_gate_own.learn(looks, product_gate_own.RATE, known)
    except ValueError:
        return None


def judged(model: Model, fits: Fits | None, seen: Seen) -> bool | None:
    """Whether a video fits."""
    watch = Watch(fits, model.fps, model.procedure.initial_classes)
    for part in seen:
        for view in watch.of(part):
            watch.update(view)
    return watch.finish()


def counted(verdicts: Mapping[bool, list[bool | None]]) -> dict[str, int]:
    """Of own videos (True) and of foreign ones."""
    return {
        "own": len(verdicts[True]),
        "own_refused": verdicts[True].count(False),
        "own_not_known": verdicts[True].count(None),
        "foreign": len(verdicts[False]),
        "foreign_passed": verdicts[False].count(True),
        "foreign_not_known": verdicts[False].count(None),
    }


def rows(
    name: str, model: Model, seen: Mapping[str, Mapping[str, list[Seen]]], own: int
) -> Iterator[dict]:
    """The rows of a model; `seen`: videos by product and kind."""

    def foreign(kind: str, fits: Fits | None) -> list[bool | None]:
        others = (videos[kind] for product, videos in seen.items() if product != name)
        return [judged(model, fits, one) for videos in others for one in videos]

    for kind in (RENDERED, OTHER_LIGHT, *STYLES):
        mine = [judged(model, model.gate, one) for one in seen[name][kind]]
        of = {"model, videos": f"{name}, {kind}", "taught_by": 0}
        yield of | counted({True: mine, False: foreign(kind, model.gate)})
    for kind in (RENDERED, *STYLES):
        verdicts: dict[bool, list[bool | None]] = {True: [], False: []}
        for draw in range(DRAWS):
            mine = seen[name][kind]
            order = np.random.default_rng(draw).permutation(len(mine)).tolist()
            fits = taught(model, [mine[i] for i in order[:own]])
            verdicts[True] += [judged(model, fits, mine[i]) for i in order[own:]]
            verdicts[False] += foreign(kind, fits)
        of = {"model, videos": f"{name}, {kind}, own {own}", "taught_by": own}
        yield of | counted(verdicts)


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--workdir", type=Path, required=True, metavar="DIR", help="as of benchmarks.from_cad")
    add("--products", default="toy,lamp,1,2,3", metavar="P,P", help="as there (%(default)s)")
    add("--videos", type=int, default=10, metavar="N", help="of each kind (%(default)s)")
    add("--own", type=int, default=5, metavar="N", help="of them that teach (%(default)s)")
    add("--record", metavar="NAME", help="keep the tables in benchmarks/results")
    args, fields = parser.parse_known_args(argv)
    names = args.products.split(",")
    folders = {name: args.workdir.resolve() / name for name in names}
    videos: dict[str, dict[str, list[np.ndarray]]] = {}
    models = {}
    for name, folder in folders.items():
        folder.mkdir(parents=True, exist_ok=True)
        of, words = from_cad.prepare(folder, name)
        files.write_json(folder / "procedure.json", of.procedure.to_json())
        from_cad.film_all(folder / "films", of, STYLES, args.videos, 0, workers=2)
        models[name] = model_of(folder, words, fields, args.videos)
        for kind, video in videos_of(folder, name, of, args.videos, models[name].fps):
            videos.setdefault(name, {}).setdefault(kind, []).append(video)
    found = []
    for name, model in models.items():
        total = sum(len(every) for of in videos.values() for every in of.values())
        with Bar(total=total, desc=name, unit="video") as bar:
            seen: dict[str, dict[str, list[Seen]]] = {}
            for product, of in videos.items():
                seen[product] = {kind: [] for kind in of}
                for kind, every in of.items():
                    for video in every:
                        seen[product][kind].append(seen_by(model, video))
                        bar.update(1)
        for row in rows(name, model, seen, args.own):
            print(row, flush=True)
            found.append(row)
    print(tables.format_rows(found))
    if args.record:
        record.save(args.record, {"pairs": found})


if __name__ == "__main__":
    main()
