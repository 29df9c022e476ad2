"""The families of attempts, one attempt of a family, and the table of many.

A family is a function (rng, place, base) -> (what was done, the verdicts that apply, what was
said). It makes one attempt in the empty folder `place`; `base` is the folder of `runs.prepare`.
"""

import collections
import functools
import random
import shutil
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.hostile import checkpoints, configs, damaged, labels, media, recognition, stopped

VERDICTS = ("hang", "outside", "silent", "traceback", "different")
# Forks that take less than a second or two each.
QUICK = {
    "damaged model": damaged.damaged_model,
    "damaged export": damaged.damaged_export,
    "damaged input": damaged.damaged_input,
    "damaged weights": damaged.damaged_weights,
    "crafted data": damaged.crafted_data,
    "damaged scores": recognition.damaged_scores,
    "damaged fusion": recognition.damaged_fusion,
    "damaged state": recognition.damaged_state,
    "damaged labels": labels.damaged_labels,
    "checkpoints of others": checkpoints.damaged_checkpoint,
    "hostile media": media.hostile_media,
    "configs": configs.configs,
}
SLOW = {
    "kill": functools.partial(stopped.interrupted, signal.SIGKILL, (0, -signal.SIGKILL)),
    # One that comes before the command handles it ends the process as any other.
    "terminate": functools.partial(stopped.interrupted, signal.SIGTERM, (0, 75, -signal.SIGTERM)),
    "interrupt": functools.partial(stopped.interrupted, signal.SIGINT, (0, 130, -signal.SIGINT)),
    "full disk": stopped.full_disk,
    "damaged run": damaged.damaged_run,
    "damaged data": damaged.damaged_data,
    "environment": stopped.environment,
    "processes": stopped.processes,
}
FAMILIES = SLOW | QUICK


def attempt(family: str, seed: int, index: int, folder: Path) -> dict[str, Any]:
    """Makes one attempt in an empty folder.

    Returns:
        "family", "seed", "index", "what" was done, "wrong" (the `VERDICTS` that apply), "seconds",
        and the end of what the commands "said".
    """
    rng = random.Random(f"{seed}/{family}/{index}")
    place = folder / "attempt" / "inside"
    shutil.rmtree(folder / "attempt", ignore_errors=True)
    place.mkdir(parents=True)
    (place.parent / "beside").mkdir()
    (place.parent / "beside" / "file").write_text("as it was")
    before = listing(place)
    start = time.monotonic()
    what, wrong, said = FAMILIES[family](rng, place, folder / "base")
    wrong = wrong | ({"outside"} if listing(place) != before else set())
    shutil.rmtree(folder / "attempt", ignore_errors=True)
    row = {"family": family, "seed": seed, "index": index, "what": what}
    row["wrong"] = [verdict for verdict in VERDICTS if verdict in wrong]
    return row | {"seconds": round(time.monotonic() - start, 1), "said": said[-3000:]}


def listing(place: Path) -> list[tuple]:
    """All that is beside the folder of an attempt: names, sizes and times of change."""
    found = []
    for path in sorted(place.parent.rglob("*")):
        if path != place and place not in path.parents:
            status = path.lstat()
            found.append((str(path), status.st_size, status.st_mtime_ns))
    return found


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The attempts by family, in Markdown."""
    lines = ["| family | attempts | " + " | ".join(VERDICTS) + " |", "|---" * 7 + "|"]
    families = collections.defaultdict(list)
    for row in sorted(rows, key=lambda row: list(FAMILIES).index(row["family"])):
        families[row["family"]].append(row["wrong"])
    families["all"] = [row["wrong"] for row in rows]
    for family, wrong in families.items():
        counts = [sum(verdict in verdicts for verdicts in wrong) for verdict in VERDICTS]
        lines.append(f"| {family} | {len(wrong)} | " + " | ".join(map(str, counts)) + " |")
    return "\n".join(lines)
