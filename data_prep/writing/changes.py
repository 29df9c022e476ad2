"""What changes in a folder of clip shards when recordings come, go, or are made from other files.

A shard's name has its place among all of its split, so that most shards get another name when one
recording comes or goes. They are renamed and not made again. At any time, each shard that is there,
under its name or in folder `moved`, is one of the settings that are there; without
dataset_info.json, which is removed first, the folder looks unfinished until all is done.
"""

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data_prep.writing import output
from data_prep.writing.recording_shard import Job
from stormpsr_jax.base.errors import raise_all
from stormpsr_jax.data.clips import shard_name

MOVED = "moved"  # a folder in which shards are named after their recordings
_NAMES = {"first_frame": "frame numbers"}  # of keys of the sources, in messages


def lost(out: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, str]:
    """By recording what would not be there any more; both settings know all `sources`."""
    old, new = _places(before["splits"]), _places(now["splits"])
    found = {}
    for name, (split, _) in old.items():
        there, asked = before["sources"][name], now["sources"].get(name, {})
        what = [_NAMES.get(key, key) for key in asked if there.get(key) != asked[key]]
        if name not in new:
            found[name] = f"is in {out}, and not given any more"
        elif what:
            found[name] = f"its {' and '.join(what)} are not those that {out} has"
        elif split != new[name][0]:
            found[name] = f"is in split {new[name][0]} now, and in {split} of {out}"
    return found


def _places(splits: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, str]]:
    """By recording its split and the file name of its shard."""
    return {
        name: (split, shard_name(split, i, len(names)))
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


def apply(
    out: Path, before: Mapping[str, Any], jobs: Sequence[Job], now: Mapping[str, Any]
) -> None:
    """Removes shards that do not stay, sets those aside that get another name, writes settings."""
    (out / "dataset_info.json").unlink(missing_ok=True)
    shards = {job.name: job.shard for job in jobs}
    for name, (_, file) in _places(before["splits"]).items():
        if before["sources"][name] != now["sources"].get(name):
            (out / file).unlink(missing_ok=True)
            (out / MOVED / name).unlink(missing_ok=True)
        elif out / file != shards[name] and (out / file).exists():
            (out / MOVED).mkdir(exist_ok=True)
            os.replace(out / file, out / MOVED / name)
    output.write_json(out, output.SETTINGS, now)


def settle(out: Path, jobs: Sequence[Job]) -> None:
    """Gives shards that were set aside their names, removes labels of recordings that are gone."""
    labels, folders = out / "labels", {job.labels for job in jobs}
    for job in jobs:
        if (out / MOVED / job.name).exists():
            for other in labels.glob("*/"):
                if other.name != job.split and (other / job.name).is_dir():
                    job.labels.parent.mkdir(exist_ok=True)
                    shutil.rmtree(job.labels, ignore_errors=True)
                    os.replace(other / job.name, job.labels)
            os.replace(out / MOVED / job.name, job.shard)
    shutil.rmtree(out / MOVED, ignore_errors=True)
    for folder in labels.glob("*/*/"):
        if folder not in folders:
            shutil.rmtree(folder)
    splits = {job.split for job in jobs}
    for path in [path for path in labels.glob("*") if path.stem not in splits]:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
