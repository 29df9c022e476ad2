"""Figures of benchmarks: benchmarks/results/NAME.json, and NAME.md, which is made from it.

    python -m benchmarks.record

writes every NAME.md again. A benchmark with --record=NAME saves its tables by `save`.
"""

import datetime
import json
import platform
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stormpsr_jax.base import files
from stormpsr_jax.psr import analysis

RESULTS = Path(__file__).parent / "results"

Tables = Mapping[str, Sequence[Mapping[str, Any]]]  # rows by title; the first field names a row


def save(name: str, measured: Tables, notes: str = "") -> None:
    """Writes both files, of one run of the benchmark that calls it."""
    # Folders of this machine are left out.
    words = [re.sub(r"(?<![\w.])/\S*/", "", word) for word in sys.argv[1:]]
    changed = _git("status", "--porcelain", "--untracked-files=no")
    content = {
        "command": " ".join(["python -m", sys.modules["__main__"].__spec__.name, *words]),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "processor": processor(),
        "commit": _git("rev-parse", "--short", "HEAD") + (" and changes" if changed else ""),
        "notes": notes,
        "tables": measured,
    }
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
    text = re.sub(r"\n {4}|\n {3}(?=\})", " ", text)  # a line a row
    files.write_text(RESULTS / f"{name}.json", f"{text}\n")
    files.write_text(RESULTS / f"{name}.md", markdown(name, content))
    print(RESULTS / f"{name}.md")


def processor() -> str:
    """What the system calls it."""
    path = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.*)", path.read_text() if path.exists() else "")
    return found[1] if found else platform.processor() or "unknown processor"


def _git(*words: str) -> str:
    command = ["git", "-C", str(RESULTS.parent), *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def markdown(name: str, content: Mapping[str, Any]) -> str:
    """NAME.md."""
    lines = [f"# {name}", "", f"Made from {name}.json by `python -m benchmarks.record`.", ""]
    keys = ("command", "date", "processor", "commit", "notes")
    lines += [f"* {key}: {content[key]}" for key in keys if content[key]]
    for title, rows in content["tables"].items():
        lines += ["", f"## {title}", "", analysis.format_rows(rows, "markdown")]
    return "\n".join(lines) + "\n"


def main() -> None:
    for path in RESULTS.glob("*.json"):
        files.write_text(path.with_suffix(".md"), markdown(path.stem, files.read_json(path)))


if __name__ == "__main__":
    main()
