"""Does a model know its own product from others? The toy's, on films of all products.

    python -m benchmarks.foreign --workdir=runs/from_cad [--products=toy,lamp,1,2,3] [--videos=5]
        [--models=demo,RUN] [--clips=FOLDER] [--record=foreign]

Products and their films by VTK and as cartoons are those of `benchmarks.from_cad`, made in its
WORKDIR where they are missing; as many videos are rendered as training recordings are. --clips is a
folder with real ones of another product, such as CLIPS of `benchmarks.real_frames`. Models are of
the toy. The table has the lowest share of own videos and the highest one of others, in which the
detector is sure of the product, own videos that do not fit (`serving.product_share`), and foreign
ones that do.
"""

import argparse
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import from_cad, own_product, record
from benchmarks.risk import drawn, seen_by
from data_prep.products.product import Product
from data_prep.worlds.hiding import OCCLUSIONS
from data_prep.worlds.timelines import draw_timeline
from stormpsr_jax.base import files
from stormpsr_jax.base.progress import Bar
from stormpsr_jax.media import sources
from stormpsr_jax.media.pictures import read_upright
from stormpsr_jax.psr.evaluation import tables
from stormpsr_jax.psr.procedure import Procedure
from stormpsr_jax.serving.model import Model, load_model
from stormpsr_jax.serving.product_share import ProductShare

TOY, RENDERED, REAL = "toy", "renders", "real clips"


def render(product: Product, procedure: Procedure, name: str) -> np.ndarray:
    """A video uint8 (N, 64, 64, 3)."""
    when, *streams = np.random.default_rng(zlib.crc32(name.encode())).spawn(4)
    timeline = draw_timeline(procedure, when, wrong=from_cad.WRONG)
    return np.stack([*drawn(product, procedure, timeline, OCCLUSIONS["default"], streams)])


def read(path: Path, fps: float) -> list[np.ndarray]:
    """The pictures of a film at a rate."""
    return list(read_upright(sources.open_source(path).open(fps)))


def videos_of(
    folder: Path, name: str, of: from_cad.products.OfUser, count: int
) -> Iterator[tuple[str, Sequence[np.ndarray]]]:
    """(kind, pictures) of a product, from its folder of benchmarks.from_cad."""
    for i in range(count):
        kept = folder / f"rendered_{i:02d}.npy"
        if not kept.exists():
            with files.replacing(kept) as path, path.open("wb") as file:
                np.save(file, render(of.product, of.procedure, f"{name}_{i}"))
        yield RENDERED, np.load(kept)
        for style, begin in from_cad.STYLES.items():
            place = ("test", f"{begin}film_{i:02d}")
            yield style, read(own_product.video_of(folder / "films", place), of.procedure.fps)


def judged(model: Model, pictures: Sequence[np.ndarray]) -> ProductShare:
    """In which share of a video its detector sees the toy."""
    product = model.product_share()
    for part in seen_by(model, pictures):
        product.update(part)
    return product


def row(name: str, kind: str, own: Iterable[ProductShare], others: Iterable[ProductShare]) -> dict:
    """A row of the table; videos that are too short to be judged are left out."""
    shares: dict[bool, list[Any]] = {
        side: [one for one in those if one.share is not None]
        for side, those in ((True, own), (False, others))
    }
    mine, foreign = ([one.share for one in shares[side]] for side in (True, False))
    return {
        "model, videos": f"{name}, {kind}",
        "own": len(mine),
        "own_lowest": round(min(mine), 3) if mine else None,
        "own_refused": sum(one.fits is False for one in shares[True]),
        "others": len(foreign),
        "others_highest": round(max(foreign), 3) if foreign else None,
        "others_passed": sum(one.fits is True for one in shares[False]),
    }


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--workdir", type=Path, required=True, metavar="DIR", help="as of benchmarks.from_cad")
    add("--products", default="toy,lamp,1,2,3", metavar="P,P", help="as there (%(default)s)")
    add("--videos", type=int, default=5, metavar="N", help="of each kind (%(default)s)")
    add("--models", default="demo", metavar="M,M", help="of the toy (%(default)s)")
    add("--clips", type=Path, metavar="FOLDER", help="real videos of another product")
    add("--record", metavar="NAME", help="keep the tables in benchmarks/results")
    args = parser.parse_args(argv)
    models = {Path(name).name: load_model(name) for name in args.models.split(",")}
    found: dict[tuple[str, str, bool], list[ProductShare]] = {}
    names = args.products.split(",")
    clips = sorted(args.clips.glob("*.mp4")) if args.clips else []
    total = len(names) * args.videos * (1 + len(from_cad.STYLES)) + len(clips)
    with Bar(total=total, desc="videos", unit="video") as bar:

        def judge(kind: str, pictures: Sequence[np.ndarray], own: bool) -> None:
            for of, model in models.items():
                found.setdefault((of, kind, own), []).append(judged(model, pictures))
            bar.update(1)

        for name in names:
            folder = args.workdir.resolve() / name
            folder.mkdir(parents=True, exist_ok=True)
            of, _ = from_cad.prepare(folder, name)
            from_cad.film_all(folder / "films", of, tuple(from_cad.STYLES), args.videos, 0, 2)
            for kind, pictures in videos_of(folder, name, of, args.videos):
                judge(kind, pictures, name == TOY)
        for path in clips:
            judge(REAL, read(path, next(iter(models.values())).fps), False)
    kinds = (RENDERED, *from_cad.STYLES, *([REAL] if clips else []))
    rows = [
        row(of, kind, found.get((of, kind, True), ()), found.get((of, kind, False), ()))
        for of in models
        for kind in kinds
    ]
    print(tables.format_rows(rows))
    if args.record:
        record.save(args.record, {"shares": rows})


if __name__ == "__main__":
    main()
