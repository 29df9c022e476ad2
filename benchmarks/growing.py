"""A data folder that grows: trained on from the old weights, and anew, on the same videos.

    python -m benchmarks.growing --workdir=runs/growing [--videos=10,20] [--renderer=vtk]

Films the desk lamp of benchmarks/own_product.py, follows the guide with the first number of videos,
adds the others, and gives data_prep.own and main again: with --remake=continue, and in a copy of
the run with --remake. Prints what each came to, and the steps of each training. Flags
--config.FIELD=VALUE are passed on to the runs.
"""

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import own_product
from stormpsr_jax.base import files, results

STAGES = ("pretrain", "temporal", "detector")


def given(folder: Path, work: str, fields: Sequence[str], *flags: str) -> None:
    """Gives the guide's commands on what is in a folder; see `own_product.follow`."""
    sources = [f"--{name}={folder}/{name}" for name in ("videos", "labels", "boxes")]
    procedure = f"--procedure={folder}/lamp.json"
    own_product.run("data_prep.own", *sources, procedure, f"--out={folder}/data", "--size=64")
    words = ["--config=own:boxes", f"--config.data.dir={folder}/data", f"--workdir={folder}/{work}"]
    own_product.run("stormpsr_jax.main", *words, *fields, *flags)


def row(run: Path) -> str:
    """What a run came to, as a row of a table."""
    name, stream = [*files.read_json(run / "metrics.json")["streams"].items()][-1]
    wrong, steps = stream["wrong"], []
    for stage in STAGES:
        if (record := results.read(run / stage)) is not None:
            done = record.facts
            steps.append(f"{stage} {done['steps']} (best {done['best_step']})")
    return (
        f"| {run.name} | {name} | {stream['f1']:.3f} | {stream['pos']:.3f} | "
        f"{wrong['accepted']} of {wrong['shown']} | {', '.join(steps)} |"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--workdir", type=Path, required=True, metavar="DIR", help="where all of it goes")
    add("--videos", type=own_product.numbers, default=[10, 20], metavar="N,N", help="then and now")
    add("--workers", type=int, default=2, metavar="N", help="that render videos (2)")
    how = "that films, as of benchmarks.own_product (%(default)s)"
    add("--renderer", choices=own_product.RENDERERS, default="vtk", help=how)
    args, fields = parser.parse_known_args(argv)
    pool = args.workdir.resolve()
    folder = pool / "growing"
    folder.mkdir(parents=True, exist_ok=True)
    procedure = own_product.write_procedure(pool / "lamp.json")
    places = own_product.pool_places(args.videos[-1])
    own_product.film_all(pool, procedure, places, args.workers, args.renderer)
    shutil.copyfile(pool / "lamp.json", folder / "lamp.json")
    own_product.lay_out(pool, folder, args.videos[0])
    if not (folder / "before/metrics.json").exists():
        given(folder, "before", fields)
    own_product.lay_out(pool, folder, args.videos[-1])
    for work, remake in (("continued", "--remake=continue"), ("anew", "--remake")):
        if not (folder / work).exists():
            shutil.copytree(folder / "before", folder / work)
        given(folder, work, fields, remake)
    print("| run | stream | F1 | POS | wrong parts accepted | steps |\n|---|---|---|---|---|---|")
    print("\n".join(row(folder / work) for work in ("before", "continued", "anew")))
    return 0


if __name__ == "__main__":
    sys.exit(main())
