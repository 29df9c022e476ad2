"""What changes in a folder of clip shards when recordings come, go, or are made from other files.

A shard's name has its place among all of its split, so that most shards get another name when one
recording comes or goes. They are renamed and not made again. At any time, each shard that is there,
under its name or in folder `moved`, is one of the settings that are there; without
dataset_info.json, which is removed first, the folder looks unfinished until all is done.
"""

import dataclasses
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


@dataclasses.dataclass(frozen=True)
class Changes:
    """What is to become of a folder.

    Attributes:
        before: (split, file name of the shard) of each recording that it has.
        added: recordings that are new.
        gone: recordings that are there no more.
        changed: of recordings that are made from other files, what is other: ["labels"].
        moved: of recordings that change their split, (old, new).
    """

    before: dict[str, tuple[str, str]]
    added: list[str]
    gone: list[str]
    changed: dict[str, list[str]]
    moved: dict[str, tuple[str, str]]

    @property
    def loses(self) -> bool:
        """Whether something that is there would not be there any more."""
        return bool(self.gone or self.changed or self.moved)

    def describe(self) -> str:
        """Names the recordings, for the log."""
        kinds = {
            "new": self.added,
            "gone": self.gone,
            "made again": [*self.changed],
            "in another split": [*self.moved],
        }
        return "; ".join(f"{what}: {', '.join(names)}" for what, names in kinds.items() if names)


def find(before: Mapping[str, Any], now: Mapping[str, Any]) -> Changes:
    """Compares the settings of a folder with those asked for; both know all `sources`."""
    old, new = _places(before["splits"]), _places(now["splits"])
    changed = {}
    for name in old.keys() & new.keys():
        there, asked = before["sources"][name], now["sources"][name]
        if what := [_NAMES.get(key, key) for key in asked if there.get(key) != asked[key]]:
            changed[name] = list(dict.fromkeys(what))
    return Changes(
        before=old,
        added=[name for name in new if name not in old],
        gone=[name for name in old if name not in new],
        changed=dict(sorted(changed.items())),
        moved={
            name: (old[name][0], split)
            for name, (split, _) in new.items()
            if name in old and old[name][0] != split
        },
    )


def _places(splits: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, str]]:
    return {
        name: (split, shard_name(split, i, len(names)))
        for split, names in splits.items()
        for i, name in enumerate(names)
    }


def refuse(out: Path, changes: Changes) -> None:
    """Raises ValueError that names what --remake would make again or take away."""
    lines = [
        f"recording {name}: its {' and '.join(what)} are not those that {out} has"
        for name, what in changes.changed.items()
    ]
    lines += [f"recording {name}: is in {out}, and not given any more" for name in changes.gone]
    lines += [
        f"recording {name}: is in split {new} now, and in {old} of {out}"
        for name, (old, new) in changes.moved.items()
    ]
    raise_all(
        [
            f"{out}: was made from other files than there are now; give the same command with "
            "--remake to change only the recordings named below, or write into another folder "
            "with --out",
            *lines,
        ]
    )


def apply(out: Path, changes: Changes, jobs: Sequence[Job], description: Mapping[str, Any]) -> None:
    """Removes shards that do not stay, sets those aside that get another name, writes settings.

    `settle` does the rest, also after an interruption.
    """
    (out / "dataset_info.json").unlink(missing_ok=True)
    shards = {job.name: job.shard for job in jobs}
    for name, (_, file) in changes.before.items():
        if name in changes.gone or name in changes.changed:
            (out / file).unlink(missing_ok=True)
            (out / MOVED / name).unlink(missing_ok=True)
        elif out / file != shards[name] and (out / file).exists():
            (out / MOVED).mkdir(exist_ok=True)
            os.replace(out / file, out / MOVED / name)
    output.write_json(out, output.SETTINGS, description)


def settle(out: Path, jobs: Sequence[Job]) -> None:
    """Gives shards that were set aside their names, and removes labels of recordings that are gone.

    The settings of the folder are those of the jobs.
    """
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
