"""Kills, damages and starves runs, and counts what goes wrong: ``python -m tests.hostile``.

Each attempt takes a copy of a tiny run, or of files that the project reads, does something to it,
and looks at what comes of that. A table by family tells how many attempts

* hung: went on after their time;
* wrote outside the folder of the run, or opened what nobody named;
* used something damaged without a word, or failed without naming it;
* ended in a traceback or a crash;
* came to other results than an undisturbed run, once the fault was mended.

The attempts are kept in FOLDER/attempts.jsonl. The same command goes on where it was, and
``--attempts=100`` makes 100 of each family. The numbers of an attempt follow from --seed and its
index, so `--only=FAMILY --index=7` repeats one of them and prints what it said.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="of runs and attempts; kept")
    parser.add_argument("--attempts", type=int, default=100, help="of each family (%(default)s)")
    parser.add_argument("--only", help="families, joined by commas")
    parser.add_argument("--seed", type=int, default=0, help="(%(default)s)")
    parser.add_argument("--index", type=int, help="repeats this attempt alone")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begins none after")
    args = parser.parse_args()
    folder = args.folder or Path(tempfile.gettempdir()) / "stormpsr_hostile"
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["JAX_PLATFORMS"] = "cpu"
    faster = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    os.environ.setdefault("XLA_FLAGS", faster)
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(folder / "compiled"))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    # These import JAX, which reads the variables.
    from jax._src import xla_bridge  # nothing public tells what is asked here

    from tests.hostile import runs
    from tests.hostile.families import FAMILIES, attempt, table

    if xla_bridge.backends_are_initialized():
        parser.error("an import has started a device of JAX: forks of this process would hang")
    names = args.only.split(",") if args.only else list(FAMILIES)
    if unknown := [name for name in names if name not in FAMILIES]:
        parser.error(f"unknown family {unknown[0]}; known are {', '.join(FAMILIES)}")
    runs.prepare(folder / "base")
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
                row = attempt(name, args.seed, index, folder)
                if not row["wrong"]:
                    del row["said"]
                rows.append(row)
                file.write(json.dumps(row) + "\n")
                file.flush()
                print(name, index, row["what"], *row["wrong"], sep=" | ", flush=True)
    print(table(rows))


if __name__ == "__main__":
    main()
