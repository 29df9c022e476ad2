"""A model for a camera that its training has not seen, by videos of it without labels.

    python -m stormpsr_jax.camera --model=MODEL VIDEO… --out=DIR

A model of renders alone reads the pictures of a camera, on which correct parts may look less so.
Most parts of most units are installed correctly: where the videos of ten units or so have them says
by how much "right" is to be moved (psr/calibration.py). MODEL is a model folder, or a work folder
that has one; DIR becomes a copy for this camera, and the numbers of each part are printed.
Nothing is learned: give videos of the place where it will recognise.
"""

import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from stormpsr_jax.base import files
from stormpsr_jax.base.errors import raise_all, tell
from stormpsr_jax.base.progress import Bar
from stormpsr_jax.psr import analysis, calibration
from stormpsr_jax.psr.cli import OneLineParser, fail_for
from stormpsr_jax.recordings.scores import Scores


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns 0, or ends with status 2 after a line of what is wrong."""
    parser = OneLineParser(prog="python -m stormpsr_jax.camera", description=__doc__)
    add = parser.add_argument
    add("videos", nargs="+", metavar="VIDEO", help="videos, folders, patterns; not labelled")
    add("--model", required=True, metavar="MODEL", help="a model folder, or a work folder")
    what = "modules, by commas, of a temporal network of your own: loading the model executes them"
    add("--modules", type=lambda text: (*text.split(","),), default=(), metavar="NAME", help=what)
    add("--out", required=True, type=Path, metavar="DIR", help="model folder to make")
    args = parser.parse_args(argv)
    try:
        fit(args.model, args.videos, args.out, args.modules)
    except (ValueError, OSError, MemoryError) as error:
        if os.environ.get("STORMPSR_TRACEBACK"):
            raise
        fail_for(error)
    print(f"wrote {args.out}")
    return 0


def fit(model_given: str, videos: Sequence[str], out: Path, modules: Sequence[str] = ()) -> None:
    """Writes the model for a camera; ValueError: it has no level, or the videos tell none."""
    from stormpsr_jax.media import sources
    from stormpsr_jax.serving.content import MODEL, with_checksum
    from stormpsr_jax.serving.folder import load_model, model_folder
    from stormpsr_jax.serving.frames import chunks

    folder = model_folder(model_given)
    if out.exists():
        raise ValueError(f"--out={out}: is there already; name a folder to make")
    videos_found, errors = sources.find(videos, out)
    raise_all(errors)
    model = load_model(folder, modules)
    if model.right_level is None or "learned" not in model.streams:
        why = "its run had no detector, or no correct parts in validation"
        raise ValueError(f"{folder}: does not say where correct parts lie: {why}")
    if model.for_camera:
        raise ValueError(f"{folder}: is for a camera already; give the model that it came from")
    seen = []
    for source in Bar(iterable=videos_found, desc="videos", unit="video"):
        rows = model.rows_of(source.open(model.fps), "learned", model.batch)
        frames = model.frames(stream="learned").over(chunks(rows, model.batch, 0))
        said = [frame.scores for chunk in frames for frame in chunk]
        columns = (np.array(column, np.float32) for column in zip(*said, strict=True))
        seen += [Scores(np.arange(len(said)), *columns)] if said else []
    of_videos = calibration.level(seen) or []
    if not any(of_videos):
        raise ValueError(
            f"the videos show no part {calibration.ENOUGH} times; give more, of this product"
        )
    shifts = calibration.shift(model.right_level, of_videos)
    parts = model.procedure.components
    shown = {"part": parts, "validation": model.right_level, "videos": of_videos, "added": shifts}
    rows_of = zip(*shown.values(), strict=True)
    print(analysis.format_rows([dict(zip(shown, row, strict=True)) for row in rows_of]))
    low = [
        p for p, x in zip(parts, of_videos, strict=True) if x is not None and x < calibration.LITTLE
    ]
    if low:
        what = "correct ones hardly look right here, so incorrect ones may be accepted"
        tell("warning", f"{', '.join(low)}: {what}; label some videos and train on them")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent) as made:
        copy = shutil.copytree(folder, Path(made, out.name))
        data = files.read_json(copy / MODEL)
        data["streams"]["learned"]["settings"]["camera"] = shifts
        files.write_json(copy / MODEL, with_checksum(data))
        load_model(copy, modules)
        os.rename(copy, out)


if __name__ == "__main__":
    sys.exit(main())
