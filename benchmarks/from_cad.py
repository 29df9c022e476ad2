"""From CAD to a recogniser: trained on renders of a product alone, judged by another renderer.

    python -m benchmarks.from_cad --workdir=runs/from_cad [--products=toy,lamp,1,2] [--seeds=0,1]
        [--films=12] [--real=0,1,3,10] [--by=vtk,cartoon] [--from=cad,films]

Writes the meshes and the procedure of each product as files, as a user would have them: of the toy,
of the lamp of benchmarks.own_product, and of products drawn at random (a number is a seed, of
`data.synthetic.product_seed`). A folder with meshes/ and procedure.json is a product, too.
`--config=cad` renders recordings of it and trains on them. VTK films the recordings that are scored
(`benchmarks.films`): other hands, tables, light, camera paths and lenses, and every wrong
fitting in a pose of its own. With --by=vtk,cartoon a model is scored on films of both styles, by
itself on each. --real adds so many labelled films of each style to what is learnt, a fifth of them
for validation, and shows what each number comes to.

--from names what is learnt from: renders and the labelled films ("cad"), or the labelled films
alone ("films", three or more).

WORKDIR/PRODUCT/{meshes, procedure.json, films, seed_N/real_M/metrics.json}; for other films and
sources the last folder says so (real_M_films). What is there already is not made again. Flags
--config.FIELD=VALUE are passed on to the runs.
"""

import argparse
import dataclasses
import functools
import shutil
import subprocess
import sys
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import trimesh

from benchmarks import own_product
from data_prep.products import products
from data_prep.products.product import Product, toy_product
from data_prep.products.wrong_poses import with_wrong_poses
from data_prep.rendering import seeds
from data_prep.worlds.timelines import draw_timeline
from data_prep.writing import parallel
from stormpsr_jax.base import files
from stormpsr_jax.base.progress import Progress
from stormpsr_jax.configs import cad
from stormpsr_jax.psr.files import labels
from stormpsr_jax.psr.procedure import Procedure, load_procedure
from stormpsr_jax.psr.scoring import metrics, wrong_parts
from stormpsr_jax.serving.files.results import label_time

SIZE = 128  # of the films, pixels each way; 64 are read
WRONG = 1 / 6  # chance that a part is put on wrong first
BOX_EVERY = 10  # frames
X264 = {"preset": "veryfast", "crf": "20", "threads": "1"}
STYLES = {"vtk": "", "cartoon": "cartoon_"}  # of films, and how their names begin
SOURCES = ("cad", "films")
STREAMS = ("asd", "temporal", "storm", "learned")


def write_meshes(folder: Path, product: Product, procedure: Procedure) -> None:
    """Writes an OBJ file of each part where it belongs, and the parts' colours."""
    folder.mkdir(parents=True, exist_ok=True)
    colours = {}
    for name, part in zip(procedure.components, product.parts, strict=True):
        mesh = part.mesh.moved(part.right)
        trimesh.Trimesh(mesh.vertices, mesh.faces, process=False).export(folder / f"{name}.obj")
        shown = np.sqrt(part.mesh.colours[0])  # albedos are linear
        colours[name] = "#" + bytes(round(255 * float(c)) for c in np.clip(shown, 0, 1)).hex()
    files.write_json(folder / "poses.json", {"colors": colours})


def prepare(folder: Path, name: str) -> tuple[products.OfUser, list[str]]:
    """Writes what a user has of a product.

    Returns:
        The product, and the words that tell config `cad` of it.
    """
    if name.isdigit():
        field = f"--config.data.synthetic.product_seed={name}"
        return products.drawn(int(name)), [field]
    meshes, path = folder / "meshes", folder / "procedure.json"
    if name == "toy":
        procedure = load_procedure("synthetic")
        product = toy_product(seeds.streams(0, "product")[0])
        files.write_json(path, procedure.to_json())
        write_meshes(meshes, product, procedure)
    elif name == "lamp":
        procedure = own_product.write_procedure(path)
        write_meshes(meshes, own_product.lamp(), procedure)
    else:
        shutil.copytree(Path(name) / "meshes", meshes, dirs_exist_ok=True)
        procedure = load_procedure(Path(name) / "procedure.json")
        procedure = dataclasses.replace(procedure, fps=cad.get_config().data.synthetic.fps)
        files.write_json(path, procedure.to_json())
    words = [f"--config.procedure={path}", f"--config.data.synthetic.meshes={meshes}"]
    return products.from_meshes(meshes, procedure), words


def film(place: tuple[str, str], progress: Progress, folder: Path, of: products.OfUser) -> None:
    """Writes a film, its labels and boxes, the film last."""
    from benchmarks.films.film import film

    _, name = place
    video = own_product.video_of(folder, place)
    fps = round(of.procedure.fps)
    when, how, wrong = np.random.default_rng([zlib.crc32(name.encode())]).spawn(3)
    timeline = draw_timeline(of.procedure, when, wrong=WRONG)
    progress.begin(timeline.num_frames)
    rows = labels.states_to_steps(timeline.frames, timeline.states, with_errors=True)
    text = "".join(
        f"{label_time(frame, fps)},{of.procedure.step_name(step)}\n" for frame, step in rows
    )
    files.write_text(folder / "labels" / f"{name}.csv", f"time,step\n{text}")
    boxes = {}
    product = with_wrong_poses(of.product, wrong)
    filmed = film(product, timeline, fps, SIZE, how, BOX_EVERY, style_of(name))
    with files.replacing(video) as path, av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=fps, options=X264)
        stream.width, stream.height, stream.pix_fmt = SIZE, SIZE, "yuv420p"
        for i, frame in enumerate(filmed):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame.picture, format="rgb24")))
            if i % BOX_EVERY == 0:
                boxes[f"{i:06d}.jpg"] = frame.box
            progress.advance()
        container.mux(stream.encode())
        files.write_json(folder / "boxes" / f"{name}.json", own_product.coco(boxes))


def style_of(name: str) -> str:
    """Of a film."""
    return "cartoon" if name.startswith(STYLES["cartoon"]) else "vtk"


def split_of(number: int) -> str:
    """Where a film to learn from goes: the third and then each fifth is for validation."""
    return "val" if number % 5 == 2 else "train"


def film_all(
    folder: Path, of: products.OfUser, styles: Sequence[str], films: int, real: int, workers: int
) -> None:
    """Films what is scored, and what can be learnt from besides renders."""
    places = []
    for begin in (STYLES[style] for style in styles):
        places += [(split_of(i), f"{begin}real_{i:02d}") for i in range(real)]
        places += [("test", f"{begin}film_{i:02d}") for i in range(films)]
    for split, _ in places:
        (folder / "videos" / split).mkdir(parents=True, exist_ok=True)
    for name in ("labels", "boxes"):
        (folder / name).mkdir(exist_ok=True)
    one = functools.partial(film, folder=folder, of=of)
    jobs = [place for place in places if not own_product.video_of(folder, place).exists()]
    parallel.run(one, jobs, workers, "films", None, folder)


def prepare_films(films: Path, procedure: Path, case: "Case", out: Path) -> None:
    """Makes the data folder OUT/data of films by VTK, by the guide's command."""
    for path in sorted(films.glob("videos/*/*.mp4")):
        *_, kind, number = path.stem.split("_")
        wanted = int(number) < (case.real if kind == "real" else case.films)
        if not wanted or style_of(path.stem) not in case.by:
            continue
        link = out / "videos" / path.parent.name / path.name
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.exists():
            link.hardlink_to(path)
    sources = [f"--videos={out}/videos", f"--labels={films}/labels", f"--boxes={films}/boxes"]
    own_product.run(
        "data_prep.own", *sources, f"--procedure={procedure}", f"--out={out}/data", "--size=64"
    )


@dataclasses.dataclass(frozen=True)
class Case:
    """What is learnt from, and what is scored.

    Attributes:
        seed: of the run, and of what it renders.
        real: number of films that are learnt from.
        by: styles of films.
        source: of SOURCES, what is learnt from.
        films: number that are scored.
    """

    seed: int
    real: int
    by: tuple[str, ...]
    source: str
    films: int

    @property
    def folder(self) -> str:
        """Below the product's."""
        kind = "" if self.by == ("vtk",) else "_" + "_".join(self.by)
        source = "" if self.source == "cad" else f"_{self.source}"
        return f"seed_{self.seed}/real_{self.real}{kind}{source}"


def train(folder: Path, words: Sequence[str], case: Case, fields: Sequence[str]) -> dict[str, Any]:
    """Trains, in the folder of a product; returns the metrics of the films that are scored."""
    run = folder / case.folder
    if not (run / "metrics.json").exists():
        procedure, extra = run / "procedure.json", run / "extra"
        extra.mkdir(parents=True, exist_ok=True)
        files.write_json(procedure, files.read_json(folder / "procedure.json"))
        prepare_films(folder / "films", procedure, case, extra)
        if case.source == "films":
            given = ["--config=own:boxes", f"--config.data.dir={extra}/data"]
        else:
            given = ["--config=cad", *words, f"--config.data.extra={extra}/data"]
            given.append(f"--config.data.synthetic.seed={case.seed}")
        where = [f"--workdir={run}", f"--config.seed={case.seed}"]
        own_product.run("stormpsr_jax.main", *given, *where, *fields)
    return files.read_json(run / "metrics.json")["streams"]


def of_style(stream: dict[str, Any], style: str) -> dict[str, Any]:
    """The figures of a stream on the films of one style alone."""
    rows = {name: row for name, row in stream["recordings"].items() if style_of(name) == style}
    wrong = wrong_parts.summarise(row["wrong"] for row in rows.values())
    return metrics.summarise(rows) | {"wrong": wrong}


def row(product: str, case: Case, by: str, name: str, stream: dict[str, Any]) -> str:
    """A stream's figures, as a row of the table."""
    wrong = stream["wrong"]
    delay = "–" if stream["delay_s"] is None else f"{stream['delay_s']:.1f} s"
    return (
        f"| {product} | {case.seed} | {case.source} | {case.real} | {by} | {name} | "
        f"{stream['f1']:.3f} | {stream['pos']:.3f} | {delay} | {wrong['accepted']} of "
        f"{wrong['shown']} | {wrong['right_unsure']} of {wrong['right_installations']} |"
    )


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--workdir", type=Path, required=True, metavar="DIR", help="where all of it goes")
    add(
        "--products",
        default="toy,lamp,1,2",
        metavar="P,P",
        help="toy, lamp, seeds, or folders with meshes/ and procedure.json (%(default)s)",
    )
    add("--seeds", type=_numbers, default=[0, 1], metavar="N,N", help="of the runs (0,1)")
    add("--films", type=int, default=12, metavar="N", help="that are scored (%(default)s)")
    add("--real", type=_numbers, default=[0], metavar="N,N", help="films to learn from (0)")
    scored = "films: vtk, cartoon or vtk,cartoon (%(default)s)"
    add(
        "--by",
        type=lambda text: tuple(text.split(",")),
        default=("vtk",),
        metavar="S,S",
        help=scored,
    )
    add("--from", dest="sources", default="cad", metavar="S,S", help="of cad, films (cad)")
    add("--workers", type=int, default=2, metavar="N", help="that film (%(default)s)")
    args, fields = parser.parse_known_args(argv)
    if unknown := set(args.by) - set(STYLES):
        parser.error(f"--by={','.join(unknown)}: {', '.join(STYLES)} are known")
    cases = [
        Case(seed, real, args.by, source, args.films)
        for seed in args.seeds
        for source in args.sources.split(",")
        for real in args.real
    ]
    for case in cases:
        if case.source not in SOURCES:
            parser.error(f"--from={case.source}: {', '.join(SOURCES)} are known")
        if case.source == "films" and case.real < 3:
            parser.error(f"--from=films: {case.real} films are too few; --real=3 or more")
    names = args.products.split(",")
    for name in names:
        known = name in ("toy", "lamp") or name.isdigit() or (Path(name) / "meshes").is_dir()
        if not known:
            parser.error(f"--products={name}: is not toy, lamp, a seed or a folder with meshes/")
    rows = [
        "| product | seed | from | films | scored | stream | F1 | POS | delay | "
        "wrong parts accepted | right parts not sure |",
        "|" + "---|" * 11,
    ]
    for name in names:
        folder = args.workdir.resolve() / Path(name).name
        folder.mkdir(parents=True, exist_ok=True)
        of, words = prepare(folder, name)
        files.write_json(folder / "procedure.json", of.procedure.to_json())
        film_all(folder / "films", of, args.by, args.films, max(args.real), args.workers)
        for case in cases:
            try:
                streams = train(folder, words, case, fields)
            except subprocess.CalledProcessError as error:
                return error.returncode  # it has said why
            for by in args.by:
                for stream in (stream for stream in STREAMS if stream in streams):
                    its = of_style(streams[stream], by)
                    rows.append(row(folder.name, case, by, stream, its))
            print("\n".join(rows), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
