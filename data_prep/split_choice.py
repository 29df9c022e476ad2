"""Splits of a user's own recordings: drawn, or given by a file or by folders."""

import collections
import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from data_prep import matching
from stormpsr_jax.base import files
from stormpsr_jax.base.errors import for_each, raise_all
from stormpsr_jax.data import folder
from stormpsr_jax.recordings import csvfile, find
from stormpsr_jax.recordings.find import SPLITS
from stormpsr_jax.recordings.recording import LabelPlace, Recording

DEFAULT_SHARES = "70/15/15"

Kind = tuple[bool, str]  # whether a recording has an incorrect installation; its variant

_SHARES = re.compile(r"([0-9]{1,3})/([0-9]{1,3})/([0-9]{1,3})", re.ASCII)


def choose(
    spec: str,
    seed: int,
    before: Mapping[str, str],
    tops: tuple[Path, Path],
    labelled: Mapping[str, LabelPlace],
    pictured: Mapping[str, Path],
    kind: Callable[[str], Kind],
) -> Mapping[str, str]:
    """The split of each recording.

    Args:
        spec: a CSV file, or shares such as 70/15/15; '' means the folders that recordings lie in,
            and if none lies in one, DEFAULT_SHARES.
        before: splits that no draw changes: what is scored on must not be learnt from later.
        tops: the folders in which the labels and the pictures of recordings were found.
        kind: says that of a recording, by its name, which only a draw asks.

    Raises:
        ValueError: too few recordings for the draw; recordings without a split or in two.
    """
    if not spec:
        in_folders = [find.split_of(place.path, tops[0]) for place in labelled.values()]
        in_folders += [find.split_of(path, tops[1]) for path in pictured.values()]
        if any(in_folders):
            return matching.splits_of(*tops, labelled, pictured, above=False)
    if match := _SHARES.fullmatch(spec or DEFAULT_SHARES):
        shares = [int(share) for share in match.groups()]
        return draw_splits(list(labelled), shares, seed, before, {n: kind(n) for n in labelled})
    return _read_splits(Path(spec), labelled)


def kind_of(recording: Recording) -> Kind:
    """The kind of a recording; what is wrong with its labels is said when all are read."""
    try:
        variant = recording.procedure.variant_for(recording.name).name
        return bool((recording.labels.states == -1).any()), variant
    except ValueError:
        return False, ""


def draw_splits(
    names: Sequence[str],
    shares: Sequence[int],
    seed: int,
    before: Mapping[str, str],
    kinds: Mapping[str, Kind],
) -> dict[str, str]:
    """Draws the split of each recording; the same arguments give the same splits.

    Incorrect installations go to train, val and test in this order, until each has a recording with
    one; as far as these leave room, a variant of several recordings is not all in one split. Each
    share that is not 0 gets a recording at least. Recordings keep the split that they had `before`;
    the others are drawn so that all together come as near to the shares as they can. `kinds` are of
    all recordings, or of none if they are alike.
    """
    used = {split: share for split, share in zip(SPLITS, shares, strict=True) if share}
    spec = "/".join(map(str, shares))
    if not used:
        raise ValueError(f"--splits={spec}: all shares are 0")
    chosen = {name: before[name] for name in names if name in before}
    new = sorted(
        (name for name in names if name not in before),
        key=lambda name: hashlib.sha256(f"{seed}/{name}".encode()).digest(),
    )
    first, *others = used  # train takes what the others leave
    for i, split in enumerate(others):
        there = [*chosen.values()]
        wanted = max(1, round(len(names) * used[split] / sum(used.values()))) - there.count(split)
        empty = [other for other in (first, *others[i + 1 :]) if other not in there]
        for _ in range(min(wanted, len(new) - len(empty))):  # one for each that has none yet
            chosen[_take(new, chosen, kinds, split, (first, *others[i + 1 :]))] = split
    chosen |= dict.fromkeys(new, first)
    if missing := [split for split in used if split not in chosen.values()]:
        how = ", delete --out to draw anew" if before else ""
        raise ValueError(
            f"{len(names)} recordings are too few to draw {', '.join(used)} from ({spec}), which "
            f"need one each, and none is left for {', '.join(missing)}: record more, cut a long "
            f"recording into several{how}, or say with --splits=FILE which one is for what"
        )
    return {name: chosen[name] for name in names}


def _take(
    new: list[str],
    chosen: Mapping[str, str],
    kinds: Mapping[str, Kind],
    split: str,
    later: Sequence[str],
) -> str:
    """Takes out of `new` the recording that `split` gets next; `later` choose after it."""
    left = collections.Counter(one for name in new for one in enumerate(kinds.get(name, ())))
    have = collections.defaultdict[tuple, set[str]](set)
    for name, of in chosen.items():
        for one in enumerate(kinds.get(name, ())):
            have[one].add(of)

    def rank(name: str) -> list[int]:
        """By incorrect installations, then by variants: who else needs it, who lacks it."""
        found = []
        for one in enumerate(kinds.get(name, ())):
            lacks = split not in have[one]
            needy = {*(later[:1] if lacks else later)} - have[one]
            elsewhere = have[one] - {later[0]}
            ranks = [len(needy) >= left[one], -lacks - (not elsewhere)]
            found += ranks if one[1] else [0, 0]
        return found

    return new.pop(new.index(min(new, key=rank)))


def of_folder(out: str | Path) -> dict[str, str]:
    """The splits of the recordings that a data folder has or is to have; ValueError if damaged."""
    path = Path(out, "settings.json")
    if not path.is_file():
        return {}
    settings = folder.load_settings(path, folder.Settings)
    return {name: split for split, names in settings.splits.items() for name in names}


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

    def add(line: csvfile.Line, row: list[str]) -> None:
        line.check_width(row, header)
        name, split = files.check_name(row[0].strip(), f"{path}: line {line}"), row[1].strip()
        if split not in SPLITS:
            raise line.error("split", f"{files.shorten(split)} is not one of {', '.join(SPLITS)}")
        if chosen.setdefault(name, split) != split:
            raise line.error("recording", f"{name} is in {chosen[name]} above")

    for_each(rows[1:], add)
    problems = []
    if without := [name for name in names if name not in chosen]:
        problems.append(f"{path}: has no row for recordings {', '.join(without)}")
    if without := [name for name in chosen if name not in set(names)]:
        problems.append(f"{path}: recordings without video and labels: {', '.join(without)}")
    raise_all(problems)
    return chosen
