"""Kills, damages and starves runs, and counts what goes wrong: ``python benchmarks/faults.py``.

Each attempt takes a copy of a tiny run, or of files that the project reads, does something to it,
and looks at what comes of that. A table by family tells how many attempts

* hung: went on after their time;
* wrote outside the folder of the run;
* used something damaged without a word, or failed without naming it;
* ended in a traceback or a crash;
* came to other results than an undisturbed run, once the fault was mended.

The attempts are kept in FOLDER/attempts.jsonl. The same command goes on where it was, and
``--attempts=100`` makes 100 of each family. The numbers of an attempt follow from --seed and its
index, so `--only=FAMILY --index=7` repeats one of them and prints what it said.
"""

import argparse
import collections
import json
import os
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDERS = ("benchmarks",)
sys.path[:0] = [str(ROOT), *(str(ROOT / f) for f in FOLDERS)]
os.environ["JAX_PLATFORMS"] = "cpu"
FASTER = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
os.environ.setdefault("XLA_FLAGS", FASTER)

VERDICTS = ("hang", "outside", "silent", "traceback", "different")


def attempt(family: str, seed: int, index: int, folder: Path) -> dict:
    """Makes one attempt in an empty folder.

    Returns:
        "family", "seed", "index", "what" was done, "wrong" (the `VERDICTS` that apply), "seconds",
        and the end of what the commands "said".
    """
    import fault_families

    rng = random.Random(f"{seed}/{family}/{index}")
    place = folder / "attempt" / "inside"
    shutil.rmtree(folder / "attempt", ignore_errors=True)
    place.mkdir(parents=True)
    (place.parent / "beside").mkdir()
    (place.parent / "beside" / "file").write_text("as it was")
    before = listing(place)
    start = time.monotonic()
    what, wrong, said = fault_families.FAMILIES[family](rng, place, folder / "base")
    wrong = set(wrong) | ({"outside"} if listing(place) != before else set())
    shutil.rmtree(folder / "attempt", ignore_errors=True)
    row = {"family": family, "seed": seed, "index": index, "what": what}
    row["wrong"] = [verdict for verdict in VERDICTS if verdict in wrong]
    row["seconds"] = round(time.monotonic() - start, 1)
    return row | {"said": said[-3000:]}


def listing(place: Path) -> list[tuple]:
    """All that is beside the folder of an attempt: names, sizes and times of change."""
    found = []
    for path in sorted(place.parent.rglob("*")):
        if path != place and place not in path.parents:
            status = path.lstat()
            found.append((str(path), status.st_size, status.st_mtime_ns))
    return found


def table(rows: list[dict]) -> str:
    """The attempts by family, in Markdown."""
    lines = ["| family | attempts | " + " | ".join(VERDICTS) + " |", "|---" * 7 + "|"]
    families = collections.defaultdict(list)
    for row in rows:
        families[row["family"]].append(row["wrong"])
    for family, wrong in (*families.items(), ("all", [row["wrong"] for row in rows])):
        counts = [sum(verdict in verdicts for verdicts in wrong) for verdict in VERDICTS]
        lines.append(f"| {family} | {len(wrong)} | " + " | ".join(map(str, counts)) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="of runs and attempts; kept")
    parser.add_argument("--attempts", type=int, default=100, help="of each family (%(default)s)")
    parser.add_argument("--only", help="families, joined by commas")
    parser.add_argument("--seed", type=int, default=0, help="(%(default)s)")
    parser.add_argument("--index", type=int, help="repeats this attempt alone")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begins none after")
    args = parser.parse_args()
    folder = args.folder or Path(tempfile.gettempdir()) / "stormpsr_faults"
    folder.mkdir(parents=True, exist_ok=True)
    cache = folder / "compiled"
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    import fault_families
    import fault_runs

    names = args.only.split(",") if args.only else list(fault_families.FAMILIES)
    if unknown := [name for name in names if name not in fault_families.FAMILIES]:
        parser.error(f"unknown family {unknown[0]}; known are {', '.join(fault_families.FAMILIES)}")
    fault_runs.prepare(folder / "base")
    if args.index is not None:
        for name in names:
            print(json.dumps(attempt(name, args.seed, args.index, folder), indent=1))
        return
    log = folder / "attempts.jsonl"
    rows = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    done = {(row["family"], row["seed"], row["index"]) for row in rows}
    start = time.monotonic()
    with log.open("a") as file:
        for index in range(args.attempts):
            for name in names:
                if (name, args.seed, index) in done or time.monotonic() - start > args.seconds:
                    continue
                rows.append(attempt(name, args.seed, index, folder))
                if not rows[-1]["wrong"]:
                    del rows[-1]["said"]
                file.write(json.dumps(rows[-1]) + "\n")
                file.flush()
                print(name, index, rows[-1]["what"], *rows[-1]["wrong"], sep=" | ", flush=True)
    order = list(fault_families.FAMILIES)
    print(table(sorted(rows, key=lambda row: order.index(row["family"]))))


if __name__ == "__main__":
    main()
