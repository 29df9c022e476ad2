"""Finds what is wrong with a folder of clip shards; `data_prep.check` is the command."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.checking.checked import Checked, Findings
from data_prep.checking.recording_checks import Expected, check_labels, check_shard
from stormpsr_jax.base import files
from stormpsr_jax.base.progress import Bar
from stormpsr_jax.data import folder as data_folder
from stormpsr_jax.data.clips import read_labels, shard_name
from stormpsr_jax.psr.procedure import load_procedure

FEATURES = {"recording", "first_frame", "jpeg", "state", "box", "asd_class", "visible"}
RERUN = "run the same data_prep command again"
SUMS = "SHA256SUMS"
# Recordings are taken for the same when they share this much of what was compared.
SAME_SHARE = 0.5


def check_folder(directory: str | Path, *, everything: bool = False) -> Findings:
    """Checks all labels, and a sample of the pictures or, with `everything`, each one.

    Returns:
        `Checked`, but for a folder whose procedure or settings cannot be read.

    Raises:
        ValueError: there are no clip shards at `directory`.
    """
    folder = Path(directory)
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder; give the --out of a data_prep command")
    if (folder / "embeddings.json").exists():
        raise ValueError(f"{folder}: holds embeddings, this command checks folders of pictures")
    needed = ("procedure.json", "settings.json")
    if not any((folder / file).exists() for file in needed) and not [*folder.glob("clips-*")]:
        raise ValueError(f"{folder}: holds no clip shards; give the --out of a data_prep command")
    findings = Findings(folder)
    if (head := _read_head(findings)) is None:
        return findings
    checked, names = head
    _check_names(checked, names)
    _check_files(checked, names)
    num_records, hashes = _check_recordings(checked, names, everything)
    _check_dataset_info(checked, num_records)
    _compare_recordings(checked, hashes)
    return checked


def _read_json(checked: Findings, file: str) -> Any:
    """Returns the content of a JSON file; None, with the problem noted, if it has none."""
    path = checked.directory / file
    if not path.exists():
        checked.problems.append(f"{path}: missing; {RERUN}")
        return None
    try:
        return files.read_json(path)
    except ValueError as error:
        checked.problems.append(f"{error}; delete it, then {RERUN}")
    return None


def _read_head(findings: Findings) -> tuple[Checked, dict[str, list[str]]] | None:
    """Reads procedure and settings: with them the recordings of each split; None without both."""
    path = findings.directory / "procedure.json"
    procedure = None
    try:
        procedure = load_procedure(path)
    except ValueError as error:
        findings.problems.append(
            f"{error}; delete it, then {RERUN}" if path.exists() else f"{path}: missing; {RERUN}"
        )
    path = findings.directory / "settings.json"
    if not path.exists():
        findings.problems.append(f"{path}: missing; {RERUN}")
        return None
    try:
        settings = data_folder.load_settings(path, data_folder.ClipSettings)
    except ValueError as error:
        findings.problems.append(f"{error}; delete all that is in the folder, then {RERUN}")
        return None
    if procedure is None:
        return None
    checked = Checked(
        findings.directory,
        findings.problems,
        procedure=procedure,
        fps=settings.fps,
        image_size=settings.image_size,
        clip_length=settings.clip_length,
    )
    return checked, settings.splits


def _check_names(checked: Checked, names: dict[str, list[str]]) -> None:
    """No recording twice; each belongs to one variant of the procedure."""
    seen: dict[str, str] = {}
    for split, name in ((split, name) for split, of_one in names.items() for name in of_one):
        if name in seen:
            checked.problems.append(
                f"{name}: recording is in split {seen[name]!r} and in split {split!r}; keep it in "
                "one of them and prepare the data again"
            )
        seen[name] = split
        if split == "cad":  # single states, which no decoder ever sees
            continue
        try:
            checked.procedure.variant_for(name)
        except ValueError as error:
            checked.problems.append(f"{split}/{name}: {error}")


def _check_files(checked: Checked, names: dict[str, list[str]]) -> None:
    """Files that nothing names, and traces of an unfinished preparation."""
    folder = checked.directory
    for split, of_one in names.items():
        for index, name in enumerate(sorted(of_one)):
            path = folder / shard_name(split, index, len(of_one))
            checked.shards[split, name] = path
            if not path.is_file():
                checked.problems.append(
                    f"{path}: the shard of {split}/{name} is missing; {RERUN}, which makes only "
                    "this recording"
                )
    named = {path.name for path in checked.shards.values()}
    strays = [path for path in sorted(folder.glob("clips-*")) if path.name not in named]
    for path in sorted(folder.glob("labels/*/*")):
        if path.is_dir() and path.name not in names.get(path.parent.name, ()):
            strays.append(path)
    for path in strays:
        checked.warnings.append(f"{path}: belongs to no recording of settings.json; delete it")
    if leftovers := list((folder / "unfinished").glob("*")):
        checked.warnings.append(
            f"{folder / 'unfinished'}: {len(leftovers)} unfinished files: another process is "
            f"writing, or was killed; {RERUN}, which removes them"
        )


def _read_split(checked: Checked, split: str, names: Sequence[str]) -> dict[str, Expected]:
    """Reads `labels/<split>.npz`, what is expected of each recording of a split."""
    path = checked.directory / "labels" / f"{split}.npz"
    remedy = f"delete dataset_info.json, then {RERUN}"
    try:
        recordings, num_records = read_labels(path, checked.procedure.num_components, remedy)
    except ValueError as error:
        checked.problems.append(str(error))
        return {}
    there = list(recordings)
    if there != sorted(names):
        checked.problems.append(
            f"{path}: its recordings ({_short(there)}) are not those of settings.json "
            f"({_short(sorted(names))}); delete it and {remedy}"
        )
    return {name: Expected(recordings[name], num_records[name]) for name in there if name in names}


def _check_recordings(
    checked: Checked, names: dict[str, list[str]], everything: bool
) -> tuple[dict[tuple[str, str], int], dict[tuple[str, str], np.ndarray]]:
    """Checks every recording; returns its number of records and hashes of the pictures read."""
    num_records, hashes = {}, {}
    expected = {split: _read_split(checked, split, of_one) for split, of_one in names.items()}
    total = sum(e.recording.num_frames for split in expected.values() for e in split.values())
    with Bar(
        desc="reading every frame" if everything else "reading labels and a sample",
        total=total,
        unit="frame",
        smoothing=0,  # the mean rate, whose estimate of the time left is the steadiest
    ) as bar:
        for split, of_one in sorted(names.items(), key=lambda item: _order(item[0])):
            checked.splits[split], checked.steps[split] = {}, {}
            for name in sorted(of_one):
                labels = checked.directory / "labels" / split / name
                path = checked.shards[split, name]
                if not path.is_file() and not labels.exists():
                    continue  # it was never made
                found = check_labels(labels, f"{split}/{name}", expected[split].get(name), checked)
                if found is None:
                    continue
                if found.sound:
                    checked.splits[split][name] = found.recording
                num_records[split, name] = found.num_records
                if found.steps is not None:
                    checked.steps[split][name] = found.steps
                if path.is_file():
                    hashes[split, name] = check_shard(
                        path, f"{split}/{name}", found, checked, everything, bar
                    )
    checked.splits = {split: of_one for split, of_one in checked.splits.items() if of_one}
    return num_records, hashes


def _check_dataset_info(checked: Checked, num_records: dict[tuple[str, str], int]) -> None:
    """dataset_info.json and features.json, which tfds reads, agree with the shards."""
    path = checked.directory / "dataset_info.json"
    if (features := _read_json(checked, "features.json")) is not None:
        try:
            there = set(features["featuresDict"]["features"])
        except (KeyError, TypeError):
            there = set()
        if there != FEATURES:
            checked.problems.append(
                f"{checked.directory / 'features.json'}: names the features {_short(sorted(there))}"
                f"; delete it and dataset_info.json, then {RERUN}"
            )
    if not path.exists():
        checked.problems.append(
            f"{path}: missing, so the preparation was not finished; {RERUN}, finished recordings "
            "are kept"
        )
        return
    if (info := _read_json(checked, "dataset_info.json")) is None:
        return
    try:
        listed = {s["name"]: [int(n) for n in s["shardLengths"]] for s in info["splits"]}
    except (KeyError, TypeError, ValueError):
        listed = {}
    for split in dict.fromkeys([*listed, *(split for split, _ in checked.shards)]):
        shards = [key for key in checked.shards if key[0] == split]
        lengths = [num_records.get(key) for key in shards]
        if None not in lengths and listed.get(split) != lengths:
            checked.problems.append(
                f"{path}: records per shard of split {split!r} are {_short(listed.get(split))} "
                f"instead of {_short(lengths)}; delete it, then {RERUN}"
            )


def _compare_recordings(checked: Checked, hashes: dict[tuple[str, str], np.ndarray]) -> None:
    """Finds recordings with the same pictures."""
    keys = list(hashes)
    distinct = [np.unique(values) for values in hashes.values()]
    if not distinct:
        return
    values = np.concatenate(distinct)
    owners = np.repeat(np.arange(len(keys)), [len(d) for d in distinct])
    order = np.argsort(values, kind="stable")
    groups = np.split(owners[order], np.flatnonzero(np.diff(values[order])) + 1)
    shared: dict[tuple[int, int], int] = {}
    for group in groups:
        for pair in itertools.combinations(group.tolist(), 2):
            shared[pair] = shared.get(pair, 0) + 1
    for (i, j), count in sorted(shared.items()):
        compared = min(len(distinct[i]), len(distinct[j]))
        if count < SAME_SHARE * compared:
            continue
        (split, one), (other_split, other) = keys[i], keys[j]
        what = (
            f"{split}/{one} and {other_split}/{other}: {count} of {compared} compared pictures are "
            "the same"
        )
        if split == other_split:
            checked.warnings.append(f"{what}; if it is the same recording twice, remove one")
        else:
            checked.problems.append(
                f"{what}: a recording must be in one split only; remove one of the two and prepare "
                "the data again"
            )


def check_sums(checked: Findings, out: Path) -> None:
    """Compares a folder's files with its SHA256SUMS, or writes that into folder `out`.

    It is not written if there is a problem. ValueError if there is something else in its place.
    """
    folder = checked.directory
    path = folder / SUMS
    paths = [folder / f for f in ("procedure.json", "settings.json", "features.json")]
    # Which shards there should be is not known where the procedure or the settings are damaged.
    shards = checked.shards.values() or folder.glob("clips-*")
    paths += [folder / "dataset_info.json", *shards]
    paths += sorted(p for p in folder.glob("labels/**/*") if p.is_file())
    there = {str(p.relative_to(folder)): p for p in paths if p.is_file()}
    if not path.exists():
        if not checked.problems:
            sums = [f"{files.checksum(there[name])}  {name}\n" for name in sorted(there)]
            try:
                files.write_text(out / SUMS, "".join(sums))
            except OSError as error:
                checked.warnings.append(f"{out / SUMS}: cannot be written ({error.strerror})")
        return
    files.check_regular(path, "remove it")
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    listed = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    for name in sorted(there.keys() | listed.keys()):
        if name not in there:
            what = f"is missing, but {SUMS} lists it"
        elif name not in listed:
            what = f"is not in {SUMS}"
        elif files.checksum(there[name]) != listed[name]:
            what = f"differs from its SHA-256 in {SUMS}"
        else:
            continue
        checked.problems.append(
            f"{folder / name}: {what}; copy the folder again, or delete {SUMS} if the data was "
            "prepared anew since"
        )


def _order(split: str) -> tuple[int, str]:
    known = ("train", "val", "test")
    return known.index(split) if split in known else len(known), split


def _short(value: Any) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
