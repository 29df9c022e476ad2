"""Makes a data folder of ready-made frame embeddings, to train without any picture.

    python -m data_prep.embeddings --features=DIR --labels=DIR --procedure=FILE --out=DIR
    python -m stormpsr_jax.main --config=embeddings --config.data.dir=DIR --workdir=RUN

Features are `<split>/<recording>.npy`, N × D in float16, float32 or float64, with one D for all
recordings; or `.npz` with that array, named `features` if it is not the only one, and optionally
the N frame numbers as `frames`. Row i belongs to frame `first_frame` + i · `stride` of the video,
where `frames` does not say it. Labels are `<split>/<recording>/PSR_labels.csv` and, where there is
one, `PSR_labels_raw.csv`; without it the states follow from the steps and the initial state of the
procedure's variant. Frame numbers in them are those of the video.

The folder holds `procedure.json` and `settings.json` (what it was made from), for each recording
`features/<split>/<recording>.npy` (float32, to be memory-mapped) and its label files under
`labels/<split>/<recording>/`, `labels/<split>.npz` with the states at all rows, and last of all
`embeddings.json`. A file appears under its name only when it is whole: a run that was interrupted
goes on when started again, and the bytes are the same for any interruption and number of workers.
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from data_prep import command
from data_prep.reading import data_sets, embedding_files, recording_labels
from data_prep.reading.notes import differing_steps
from data_prep.reading.recording_labels import Labels
from data_prep.writing import output, parallel
from stormpsr_jax.base import folders, results
from stormpsr_jax.base.errors import gathering, raise_all
from stormpsr_jax.base.progress import Progress
from stormpsr_jax.data import folder
from stormpsr_jax.data.features import MARKER, EmbeddingFile, feature_path
from stormpsr_jax.psr.files import labels
from stormpsr_jax.psr.files.label_files import STATES, STEPS
from stormpsr_jax.psr.procedure import Procedure

NORMALISATIONS = ("l2", "none")
_ROWS = 4096  # at once


@dataclasses.dataclass(frozen=True)
class Conversion:
    """A recording: where it comes from, where it goes, and what its headers and labels say.

    Attributes:
        shape: (N, D).
        first_frame: of row 0.
        stride: frames between rows.
        labels: what the label files say.
        normalise: one of NORMALISATIONS.
    """

    out: Path
    split: str
    name: str
    source: Path
    shape: tuple[int, int]
    first_frame: int
    stride: int
    labels: Labels
    normalise: str

    @property
    def path(self) -> Path:
        """The file of the embeddings in the data folder."""
        return feature_path(self.out, self.split, self.name)

    def __str__(self) -> str:
        return f"recording {self.split}/{self.name}"


def make_dataset(
    out: str | Path,
    *,
    features: str | Path,
    label_dir: str | Path,
    procedure: Procedure,
    stride: int | None = None,
    first_frame: int | None = None,
    normalise: str = "l2",
    workers: parallel.Workers = 1,
) -> list[str]:
    """Makes the data folder and returns remarks; recordings that are already there are kept.

    Arguments are as `--help` says of the flags.

    Raises:
        ValueError: arrays or labels that cannot be read or do not fit (all of them at once); a NaN;
            a folder made from something else.
        OSError: a full disk among others; what is unfinished does not count as finished.
    """
    out = Path(out)
    jobs = _plan(out, Path(features), Path(label_dir), procedure, stride, first_frame, normalise)
    by_split = {s: [j for j in jobs if j.split == s] for s in sorted({j.split for j in jobs})}
    settings: dict[str, Any] = {
        "version": folder.VERSION,
        "fps": float(procedure.fps),
        "stride": jobs[0].stride,
        "width": jobs[0].shape[1],
        "normalise": normalise,
        "first_frame": first_frame or 0,
        "splits": {split: [job.name for job in of_split] for split, of_split in by_split.items()},
        "sources": {f"{job.split}/{job.name}": _sources(job) for job in jobs},
    }
    with output.only_writer(out):
        if before := output.claim(out, procedure, settings):
            there, now = before["sources"], settings["sources"]
            changed = [name for name in now if there[name] != now[name]]
            raise ValueError(
                f"{out}: was made from other features or labels of {', '.join(changed)}; delete "
                "it, or write into another folder with --out"
            )
        missing = [job for job in jobs if not _is_finished(job)]
        if missing:
            (out / MARKER).unlink(missing_ok=True)
        for split, of_split in by_split.items():
            for job in of_split:
                _write_labels(job)
            _write_split_labels(out, split, of_split)
        if missing:
            desc = f"{len(missing)} of {len(jobs)} recordings to convert"
            sizes = [job.shape[0] for job in missing]
            parallel.run(_convert, missing, workers, desc, sizes, output.lock_of(out))
        counts = {split: len(of_split) for split, of_split in by_split.items()}
        output.write_atomically(out, out / MARKER, json.dumps({"recordings": counts}).encode())
    return _notes(jobs, by_split, first_frame, procedure)


def _plan(
    out: Path,
    features: Path,
    label_dir: Path,
    procedure: Procedure,
    stride: int | None,
    first_frame: int | None,
    normalise: str,
) -> list[Conversion]:
    """Reads headers and labels of all recordings; every error in them becomes part of one error.

    Returns:
        The recordings by split and name, of one width and one stride.
    """
    errors: list[str] = []
    arrays = data_sets.find_files(
        folders.given(features, "--features"),
        "--features",
        "arrays",
        lambda file: file.stem if file.suffix in (".npy", ".npz") else None,
    )
    labels_top = folders.given(label_dir, "--labels")
    labelled = data_sets.find_labels(labels_top, f"--labels={label_dir}", file=STEPS)
    for names, there, absent in (
        (sorted(arrays.keys() - labelled.keys()), features, f"labels in {label_dir}"),
        (sorted(labelled.keys() - arrays.keys()), label_dir, f"features in {features}"),
    ):
        if names:
            errors.append(f"{there}: no {absent} for {', '.join(names)}")
    both = {name: labelled[name] for name in arrays if name in labelled}
    with gathering(errors):
        chosen = data_sets.splits_of(label_dir, features, both, arrays)
    headers: dict[str, embedding_files.Header] = {}
    known: dict[str, Labels] = {}
    paths = {name: arrays[name] for name in both}
    for name, path in paths.items():
        with gathering(errors):
            headers[name] = embedding_files.read_header(path, stride, first_frame or 0)
            known[name] = _read_labels(both[name].path, name, procedure, headers[name])
    strides = {name: header.stride for name, header in headers.items()}
    widths = {name: header.shape[1] for name, header in headers.items()}
    for what, values in (("strides", strides), ("widths D", widths)):
        if len(set(values.values())) > 1:
            first = {value: name for name, value in reversed(values.items())}
            shown = ", ".join(f"{value} ({name})" for value, name in sorted(first.items()))
            errors.append(f"{features}: recordings have different {what}: {shown}")
    raise_all(errors)
    jobs = [
        Conversion(out, chosen[name], name, paths[name], *headers[name], known[name], normalise)
        for name in both
    ]
    return sorted(jobs, key=lambda job: (job.split, job.name))


def _read_labels(
    place: Path, name: str, procedure: Procedure, array: embedding_files.Header
) -> Labels:
    procedure.variant_for(name)  # raises if there is none, or several
    frames = range(array.first_frame, array.first_frame + array.stride * array.shape[0])
    advice = (
        f", which the {array.shape[0]} rows of features stand for at stride {array.stride}; check "
        "--first_frame and --stride"
    )
    return recording_labels.read_psr_files(
        place, name, procedure, frames, advice=advice, early_start=True
    )


def _sources(job: Conversion) -> dict[str, Any]:
    return {"features": results.of_input(job.source), "labels": job.labels.digest}


def _is_finished(job: Conversion) -> bool:
    try:
        return EmbeddingFile(job.path).shape == job.shape
    except (OSError, ValueError):
        return False


def _write_labels(job: Conversion) -> None:
    folder = job.out / "labels" / job.split / job.name
    folder.mkdir(parents=True, exist_ok=True)
    for file, content in job.labels.files.items():
        output.write_atomically(job.out, folder / file, content)
    if STATES not in job.labels.files:
        with output.unfinished(job.out, folder / STATES) as path:
            labels.write_states(path, job.labels.frames, job.labels.states)


def _write_split_labels(out: Path, split: str, jobs: list[Conversion]) -> None:
    states = [
        labels.states_per_frame(
            job.labels.frames, job.labels.states, job.first_frame, job.stride * job.shape[0]
        )[:: job.stride]
        for job in jobs
    ]
    output.write_arrays(
        out,
        out / "labels" / f"{split}.npz",
        recordings=np.array([job.name for job in jobs]),
        num_frames=np.array([job.shape[0] for job in jobs]),
        first_frame=np.array([job.first_frame for job in jobs]),
        states=np.concatenate(states),
    )


def _convert(job: Conversion, progress: Progress) -> None:
    """Writes the embeddings of a recording as float32 rows, in pieces."""
    progress.begin(job.shape[0])
    job.path.parent.mkdir(parents=True, exist_ok=True)
    with output.unfinished(job.out, job.path) as path, path.open("wb") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": job.shape}
        np.lib.format.write_array_header_1_0(file, header)
        rows = embedding_files.read_rows(job.source)
        for start in range(0, len(rows), _ROWS):
            values = rows[start : start + _ROWS]
            frame = job.first_frame + job.stride * start
            file.write(_float32(values, job, frame).astype("<f4").tobytes())
            progress.advance(len(values))


def _float32(values: np.ndarray, job: Conversion, first_frame: int) -> np.ndarray:
    """Checks rows (B, D), of which the first belongs to first_frame, and normalises them."""
    with np.errstate(over="ignore"):
        rows = values.astype(np.float32)
    if not np.isfinite(rows).all():
        row, column = np.argwhere(~np.isfinite(rows))[0]
        raise ValueError(
            f"{job.source}: frame {first_frame + job.stride * row} has {values[row, column]} in "
            f"column {column}; finite numbers within float32 are needed"
        )
    if job.normalise == "none":
        return rows
    lengths = np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
    return rows / np.where(lengths > 0, lengths, 1)


def _notes(
    jobs: list[Conversion],
    by_split: Mapping[str, list[Conversion]],
    first_frame: int | None,
    procedure: Procedure,
) -> list[str]:
    shown = ", ".join(
        f"{split} {len(of_split)} recordings of {sum(job.shape[0] for job in of_split)} rows"
        for split, of_split in by_split.items()
    )
    lines = [f"{shown}; D = {jobs[0].shape[1]}, stride {jobs[0].stride}"]
    for split in ("train", "val", "test"):
        if split not in by_split:
            lines.append(f"no split {split!r}, which configs/embeddings.py needs")
    late = [job for job in jobs if first_frame is None and job.labels.frames[0] != job.first_frame]
    if late:
        job = late[0]
        lines.append(
            f"the states of {len(late)} recordings begin at another frame than their features, "
            f"{job.name} at {job.labels.frames[0]} and {job.first_frame}: is --first_frame right?"
        )
    for job in jobs:
        lines += differing_steps(job.name, job.labels, procedure)
    return lines


def _make(procedure: Procedure, fps: float | None, **given: Any) -> None:
    print("\n".join(make_dataset(procedure=procedure.at(fps), **given)), file=sys.stderr)


def _add_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--features", required=True, help="folder of <split>/<recording>.npy or .npz")
    add(
        "--labels",
        dest="label_dir",
        metavar="LABELS",
        required=True,
        help="folder of <split>/<recording>/PSR_labels.csv",
    )
    add("--procedure", required=True, help="a packaged procedure's name, or a procedure file")
    add("--out", required=True, help="the data folder to make")
    add(
        "--stride",
        type=command.at_least(1),
        help="video frames between two rows; 1, or what `frames` say",
    )
    what = "frame number of row 0, without `frames` (0)"
    add("--first_frame", type=command.at_least(0), help=what)
    add("--fps", type=float, help="of the videos; otherwise the procedure's")
    add("--normalise", choices=NORMALISATIONS, default="l2", help="rows to length 1 (%(default)s)")
    command.add_workers_flags(parser, 1)


main = command.command("embeddings", __doc__, _add_flags, _make)

if __name__ == "__main__":
    sys.exit(main())
