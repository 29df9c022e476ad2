"""Splits of a user's own recordings: drawn, or given by a file or by folders."""

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from stormpsr_jax.base import files
from stormpsr_jax.base.mistakes import raise_all
from stormpsr_jax.media.finding import Place
from stormpsr_jax.psr.files import csvfile
from stormpsr_jax.psr.files.label_files import SPLITS

DEFAULT_SHARES = "70/15/15"

_SHARES = re.compile(r"([0-9]{1,3})/([0-9]{1,3})/([0-9]{1,3})", re.ASCII)


def choose_splits(
    pictured: Mapping[str, Sequence[Place]],
    labelled: Mapping[str, Sequence[Place]],
    splits: str,
    seed: int,
) -> dict[str, str]:
    """Returns the split of each recording.

    Args:
        pictured, labelled: places of each recording.
        splits: a CSV file, or shares such as 70/15/15. '' means the folders train, val and test;
            if no recording lies in one of these, DEFAULT_SHARES.
        seed: of the draw.

    Raises:
        ValueError: too few recordings for the draw; recordings without a split or in two.
    """
    if match := _SHARES.fullmatch(splits):
        return draw_splits(list(labelled), [int(share) for share in match.groups()], seed)
    if splits:
        return _read_splits(Path(splits), labelled)
    of_folders = {
        name: {
            part.lower()
            for _, path in (*pictured[name], *labelled[name])
            for part in path.split("/")[:-1]
            if part.lower() in SPLITS
        }
        for name in labelled
    }
    if not any(of_folders.values()):
        return draw_splits(
            list(labelled), [int(share) for share in DEFAULT_SHARES.split("/")], seed
        )
    problems = []
    for name, found in of_folders.items():
        if len(found) > 1:
            problems.append(f"recording {name}: is in folders {' and '.join(sorted(found))}")
    if without := [name for name, found in of_folders.items() if not found]:
        problems.append(
            f"recordings in no folder train, val or test, in which others are: {', '.join(without)}"
        )
    raise_all(problems)
    return {name: found.pop() for name, found in of_folders.items()}


def draw_splits(names: Sequence[str], shares: Sequence[int], seed: int) -> dict[str, str]:
    """Draws the split of each recording; the same names and seed give the same splits.

    Args:
        names: of all recordings, in any order.
        shares: of train, val and test; each that is not 0 gets a recording at least.
        seed: of the draw.

    Raises:
        ValueError: no share at all, or fewer recordings than splits.
    """
    used = {split: share for split, share in zip(SPLITS, shares, strict=True) if share}
    spec = "/".join(map(str, shares))
    if not used:
        raise ValueError(f"--splits={spec}: all shares are 0")
    if len(names) < len(used):
        raise ValueError(
            f"{len(names)} recordings are too few to draw {', '.join(used)} from ({spec}), which "
            "need one each: record more, cut a long recording into several, or say with "
            "--splits=FILE which one is for what"
        )
    drawn = sorted(names, key=lambda name: hashlib.sha256(f"{seed}/{name}".encode()).digest())
    chosen: dict[str, str] = {}
    first, *others = used  # train takes what the others leave
    for i, split in enumerate(others):
        wanted = max(1, round(len(names) * used[split] / sum(used.values())))
        left = len(names) - len(chosen) - (len(others) - i)  # one for train and each to come
        for name in drawn[len(chosen) :][: min(wanted, left)]:
            chosen[name] = split
    return {name: chosen.get(name, first) for name in names}


def _read_splits(path: Path, names: Iterable[str]) -> dict[str, str]:
    if not path.is_file():
        raise ValueError(
            f"--splits={path}: neither a file nor shares of train, val and test such as 70/15/15"
        )
    header = ["recording", "split"]
    rows = csvfile.read_rows(path)
    if not rows or [text.strip().lower() for text in rows[0][1]] != header:
        raise ValueError(f"{path}: line 1: header: has to be recording,split")
    chosen: dict[str, str] = {}
    problems = []
    for line, row in rows[1:]:
        try:
            csvfile.check_width(path, line, row, header)
            name = files.check_name(row[0].strip(), f"{path}: line {line}: recording")
            split = row[1].strip()
            if split not in SPLITS:
                what = f"{files.shorten(split)} is not one of {', '.join(SPLITS)}"
                raise csvfile.field_error(path, line, "split", what)
            if chosen.setdefault(name, split) != split:
                what = f"{name} is in {chosen[name]} above"
                raise csvfile.field_error(path, line, "recording", what)
        except ValueError as error:
            problems.append(str(error))
    raise_all(problems)
    if without := [name for name in names if name not in chosen]:
        problems.append(f"{path}: has no row for recordings {', '.join(without)}")
    if without := [name for name in chosen if name not in set(names)]:
        problems.append(f"{path}: recordings without video and labels: {', '.join(without)}")
    raise_all(problems)
    return chosen
