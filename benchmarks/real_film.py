"""Real film: two people, one model of bricks, seven steps, no incorrect installation.

    python -m benchmarks.real_film CLONE --workdir=DIR [--size=64] [--record=real_film]
        [--photos] [--config.FIELD=VALUE …]

CLONE is a clone of KTH-EXPECA/CognitiveAssistanceTraces (CC BY 4.0, © KTH Royal Institute of
Technology and Carnegie Mellon University). Its pictures, 640 x 360 from a head's camera, become
films of 15 a second, which is assumed; its steps were cut apart and are joined. A step is complete
in the key frame that its authors name. `real_film_boxes.json` has boxes of some pictures of each
person, cx cy w h in 0…1: found by colour, looked at one by one.

By the guide's commands (own:boxes) one person's even pictures train, the odd ones, darkened,
validate, and the other person's film is the test; then the other way round. No crop or region is
given. DIR keeps films, data and runs; what is there is not made again.
"""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

from benchmarks import own_product, record
from stormpsr_jax.base import files
from stormpsr_jax.psr.cli import OneLineParser

FPS = 15
# By person, the key frame of each step, counted within the step.
KEY_FRAMES = {1: (245, 158, 159, 274, 162, 239, 308), 2: (63, 117, 143, 149, 167, 124, 140)}
PARTS = ("base", "white", "black", "roof", "green step", "green post", "top")
DARKER = np.array([0.85, 0.8, 0.72])  # of the pictures that validate
PROCEDURE = {
    "name": "brick model",
    "fps": FPS / 2,
    "components": PARTS,
    "states": ["1" * k + "0" * (len(PARTS) - k) for k in range(1, len(PARTS) + 1)],
    "variants": {
        "assembly": {
            "initial_state": "0" * len(PARTS),
            "expected": [3 * k for k in range(len(PARTS))],
            "recordings": ["*"],
        }
    },
}


def pictures_of(clone: Path, person: int) -> Iterator[tuple[int, int, np.ndarray]]:
    """Yields step, number within it and picture (H, W, 3), in order."""
    rows = []
    for path in (clone / f"lego/HeadTrace{person}/frames").glob("step*/*"):
        if digits := "".join(filter(str.isdigit, path.stem)):
            rows.append((int(path.parent.name.removeprefix("step")), int(digits), path))
    if not rows:
        raise SystemExit(f"error: {clone}: has no frames; give a clone of the films' repository")
    for step, number, path in sorted(rows):
        with Image.open(path) as image:
            yield step, number, np.asarray(image.convert("RGB"))


def write_films(clone: Path, folder: Path) -> None:
    """Writes videos, labels, boxes and the procedure of both people: as a user has them."""
    boxes = files.read_json(Path(__file__).with_name("real_film_boxes.json"))
    for person, keys in KEY_FRAMES.items():
        frames = list(pictures_of(clone, person))
        places = {(step, number): i for i, (step, number, _) in enumerate(frames)}
        times = [places[step, key] / FPS for step, key in enumerate(keys, start=1)]
        rows = [f"{time:.2f},Install {part}" for time, part in zip(times, PARTS, strict=True)]
        boxes_at = {int(frame): box for frame, box in boxes[str(person)].items()}
        for name, first, every in (("", 0, 1), ("_a", 0, 2), ("_b", 1, 2)):
            film = f"person_{person}{name}"
            chosen = range(first, len(frames), every)
            darker = DARKER if name == "_b" else 1
            pictures = (np.uint8(frames[i][2] * darker) for i in chosen)
            write_video(folder / f"videos/{film}.mp4", pictures, Fraction(FPS, every))
            files.write_text(folder / f"labels/{film}.csv", "\n".join(["time,step", *rows, ""]))
            for row, i in enumerate(chosen):  # by the frames of the procedure, each second picture
                if box := boxes_at.get(i - first):
                    text = " ".join(f"{value:.4f}" for value in (0, *box))
                    place = folder / f"boxes/{film}/{row * every // 2:06d}.txt"
                    files.write_text(place, text.replace("0.0000 ", "0 ", 1) + "\n")
    files.write_json(folder / "bricks.json", PROCEDURE)


def write_video(path: Path, pictures: Iterator[np.ndarray], rate: Fraction) -> None:
    """Writes an MP4 file."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate, options={"crf": "18"})
        stream.width, stream.height, stream.pix_fmt = 640, 360, "yuv420p"
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture)))
        container.mux(stream.encode())


def learn(
    folder: Path, person: int, other: int, size: int, config: str, fields: list[str]
) -> dict[str, Any]:
    """Trains on one person and tests on the other; the content of metrics.json."""
    run = folder / "_".join(["run", str(person), str(size), *config.split(",")[1:]])
    data = folder / f"data_{person}_{size}"
    splits = {f"person_{person}_a": "train", f"person_{person}_b": "val", f"person_{other}": "test"}
    inputs = folder / f"from_{person}"
    for kind, ending in (("videos", ".mp4"), ("labels", ".csv"), ("boxes", "")):
        (inputs / kind).mkdir(parents=True, exist_ok=True)
        for name in splits:
            link = inputs / kind / f"{name}{ending}"
            if not link.is_symlink():
                link.symlink_to((folder / kind / f"{name}{ending}").resolve())
    rows = [f"{name},{split}" for name, split in splits.items()]
    files.write_text(inputs / "splits.csv", "\n".join(["recording,split", *rows, ""]))
    sources = [f"--{kind}={inputs / kind}" for kind in ("videos", "labels", "boxes")]
    words = [*sources, f"--procedure={folder / 'bricks.json'}", f"--splits={inputs / 'splits.csv'}"]
    own_product.run("data_prep.own", *words, f"--out={data}", f"--size={size}")
    pixels = f"--config.detector.image_size={size}"
    words = [f"--config={config}", f"--config.data.dir={data}", f"--workdir={run}", pixels]
    own_product.run("stormpsr_jax.main", *words, *fields)
    return files.read_json(run / "metrics.json")


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = OneLineParser(prog="python -m benchmarks.real_film", description=__doc__)
    parser.add_argument("clone", type=Path, metavar="CLONE")
    parser.add_argument("--workdir", type=Path, required=True, metavar="DIR")
    parser.add_argument("--size", type=int, default=64, metavar="N", help="pixels of a picture")
    what = "own:boxes,photos"
    parser.add_argument(
        "--photos", dest="config", action="store_const", const=what, default="own:boxes", help=what
    )
    parser.add_argument("--attempt", default="", metavar="TEXT", help="what is new, for --record")
    parser.add_argument("--record", metavar="NAME", help="of the figures in benchmarks/results")
    args, fields = parser.parse_known_args(argv)
    folder = args.workdir.resolve()
    if not (folder / "bricks.json").is_file():
        for kind in (
            "videos",
            "labels",
            *(f"boxes/person_{p}{n}" for p in "12" for n in ("", "_a", "_b")),
        ):
            (folder / kind).mkdir(parents=True, exist_ok=True)
        write_films(args.clone, folder)
    rows = []
    for person, other in ((1, 2), (2, 1)):
        streams = learn(folder, person, other, args.size, args.config, fields)["streams"]
        if "seen" in (learned := streams["learned"]):
            streams = {**streams, "learned, seen": learned["seen"], "learned, right": learned}
            del streams["learned"]
        for stream, its in streams.items():
            figures = {key: its[key] for key in ("f1", "f1_tolerant", "pos", "delay_s")}
            counts = {"found of 7": its["tp"], "false": its["fp"]}
            rows.append({"run": f"{person} to {other}: {stream}", **counts, **figures})
    title = f"Real film: two people, one model, no incorrect installation{args.attempt}"
    print(title, *rows, sep="\n")
    if args.record:  # attempts before stay
        path = record.RESULTS / f"{args.record}.json"
        before = files.read_json(path)["tables"] if path.exists() else {}
        notes = "Seven steps; pictures of 64 pixels where no other are named. "
        notes += "f1_tolerant: up to 1 s early counts."
        record.save(args.record, before | {title: rows}, notes)


if __name__ == "__main__":
    main()
