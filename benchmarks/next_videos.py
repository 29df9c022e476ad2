"""Which videos to label next: those that a model is least certain of, or any.

    python -m benchmarks.next_videos --workdir=runs/next [--pool=30] [--first=6] [--more=6]
        [--draws=2] [--record=NAME]

Films the desk lamp of benchmarks/own_product.py in VTK and follows the guide with the first videos.
Their model proposes for the others, as on the labelling page. The first of its order are added, or
as many drawn at random, and the guide is followed anew. All are scored on the same further
recordings. What is there already is not made again. Flags --config.FIELD=VALUE are passed on.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import own_product, record
from data_prep.label.keeping import OWN, Keeping
from data_prep.label.models import Proposals, uncertainty
from stormpsr_jax.base import files
from stormpsr_jax.psr.procedure import Procedure


def follow(folder: Path, pool: Path, chosen: Sequence[int], fields: Sequence[str]) -> None:
    """Follows the guide with videos of the pool, every fifth of them for validation."""
    if (folder / "run" / "metrics.json").exists():
        return
    in_pool = {name: split for split, name in own_product.pool_places(1 + max(chosen))}
    learnt = [("val" if i % 5 == 2 else "train", f"video_{k:02d}") for i, k in enumerate(chosen)]
    for split, name in learnt + own_product.pool_places(0):
        place = own_product.video_of(pool, (in_pool[name], name))
        links = {own_product.video_of(folder, (split, name)): place}
        for file in (f"labels/{name}.csv", f"boxes/{name}.json", "lamp.json"):
            links[folder / file] = pool / file
        for target, source in links.items():
            target.parent.mkdir(parents=True, exist_ok=True)
            if not target.exists():
                os.link(source, target)
    own_product.follow(folder, meshes=False, fields=fields)


def least_certain(
    model: Path, pool: Path, procedure: Procedure, others: Sequence[int]
) -> list[int]:
    """Other videos of the pool in the page's order."""
    (model.parent / "labels" / OWN).mkdir(exist_ok=True)
    proposals = Proposals(str(model), Keeping(model.parent / "labels"), procedure)
    places = own_product.pool_places(1 + max(others))
    films = [own_product.video_of(pool, places[k]) for k in others]
    own_product.run(*proposals.command(films))
    found = [uncertainty(proposals.of(film.stem, sys.maxsize)) for film in films]
    print("uncertainty:", dict(zip(others, found, strict=True)), flush=True)
    return [others[i] for i in np.argsort([-2 if one is None else -one for one in found])]


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--workdir", type=Path, required=True, metavar="DIR", help="where all of it goes")
    add("--pool", type=int, default=30, metavar="N", help="videos (%(default)s)")
    add("--first", type=int, default=6, metavar="N", help="labelled first (%(default)s)")
    add("--more", type=int, default=6, metavar="N", help="labelled then (%(default)s)")
    add("--draws", type=int, default=2, metavar="N", help="at random (%(default)s)")
    add("--workers", type=int, default=2, metavar="N", help="that render videos (2)")
    add("--record", metavar="NAME", help="keep the tables in benchmarks/results")
    args, fields = parser.parse_known_args(argv)
    pool = args.workdir.resolve()
    pool.mkdir(parents=True, exist_ok=True)
    procedure = own_product.write_procedure(pool / "lamp.json")
    places = own_product.pool_places(args.pool)
    own_product.film_all(pool, procedure, places, args.workers, "vtk")
    first, others = list(range(args.first)), list(range(args.first, args.pool))
    follow(pool / "first", pool, first, fields)
    ways = {"least certain": least_certain(pool / "first/run", pool, procedure, others)}
    for draw in range(args.draws):
        drawn = np.random.default_rng(draw).permutation(others).tolist()
        ways[f"drawn, {draw}"] = drawn
    rows: list[dict[str, Any]] = []
    for way, order in {"": [], **ways}.items():
        folder = pool / (way.replace(", ", "_").replace(" ", "_") or "first")
        follow(folder, pool, first + order[: args.more], fields)
        streams = files.read_json(folder / "run" / "metrics.json")["streams"]
        for name in ("asd", "learned"):
            figures = {key: streams[name][key] for key in ("f1", "pos", "delay_s")}
            wrong = {key: streams[name]["wrong"][key] for key in ("accepted", "shown")}
            what = f"{args.first} and {args.more}, {way}" if way else f"{args.first}"
            rows.append({"videos, stream": f"{what}, {name}", **figures, **wrong})
            print(rows[-1], flush=True)
    if args.record:
        record.save(args.record, {"runs": rows}, "own:boxes, a lamp filmed in VTK, one training")
    return 0


if __name__ == "__main__":
    sys.exit(main())
