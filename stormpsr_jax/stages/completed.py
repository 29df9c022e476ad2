"""The recordings that a stage has finished, so that it goes on after them when it is interrupted.

WORKDIR/<stage>/completed/<split>/<recording>.json    checksums of the recording's results
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from stormpsr_jax.base import files


def add(workdir: Path, stage: str, split: str, recording: str, results: Sequence[Path]) -> None:
    """Records that the results of a recording are complete; OSError names what cannot be read."""
    record = _record(workdir, stage, split, recording)
    record.parent.mkdir(parents=True, exist_ok=True)
    sums = {str(path.relative_to(workdir)): files.checksum(path) for path in results}
    files.write_json(record, sums)


def holds(workdir: Path, stage: str, split: str, recording: str, results: Sequence[Path]) -> bool:
    """Whether the results of a recording are complete and as they were; says so if they are not."""
    path = _record(workdir, stage, split, recording)
    if not path.exists():
        return False
    try:
        known = files.read_json(path)
    except ValueError as error:
        print(f"{error}; the recording is done again", flush=True)
        return False
    for result in results:
        name = str(result.relative_to(workdir))
        if not isinstance(known, Mapping) or name not in known:
            print(f"{path}: does not name {name}; the recording is done again", flush=True)
            return False
        if not result.is_file() or files.checksum(result) != known[name]:
            what = "damaged or changed" if result.is_file() else "removed"
            print(f"{name} was {what}; the recording is done again", flush=True)
            return False
    return True


def _record(workdir: Path, stage: str, split: str, recording: str) -> Path:
    return workdir / stage / "completed" / split / f"{recording}.json"
