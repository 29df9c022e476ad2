"""Writes a folder of clip shards: recordings as ArrayRecord files that tfds and array_record read.

A folder holds

* `procedure.json` and `settings.json`: what it was made from, checksums of labels, boxes and
  pictures among it; written first and compared on every later run;
* `clips-<split>.array_record-<i>-of-<n>`: one shard per recording, in the order of their names.
  A record is a clip of `clip_length` consecutive frames (the last one may be shorter);
* `labels/<split>/<recording>/`: the label CSVs and `frames.npz`, the labels of every frame;
* `labels/<split>.npz`: the same for the whole split, so that opening it decodes nothing;
* `features.json` and, last of all, `dataset_info.json`: what tfds reads.

Until all recordings are there, each that is finished lies in `recordings/<recording>/`, with its
shard and its labels. Then they get their places in one go (`_arrange`), which a later run that
makes others, or that finds this one interrupted, takes back (`_set_aside`).

The same recordings give the same bytes, for any number of workers and of interruptions, and on a
cluster. One run at a time writes to a folder; the others are told so.
"""

import contextlib
import fnmatch
import functools
import json
import os
import shutil
import tempfile
import time
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from absl import logging
from tensorflow_datasets.core.dataset_info import DatasetIdentity

from data_prep.writing import parallel, recording_shard
from data_prep.writing.recording_shard import Job, RecordingData, features
from stormpsr_jax.base import files, results
from stormpsr_jax.base.errors import raise_all
from stormpsr_jax.data import folder
from stormpsr_jax.data.clips import shard_name
from stormpsr_jax.media import pictures
from stormpsr_jax.media.framing import Framing
from stormpsr_jax.recordings.procedure import Procedure

SETTINGS = "settings.json"
_NAMES = {"first_frame": "frame numbers"}  # of keys of the sources, in messages


def lock_of(out: Path) -> Path:
    """The file that the run which writes to `out` has locked."""
    return out / ".lock"


@contextlib.contextmanager
def only_writer(out: Path) -> Iterator[None]:
    """Keeps other runs out of folder `out` (ValueError)."""
    with files.only_writer(lock_of(out), out):
        try:
            yield
        finally:
            lock_of(out).unlink(missing_ok=True)


def claim(out: Path, contents: Mapping[str, Any]) -> dict[str, Any] | None:
    """Writes procedure.json and settings.json, what the folder is made from, if it is new.

    `sources` and `splits` of the settings may be others than those of an older folder, where both
    say what all their recordings are made from. Returns the settings of an older folder that differ
    in nothing else; None if they are the same. ValueError says what else differs.
    """
    errors, before = [], None
    for file, asked in contents.items():
        if not (out / file).exists():
            files.write_json(out / file, asked)
        if (there := files.read_json(out / file)) == asked:
            continue
        free = _changing(there, asked) if file == SETTINGS else ()
        old, new = (
            {"config": results.flatten({k: v for k, v in of.items() if k not in free})}
            for of in (there, asked)
        )
        if why := results.differences(old, new):
            errors.append(
                f"{out / file}: this folder was made with other arguments ({'; '.join(why)}); give "
                "the same ones, write into another folder, or delete this one"
            )
        else:
            before = there
    raise_all(errors)
    return before


def _changing(there: dict[str, Any], asked: dict[str, Any]) -> tuple[str, ...]:
    """The keys in which the settings of a folder may differ: what recordings are made from."""
    if all(
        sorted(of["sources"]) == sorted(name for names in of["splits"].values() for name in names)
        for of in (there, asked)
    ):
        return "sources", "splits"
    return ("sources",) if there["sources"].keys() == asked["sources"].keys() else ()


def lost(out: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, str]:
    """By recording what would not be there any more; both settings know all `sources`."""
    old, new = (
        {name: split for split, names in of["splits"].items() for name in names}
        for of in (before, now)
    )
    problems = {}
    for name, split in old.items():
        there, asked = before["sources"][name], now["sources"].get(name, {})
        changed = [_NAMES.get(key, key) for key in asked if there.get(key) != asked[key]]
        if name not in new:
            problems[name] = f"is in {out}, and not given any more"
        elif changed:
            problems[name] = f"its {' and '.join(changed)} are not those that {out} has"
        elif split != new[name]:
            problems[name] = f"is in split {new[name]} now, and in {split} of {out}"
    return problems


def _places(out: Path, splits: Mapping[str, Sequence[str]]) -> dict[str, tuple[Path, Path]]:
    """By recording its shard and its folder of labels, as a complete folder has them."""
    return {
        name: (out / shard_name(split, i, len(names)), out / "labels" / split / name)
        for split, names in splits.items()
        for i, name in enumerate(names)
    }


def refuse(out: Path, lost: Mapping[str, str]) -> None:
    """Raises ValueError that names what --remake would make again or take away."""
    advice = (
        f"{out}: was made from other files than there are now; give the same command with "
        "--remake to change only the recordings named below, or write into another folder "
        "with --out"
    )
    raise_all([advice, *(f"recording {name}: {what}" for name, what in lost.items())])


def _set_aside(out: Path, splits: Mapping[str, Sequence[str]]) -> None:
    """Takes recordings from their places into folders of their names; nothing else is left."""
    (out / "dataset_info.json").unlink(missing_ok=True)
    (out / "recordings").mkdir(exist_ok=True)
    for name, (shard, labels) in _places(out, splits).items():
        folder = out / "recordings" / name
        if labels.is_dir() and not folder.exists():
            os.replace(labels, folder)
        if shard.exists() and folder.exists():
            os.replace(shard, folder / recording_shard.SHARD)
    for split in splits:
        (out / "labels" / f"{split}.npz").unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # there is none, or there are files of somebody else
            (out / "labels" / split).rmdir()
    for path in out.glob("clips-*"):
        path.unlink()


def _arrange(out: Path, splits: Mapping[str, Sequence[str]]) -> None:
    for name, (shard, labels) in _places(out, splits).items():
        folder = out / "recordings" / name
        labels.parent.mkdir(parents=True, exist_ok=True)
        os.replace(folder / recording_shard.SHARD, shard)
        os.replace(folder, labels)
    shutil.rmtree(out / "recordings")


CLIP_LENGTH = 16  # single frames need few neighbours read, windows few records
# In which a network disk shows a machine what others have written; NFS takes up to a minute.
SHOWN_SECONDS = 90.0


def build(
    out: str | Path,
    *,
    procedure: Procedure,
    image_size: tuple[int, int],
    splits: Mapping[str, Sequence[str]],
    make: Callable[[str, str], RecordingData],
    clip_length: int = CLIP_LENGTH,
    workers: parallel.Workers = 1,
    settings: Mapping[str, Any] | None = None,
    sources: Mapping[str, Any] | None = None,
    recordings: str = "*",
    num_frames: Mapping[str, int] | None = None,
    remake: bool = False,
    warnings: Sequence[str] = (),
    on_start: Callable[[], None] = lambda: None,
) -> bool:
    """Makes every recording that is not there yet, then writes what tfds needs to read them.

    Args:
        splits: names of the recordings of each split; a split without any is left out.
        make: (split, name) -> RecordingData, the same whenever it is called. Picklable if
            workers is not 1.
        clip_length: frames per record.
        workers: as of `parallel.run`.
        settings: whatever else of the caller the recordings depend on, as JSON values.
        sources: JSON objects, by recording, that change with what the recording is made from (such
            as checksums of its label files), of all or of none; see `remake`.
        recordings: glob on a recording's name or on <split>/<name>; only those are made.
        num_frames: of each recording, if known; the longest are then made first.
        remake: make the recordings again whose `sources` are others than those of the folder, take
            those out that are not among `splits` any more, and keep the rest; without, such
            recordings are an error. Where all `sources` are given, recordings may be new.
        warnings: for the log; they come when the arguments have been found right.
        on_start: called before recordings are made, where the folder is not complete.

    Returns:
        Whether the folder is complete; if not, what is missing has been printed.

    Raises:
        ValueError: a wrong argument, a recording that does not fit it (named), or a folder made
            with other arguments (says which).
        OSError, RuntimeError: of `parallel.run`; what is unfinished does not count as finished.
    """
    out = Path(out)
    splits = {split: sorted(names) for split, names in sorted(splits.items()) if names}
    description = {
        "version": folder.VERSION,
        "fps": float(procedure.fps),
        "image_size": [int(size) for size in image_size],
        "clip_length": int(clip_length),
        "splits": splits,
        "states": procedure.to_json()["states"],
        "settings": dict(settings or {}),
        "sources": dict(sorted((sources or {}).items())),
    }
    # As they come back from a file: with lists for tuples, for example.
    contents = json.loads(
        json.dumps({"procedure.json": procedure.to_json(), SETTINGS: description})
    )
    jobs = [
        Job(out, split, name, procedure, int(clip_length))
        for split, names in splits.items()
        for name in names
    ]
    chosen = [job for job in jobs if _matches(job, recordings)]
    if not chosen:
        raise ValueError(f"--recordings={recordings} matches none of the {len(jobs)} recordings")
    finished = _is_complete(out, splits) and all(
        (out / file).exists() and files.read_json(out / file) == content
        for file, content in contents.items()
    )
    with contextlib.nullcontext() if finished else only_writer(out):
        before = claim(out, contents)
        gone = lost(out, before, description) if before else {}
        if gone and not remake:
            refuse(out, gone)
        for warning in warnings:
            logging.warning("%s", warning)
        for name, what in gone.items():
            logging.info("recording %s: %s", name, what)
        if not before and _is_complete(out, splits):
            return True
        _set_aside(out, (before or description)["splits"])
        _remove_others(out, (before or description)["sources"], description)
        if before:
            files.write_json(out / SETTINGS, description)
        on_start()
        _make(make, chosen, workers, num_frames)
        missing = [job for job in jobs if not _is_made(job)]
        if not missing:
            _arrange(out, splits)
            for split, names in splits.items():
                _write_split_labels(out, split, names)
            _write_dataset_info(out, procedure, splits)
    if missing:
        names = ", ".join(job.name for job in missing[:10]) + (", …" if len(missing) > 10 else "")
        print(
            f"{out}: {len(missing)} of {len(jobs)} recordings are still missing ({names}); run "
            "the same command with a --recordings that matches them, or without it for all"
        )
    return not missing


def described(framing: Framing) -> dict[str, Any]:
    """Returns what a folder's settings say of what becomes of a picture, but for its size."""
    region = list(framing.region)
    return {"aspect": framing.aspect, "crop": region, "quality": pictures.QUALITY}


def _matches(job: Job, glob: str) -> bool:
    glob = unicodedata.normalize("NFC", glob)
    names = (job.name, f"{job.split}/{job.name}")
    return any(fnmatch.fnmatchcase(name, glob) for name in names)


def _is_complete(out: Path, splits: Mapping[str, Sequence[str]]) -> bool:
    files_of_all = ["dataset_info.json", "features.json"]
    files_of_all += [f"labels/{split}.npz" for split in splits]
    whole = all((out / file).is_file() for file in files_of_all)
    places = _places(out, splits).values()
    return whole and all(recording_shard.is_finished(*place) for place in places)


def _is_made(job: Job) -> bool:
    return recording_shard.is_finished(job.folder / recording_shard.SHARD, job.folder)


def _remove_others(out: Path, sources: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Removes recordings that were made of other `sources` than now, or that are gone."""
    names = {name for names in now["splits"].values() for name in names}
    for place in (out / "recordings").iterdir():
        changed = sources.get(place.name) != now["sources"].get(place.name)
        if place.name not in names or changed:
            shutil.rmtree(place)


def _make(
    make: Callable[[str, str], RecordingData],
    jobs: Sequence[Job],
    workers: parallel.Workers,
    num_frames: Mapping[str, int] | None,
) -> None:
    missing = [job for job in jobs if not _is_made(job)]
    if not missing:
        return
    sizes = [1] * len(missing)
    if num_frames is not None:
        # Long ones first, so that none is left over at the end.
        missing = sorted(missing, key=lambda job: -num_frames[job.name])
        sizes = [num_frames[job.name] for job in missing]
    desc = f"{len(missing)} of {len(jobs)} recordings to make"
    function = functools.partial(recording_shard.write, make=make)
    parallel.run(function, missing, workers, desc, sizes, lock_of(missing[0].out))
    deadline = time.monotonic() + SHOWN_SECONDS
    while not all(map(_is_made, missing)) and time.monotonic() < deadline:
        time.sleep(1)


def _write_split_labels(out: Path, split: str, names: Sequence[str]) -> None:
    recordings = [recording_shard.read_arrays(out / "labels" / split / name) for name in names]
    scalars = ("first_frame", "num_records")
    keys = ["states", "boxes", "classes", "visible"]
    if all("poses" in arrays for arrays in recordings):
        keys.append("poses")
    arrays: dict[str, Any] = {
        "recordings": np.array(names),
        "num_frames": np.array([len(arrays["states"]) for arrays in recordings]),
        **{key: np.array([arrays[key] for arrays in recordings]) for key in scalars},
        **{key: np.concatenate([arrays[key] for arrays in recordings]) for key in keys},
    }
    with files.replacing(out / "labels" / f"{split}.npz") as part, part.open("wb") as file:
        np.savez(file, **arrays)


def _write_dataset_info(
    out: Path, procedure: Procedure, splits: Mapping[str, Sequence[str]]
) -> None:
    """Writes features.json, then dataset_info.json, which makes the folder complete."""
    info = tfds.core.DatasetInfo(
        builder=DatasetIdentity(
            name="clips", version=tfds.core.Version("1.0.0"), data_dir=str(out), module_name=""
        ),
        features=features(procedure.num_components),
        description=f"Clips of consecutive frames of recordings of procedure {procedure.name!r}.",
    )
    info.set_file_format("array_record")
    split_infos = []
    for split, names in splits.items():
        recordings = [recording_shard.read_arrays(out / "labels" / split / name) for name in names]
        template = tfds.core.ShardedFileTemplate(
            data_dir=out, dataset_name="clips", split=split, filetype_suffix="array_record"
        )
        split_infos.append(
            tfds.core.SplitInfo(
                name=split,
                shard_lengths=[int(arrays["num_records"]) for arrays in recordings],
                num_bytes=int(sum(arrays["num_bytes"] for arrays in recordings)),
                filename_template=template,
            )
        )
    info.set_splits(tfds.core.splits.SplitDict(split_infos))
    with tempfile.TemporaryDirectory() as staging:
        info.write_to_directory(staging)
        for file in ("features.json", "dataset_info.json"):
            files.write_text(out / file, Path(staging, file).read_text("utf-8"))
