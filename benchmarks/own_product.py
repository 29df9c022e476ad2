"""A product that the package has not seen: filmed, labelled and trained on as the guide says.

    python -m benchmarks.own_product --workdir=runs/own_videos [--videos=3,6,12,24,46]

Renders videos of a desk lamp being assembled at a table, hands in front of it; a third of its parts
are put on wrong first (turned, shifted, mirrored, on the wrong side) and mended some seconds later.
Then it gives the commands of docs/own-product.md, with boxes, once for each number of videos, every
fifth of which is for validation; the videos of a number are among those of a larger one. All are
scored on the same UNSEEN recordings. What is there already is not made again. Flags
--config.FIELD=VALUE are passed on.

WORKDIR/videos/<split>, labels, boxes   what a user would have: MP4, labels by the clock, COCO
WORKDIR/of_N/run/metrics.json           what comes of N of them
WORKDIR/accuracy_over_videos.json       all figures, of which the table is printed
"""

import argparse
import collections
import functools
import os
import subprocess
import sys
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np

from data_prep.products.product import Part, Product, solid
from data_prep.products.wrong_poses import with_wrong_poses
from data_prep.rendering.mesh import affine
from data_prep.rendering.scene import Body
from data_prep.worlds.hiding import OCCLUSIONS
from data_prep.worlds.motion import plan_recording
from data_prep.worlds.timelines import Timeline, draw_timeline
from data_prep.worlds.workplace import Workplace
from data_prep.writing import parallel
from stormpsr_jax.base import files
from stormpsr_jax.psr import analysis, headline, wrong_parts
from stormpsr_jax.recordings.label_file import LabelPlace
from stormpsr_jax.recordings.labels import states_to_steps
from stormpsr_jax.recordings.procedure import Procedure, load_procedure
from stormpsr_jax.serving.files.results import label_time

ROOT = Path(__file__).parents[1]
UNSEEN = 12  # recordings that all numbers of --videos are scored on
WRONG = 1 / 3  # chance that a part is put on wrong first
FPS = 5  # of the procedure; a video shows each picture three times, at 15 frames/s
REPEATS = 3
SIZE = 128  # of the videos, pixels each way
X264 = {"preset": "veryfast", "crf": "20", "threads": "1"}
NOISE = 2.5  # standard deviation, grey levels
BOX_EVERY = 10  # frames, the guide's --export_every
# Part: shape, display colour, place x y, bottom z, size x y z (units of about 5 cm), parts before.
LAMP = {
    "base": ("cylinder", (0.12, 0.3, 0.2), (-0.95, -0.45, 0.1), (1.4, 1.4, 0.24), ()),
    "pole": ("ladder", (0.75, 0.75, 0.8), (0.45, -0.62, 0.1), (1.3, 0.5, 0.34), ("base",)),
    "arm": ("arch", (0.9, 0.75, 0.1), (1.42, 0.1, 0.1), (0.5, 1.1, 0.4), ("pole",)),
    "shade": ("block", (0.75, 0.1, 0.15), (0.5, 0.65, 0.1), (1.1, 0.95, 0.6), ("arm",)),
    "bulb": ("cone", (1.0, 0.97, 0.85), (1.4, 1.0, 0.1), (0.55, 0.6, 0.5), ("arm",)),
    "ring": ("star", (0.1, 0.35, 0.85), (-0.95, -0.45, 0.34), (0.85, 0.75, 0.26), ("base",)),
}
MAT = ("box", (0.5, 0.48, 0.55), (3.6, 2.8, 0.1))


def lamp() -> Product:
    """The lamp's parts on a mat; where each is incorrect is drawn for each recording."""
    parts = []
    for shape, colour, (x, y, bottom), size, _ in LAMP.values():
        right = affine(translation=(x, y, bottom + size[2] / 2))
        parts.append(Part(solid(shape, size, np.square(colour)), size[2], right, right))
    shape, colour, size = MAT
    mat = solid(shape, size, np.square(colour)).moved(affine(translation=(0, 0, size[2] / 2)))
    return Product(mat, tuple(parts))


def write_procedure(path: Path) -> Procedure:
    """The guide's template, edited: the orders in which a lamp can be assembled."""
    names = list(LAMP)
    template = path.with_name("template.json")
    template.unlink(missing_ok=True)
    flags = [f"--components={','.join(names)}", f"--fps={FPS}", f"--out={template}"]
    run("stormpsr_jax.procedure template", "--name=lamp", *flags)
    content = files.read_json(template)
    before = [[names.index(other) for other in LAMP[name][-1]] for name in names]
    every = np.array(list(np.ndindex((2,) * len(names))))
    legal = [state for state in every if all(state[before[k]].all() for k in np.flatnonzero(state))]
    content["states"] = ["".join(map(str, state)) for state in sorted(legal, key=sum)]
    pairs = [[3 * j, 3 * k] for k, needed in enumerate(before) for j in needed]
    content["variants"]["assembly"]["precedence"] = pairs
    files.write_json(path, content)
    return load_procedure(path)


# --- The videos -----------------------------------------------------------------------------------


def video_of(folder: Path, place: tuple[str, str]) -> Path:
    """The file of a video; `place` is (split, name)."""
    split, name = place
    return folder / "videos" / split / f"{name}.mp4"


def film(place: tuple[str, str], folder: Path, procedure: Procedure) -> None:
    """Writes a recording's video, labels and boxes, the video last."""
    _, name = place
    video = video_of(folder, place)
    when, *filming, wrong = np.random.default_rng(zlib.crc32(name.encode())).spawn(5)
    product = with_wrong_poses(lamp(), wrong)
    timeline = draw_timeline(procedure, when, wrong=WRONG)
    rows = [["time", "step"]]
    for frame, step in states_to_steps(timeline.frames, timeline.states, with_errors=True):
        rows.append([label_time(frame, FPS), procedure.step_name(step)])
    text = "".join(f"{time},{step}\n" for time, step in rows)
    files.write_text(folder / "labels" / f"{name}.csv", text)
    boxes = {}
    with files.replacing(video) as path, av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=FPS * REPEATS, options=X264)
        stream.width, stream.height, stream.pix_fmt = SIZE, SIZE, "yuv420p"
        for i, (frame, box) in enumerate(frames_of(product, timeline, filming)):
            for _ in range(REPEATS):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            if i % BOX_EVERY == 0:
                boxes[f"{i:06d}.jpg"] = box
        container.mux(stream.encode())
        files.write_json(folder / "boxes" / f"{name}.json", coco(boxes))


def frames_of(
    product: Product, timeline: Timeline, rngs: Sequence[np.random.Generator]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """A film's pictures uint8 (SIZE, SIZE, 3) with the product's box, as `Picture` has it."""
    how, looks, noise = rngs
    places = np.array([part.right[:2, 3] for part in product.parts])
    motion = plan_recording(timeline, places, FPS, OCCLUSIONS["default"], how)
    body = functools.cache(lambda state: Body(product.mesh(state)))
    workplace = Workplace(product, body, looks)
    for i, state in enumerate(timeline.per_frame()):
        picture = workplace.picture(motion, i, state, SIZE)
        grain = NOISE * noise.standard_normal(picture.image.shape, np.float32)
        frame = np.clip(picture.image * 255 + grain + 0.5, 0, 255).astype(np.uint8)
        yield frame, picture.box


def coco(boxes: Mapping[str, np.ndarray]) -> dict[str, list]:
    """A COCO file of pictures by name; boxes (4,) cx, cy, w, h in 0..1, NaN: none is drawn."""
    size = {"width": SIZE, "height": SIZE}
    images = [{"id": i, "file_name": name, **size} for i, name in enumerate(boxes)]
    annotations = []
    for i, (x, y, w, h) in enumerate(boxes.values()):
        if not np.isnan(x):
            box = [float(v) * SIZE for v in (x - w / 2, y - h / 2, w, h)]
            annotations.append({"id": i, "image_id": i, "category_id": 1, "bbox": box})
    categories = [{"id": 1, "name": "lamp"}]
    return {"images": images, "categories": categories, "annotations": annotations}


def film_all(
    folder: Path,
    procedure: Procedure,
    places: Sequence[tuple[str, str]],
    workers: int,
) -> None:
    """Writes the videos that are not there yet; `places` are (split, name)."""
    for split, _ in places:
        (folder / "videos" / split).mkdir(parents=True, exist_ok=True)
    for name in ("labels", "boxes"):
        (folder / name).mkdir(exist_ok=True)
    one = functools.partial(film, folder=folder, procedure=procedure)
    jobs = [place for place in places if not video_of(folder, place).exists()]
    parallel.run(one, jobs, workers, "videos", [1] * len(jobs), folder)


# --- The guide ------------------------------------------------------------------------------------


def run(module: str, *arguments: str) -> None:
    """Runs `python -m MODULE` with words; CalledProcessError if it fails."""
    words = [sys.executable, "-m", *module.split(), *arguments]
    print("$", *words[1:], flush=True)
    subprocess.run(words, cwd=ROOT, check=True)


def follow(folder: Path, fields: Sequence[str]) -> None:
    """Gives the guide's commands, from the videos to metrics.json."""
    data, procedure = f"{folder}/data", f"--procedure={folder}/lamp.json"
    sources = [f"--{name}={folder}/{name}" for name in ("videos", "labels", "boxes")]
    run("data_prep.own", *sources, procedure, f"--out={data}", "--size=64")
    run("data_prep.check", data)
    words = ["--config=own:boxes", f"--config.data.dir={data}", f"--workdir={folder}/run", *fields]
    run("stormpsr_jax.main", *words)


# --- Numbers of videos ----------------------------------------------------------------------------


def numbers(text: str) -> list[int]:
    """The type of --videos: rising numbers from 3 on, so that each split has a recording."""
    found = [int(part) for part in text.split(",")]
    if found != sorted(set(found)) or found[0] < 3:
        raise argparse.ArgumentTypeError(f"{text} is not rising numbers from 3 on")
    return found


def pool_places(number: int) -> list[tuple[str, str]]:
    """(split, name) of so many videos, and of those that all numbers are scored on."""
    learnt = [("val" if i % 5 == 2 else "train", f"video_{i:02d}") for i in range(number)]
    return learnt + [("test", f"unseen_{i:02d}") for i in range(UNSEEN)]


def lay_out(pool: Path, folder: Path, number: int) -> None:
    """Links so many of the videos that are there, with labels and boxes, into a folder."""
    for split, name in pool_places(number):
        for file in (f"videos/{split}/{name}.mp4", f"labels/{name}.csv", f"boxes/{name}.json"):
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            if not (folder / file).exists():
                os.link(pool / file, folder / file)


def errors_shown(folder: Path, procedure: Procedure, split: str) -> dict[str, int]:
    """How often each part is put on wrong in the videos of a split."""
    counts = collections.Counter[int]()
    for video in sorted((folder / "videos" / split).iterdir()):
        path = folder / "labels" / f"{video.stem}.csv"
        read = LabelPlace(path).read(procedure.at(FPS), procedure.variants["assembly"])
        wrong = wrong_parts.wrong_installations(read.frames, read.states, [])
        counts.update(one.component for one in wrong)
    return {name: counts[k] for k, name in enumerate(procedure.components)}


def measured(folder: Path, number: int, procedure: Procedure) -> dict[str, Any]:
    """What a run with so many videos came to."""
    result = files.read_json(folder / "run" / "metrics.json")
    places = collections.Counter(split for split, _ in pool_places(number))
    return {
        "videos": number,
        "train": places["train"],
        "val": places["val"],
        "errors": errors_shown(folder, procedure, "train"),
        "streams": {
            name: {key: stream[key] for key in ("f1", "pos", "delay_s", "wrong")}
            for name, stream in headline.streams(result).items()
        },
    }


def follow_numbers(
    pool: Path, several: Sequence[int], procedure: Procedure, fields: Sequence[str]
) -> None:
    """Follows the guide with each number of videos, and writes what came of it."""
    rows = []
    for number in several:
        folder = pool / f"of_{number}"
        lay_out(pool, folder, number)
        files.write_json(folder / "lamp.json", procedure.to_json())
        follow(folder, fields)
        rows.append(measured(folder, number, procedure))
    content = {
        "product": "a desk lamp of six parts, rendered by this package",
        "config": " ".join(["own:boxes", *fields]),
        "test": UNSEEN,
        "rows": rows,
    }
    files.write_json(pool / "accuracy_over_videos.json", content)
    print(table(rows))


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """What `measured` found as a table, by the stream that recognises."""
    lines = []
    for row in rows:
        score = [*row["streams"].values()][-1]
        lines.append(
            {
                "videos": str(row["videos"]),
                "for validation": row["val"],
                "incorrect per part": round(sum(row["errors"].values()) / len(row["errors"])),
                **{key: score[key] for key in ("f1", "pos", "delay_s")},
                f"accepted of {score['wrong']['shown']}": score["wrong"]["accepted"],
            }
        )
    return analysis.format_rows(lines, "markdown")


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--workdir", type=Path, required=True, metavar="DIR", help="where all of it goes")
    add("--workers", type=int, default=2, metavar="N", help="that render videos (2)")
    what = "numbers of videos, each of which the guide is followed with"
    add("--videos", type=numbers, default="3,6,12,24,46", metavar="N,N", help=what)
    args, fields = parser.parse_known_args(argv)
    folder = args.workdir.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        procedure = write_procedure(folder / "lamp.json")
        film_all(folder, procedure, pool_places(args.videos[-1]), args.workers)
        follow_numbers(folder, args.videos, procedure, fields)
    except subprocess.CalledProcessError as error:
        return error.returncode  # it has said why
    return 0


if __name__ == "__main__":
    sys.exit(main())
