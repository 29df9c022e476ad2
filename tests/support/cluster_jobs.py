"""What the nodes of the clusters of tests do; they import it."""

import functools
import os
from pathlib import Path

from tests.support import shards_data


def make(
    split: str,
    name: str,
    log: Path,
    sleep: float = 0.0,
    fail: str = "",
    endless: str = "",
):
    """A toy recording, slowly; the log gets a line "NAME PROCESS" when it is begun.

    The one named `endless` takes hours.
    """
    if name == endless:
        sleep = 3600
    with log.open("a") as file:
        file.write(f"{name} {os.getpid()}\n")
    data = shards_data.make(split, name, fail=fail)
    data.jpegs = shards_data.slowly(data.jpegs, sleep)
    return data


def build(out: Path, address: str, log: Path, **options) -> None:
    make_one = functools.partial(make, log=log, **options)
    shards_data.build(out, make=make_one, workers=address)


def begun(log: Path) -> list[tuple[str, int]]:
    lines = log.read_text().splitlines() if log.exists() else []
    return [(name, int(process)) for name, process in map(str.split, lines)]


def parent(process: int) -> int:
    """Of a process; 0 if it is gone."""
    try:
        return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0
