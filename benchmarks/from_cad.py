"""From CAD to a recogniser: trained on renders of a product alone, judged by another renderer.

    python -m benchmarks.from_cad --workdir=runs/from_cad [--products=toy,lamp,1,2] [--seeds=0,1]
        [--films=12] [--real=0,1,3,10]

Writes the meshes and the procedure of each product as files, as a user would have them: of the toy,
of the lamp of benchmarks.own_product, and of products drawn at random (a number is a seed, of
`data.synthetic.product_seed`). `--config=cad` renders recordings of it and trains on them. VTK
films the recordings that are scored (`benchmarks.other_films`): other hands, tables, light, camera
paths and lenses, and every wrong fitting in a pose of its own. --real adds so many labelled films
to what is learnt, a fifth of them for validation, and shows what each number comes to.

WORKDIR/PRODUCT/{meshes, procedure.json, films, seed_N/real_M/metrics.json}. What is there already
is not made again. Flags --config.FIELD=VALUE are passed on to the runs.
"""

import argparse
import functools
import subprocess
import sys
import zlib
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
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
from stormpsr_jax.base import files
from stormpsr_jax.base.progress import Bar
from stormpsr_jax.psr.files import labels
from stormpsr_jax.psr.procedure import Procedure, load_procedure
from stormpsr_jax.recognition.files.results import label_time

SIZE = 128  # of the films, pixels each way; 64 are read
WRONG = 1 / 6  # chance that a part is put on wrong first
BOX_EVERY = 10  # frames
X264 = {"preset": "veryfast", "crf": "20", "threads": "1"}
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
        product = toy_product(procedure.num_components, seeds.streams(0, "product")[0])
        files.write_json(path, procedure.to_json())
    else:
        product, procedure = own_product.lamp(), own_product.write_procedure(path)
    write_meshes(meshes, product, procedure)
    words = [f"--config.procedure={path}", f"--config.data.synthetic.meshes={meshes}"]
    return products.from_meshes(meshes, procedure), words


def film(place: tuple[str, str], folder: Path, of: products.OfUser) -> None:
    """Writes a film, its labels and boxes, the film last."""
    from benchmarks import other_films

    split, name = place
    video = folder / "videos" / split / f"{name}.mp4"
    if video.exists():
        return
    fps = round(of.procedure.fps)
    when, how, wrong = np.random.default_rng([zlib.crc32(name.encode())]).spawn(3)
    timeline = draw_timeline(of.procedure, when, wrong=WRONG)
    rows = labels.states_to_steps(timeline.frames, timeline.states, with_errors=True)
    text = "".join(
        f"{label_time(frame, fps)},{of.procedure.step_name(step)}\n" for frame, step in rows
    )
    files.write_text(folder / "labels" / f"{name}.csv", f"time,step\n{text}")
    boxes = {}
    filmed = other_films.film(
        with_wrong_poses(of.product, wrong), timeline, fps, SIZE, how, BOX_EVERY
    )
    with files.replacing(video) as path, av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=fps, options=X264)
        stream.width, stream.height, stream.pix_fmt = SIZE, SIZE, "yuv420p"
        for i, frame in enumerate(filmed):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame.picture, format="rgb24")))
            if i % BOX_EVERY == 0:
                boxes[f"{i:06d}.jpg"] = frame.box
        container.mux(stream.encode())
        files.write_json(folder / "boxes" / f"{name}.json", own_product.coco(boxes))


def film_all(folder: Path, of: products.OfUser, films: int, real: int, workers: int) -> None:
    """Films what is scored, and what can be learnt from besides renders."""
    learnt = [("val" if i % 5 == 4 else "train", f"real_{i:02d}") for i in range(real)]
    places = learnt + [("test", f"film_{i:02d}") for i in range(films)]
    for split, _ in places:
        (folder / "videos" / split).mkdir(parents=True, exist_ok=True)
    for name in ("labels", "boxes"):
        (folder / name).mkdir(exist_ok=True)
    with ProcessPoolExecutor(workers) as pool:
        one = functools.partial(film, folder=folder, of=of)
        for _ in Bar(iterable=pool.map(one, places), total=len(places), desc="films"):
            pass


def train(
    folder: Path, words: Sequence[str], seed: int, real: int, fields: Sequence[str]
) -> dict[str, Any]:
    """Trains on renders and so many films; returns the metrics of the films that are scored."""
    run, films = folder / f"seed_{seed}" / f"real_{real}", folder / "films"
    if not (run / "metrics.json").exists():
        kept = [path for path in sorted(films.glob("videos/*/*.mp4")) if _number(path) < real]
        extra = run / "extra"
        for path in [*kept, *sorted(films.glob("videos/test/*.mp4"))]:
            link = extra / "videos" / path.parent.name / path.name
            link.parent.mkdir(parents=True, exist_ok=True)
            if not link.exists():
                link.hardlink_to(path)
        procedure = run / "procedure.json"
        files.write_json(procedure, files.read_json(folder / "procedure.json"))
        sources = [f"--videos={extra}/videos", f"--labels={films}/labels", f"--boxes={films}/boxes"]
        own = [f"--procedure={procedure}", f"--out={extra}/data", "--size=64"]
        own_product.run("data_prep.own", *sources, *own)
        given = [*words, f"--config.data.extra={extra}/data", f"--workdir={run}"]
        seeds = [f"--config.seed={seed}", f"--config.data.synthetic.seed={seed}"]
        own_product.run("stormpsr_jax.main", "--config=cad", *given, *seeds, *fields)
    return files.read_json(run / "metrics.json")["streams"]


def _number(film: Path) -> int:
    """Of a film to learn from; of one that is scored, more than any."""
    kind, number = film.stem.split("_")
    return int(number) if kind == "real" else sys.maxsize


def row(product: str, seed: int, real: int, name: str, stream: dict[str, Any]) -> str:
    """A stream's figures, as a row of the table."""
    wrong = stream["wrong"]
    delay = "–" if stream["delay_s"] is None else f"{stream['delay_s']:.1f} s"
    return (
        f"| {product} | {seed} | {real} | {name} | {stream['f1']:.3f} | {stream['pos']:.3f} | "
        f"{delay} | {wrong['accepted']} of {wrong['shown']} |"
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
        help="toy, lamp, or seeds (%(default)s)",
    )
    add("--seeds", type=_numbers, default=[0, 1], metavar="N,N", help="of the runs (0,1)")
    add("--films", type=int, default=12, metavar="N", help="that are scored (%(default)s)")
    add("--real", type=_numbers, default=[0], metavar="N,N", help="films to learn from (0)")
    add("--workers", type=int, default=2, metavar="N", help="that film (%(default)s)")
    args, fields = parser.parse_known_args(argv)
    rows = ["| product | seed | films learnt | stream | F1 | POS | delay | wrong parts accepted |"]
    rows.append("|---|---|---|---|---|---|---|---|")
    for name in args.products.split(","):
        folder = args.workdir.resolve() / name
        folder.mkdir(parents=True, exist_ok=True)
        of, words = prepare(folder, name)
        files.write_json(folder / "procedure.json", of.procedure.to_json())
        film_all(folder / "films", of, args.films, max(args.real), args.workers)
        for seed in args.seeds:
            for real in args.real:
                try:
                    streams = train(folder, words, seed, real, fields)
                except subprocess.CalledProcessError as error:
                    return error.returncode  # it has said why
                rows += [row(name, seed, real, s, streams[s]) for s in STREAMS if s in streams]
                print("\n".join(rows), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
