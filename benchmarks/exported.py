"""What an export changes: size, speed, memory, start and installation.

    python -m benchmarks.exported --out=runs/exported [--model=demo] [--no_vit]
        [--parts times install]

Forms are the model itself (JAX), ONNX, and ONNX in int8.

* times: of the demo's model and of ViT-S/16 at 224 with random weights in float32
  (`benchmarks.live`; the temporal stream, and all), each form in a process of its own, which take
  turns: size of the folder, seconds until `recognise` has recognised a picture, time of a picture
  in `live` (p50, p99), memory; and in processes that have one core the processor's time of a
  picture, and how many times that of ONNX is of it;
* install: MiB that the packages of each purpose take (`[dependency-groups]` of pyproject.toml), of
  those that are installed here.

What is measured is written into OUT/results.json at once, and the exports beside it: the same
command goes on where it was ended, and prints the tables of all of it. An empty folder begins anew.

Targets: in int8 a picture at least twice as fast as in ONNX where the processor has VNNI; the
demo's model in ONNX ready within 1.5 s, in 250 MiB, from at most 300 MiB of packages.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import record
from stormpsr_jax.base import files
from stormpsr_jax.psr import analysis

ROOT = Path(__file__).parents[1]
FORMS = ("jax", "onnx", "int8")
PARTS = ("times", "install")
ROUNDS, SECONDS, LEAST = 6, 1.0, 2  # in which forms take turns; at least so long, and so many
STARTS = 2  # of each form, of which the median is reported
# In a process of its own, which imports no more than the form needs: says when it is ready, then
# for each line with a number of seconds how long each picture took and the processor's time.
CHILD = """
import json, os, re, sys, time
if int(sys.argv[3]):
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: int(sys.argv[3])])
import numpy as np
from stormpsr_jax import load_model
model = load_model(sys.argv[1])
stream = sys.argv[2] or None
live = model.live(next(iter(model.procedure.variants)), stream)
shown = np.random.default_rng(0).integers(0, 256, (16, 12, 16, 3), np.uint8)
shown = shown.repeat(40, 1).repeat(40, 2)
live.update(shown[0], 0.0)
number = 0
print("{}", flush=True)
for line in sys.stdin:
    seconds, least = map(float, line.split())
    times, start, before = [], time.perf_counter(), time.process_time()
    while len(times) < least or time.perf_counter() - start < seconds:
        number += 1
        begin = time.perf_counter()
        live.update(shown[number % 16], number / model.fps)
        times.append(1000 * (time.perf_counter() - begin))
    used = 1000 * (time.process_time() - before) / len(times)
    # Of this process alone; what resource has begins with that of the one that started it.
    peak = int(re.search("VmHWM:\\s*(\\d+)", open("/proc/self/status").read())[1]) / 1024
    print(json.dumps({"times": times, "used": used, "peak": peak}), flush=True)
"""


def exports(model: str | Path, place: Path) -> dict[str, Path]:
    """The folders of a model's forms, of which those that are not in `place` yet are made."""
    from stormpsr_jax.serving.exporting import export_model
    from stormpsr_jax.serving.folder import model_folder

    folders = {FORMS[0]: model_folder(model)}
    for form in FORMS[1:]:
        folders[form] = place / form
        if not folders[form].exists():
            export_model(folders[FORMS[0]], folders[form], int8=form == "int8")
    return folders


def untrained_vit(folder: Path) -> None:
    """Writes the networks of config meccano, the paper's sizes, with random weights."""
    if folder.exists():
        return
    from benchmarks.live import untrained
    from stormpsr_jax.configs import meccano

    config = meccano.get_config()
    config.dtype = "float32"  # which all forms compute in
    untrained(config, 224, folder)


# --- Size, speed, memory, start -------------------------------------------------------------------


def ready(folder: Path) -> tuple[float, float]:
    """Seconds of the clock and of the processor until `recognise` has recognised a picture."""
    from stormpsr_jax import demo

    variant = next(iter(files.read_json(folder / "model.json")["procedure"]["variants"]))
    words = [f"--model={folder}", str(demo.VIDEO), "--realtime", f"--variant={variant}"]
    start = time.perf_counter()
    command = [sys.executable, "-m", "stormpsr_jax.recognise", *words]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        if not process.stdout.readline():
            raise SystemExit(f"error: recognise: {process.stderr.read()}")
        seconds = time.perf_counter() - start
        # Its own time and that of processes which it has waited for.
        ticks = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[11:15]
        process.kill()
    return seconds, sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")


class Child:
    """A process that recognises pictures by one form."""

    def __init__(self, folder: Path, stream: str, cores: int):
        """Starts it; returns when it has recognised one."""
        self._process = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(folder), stream, str(cores)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._said()

    def _said(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"error: {self._process.args[-3]} ended with {self._process.wait()}")
        return json.loads(line)

    def turn(self) -> dict[str, Any]:
        """The times of pictures of a turn."""
        assert self._process.stdin is not None
        print(SECONDS, LEAST, file=self._process.stdin, flush=True)
        return self._said()

    def __enter__(self) -> "Child":
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.communicate()


def times(folders: Mapping[str, Path], stream: str) -> dict[str, Any]:
    """By form: what a row of the table is made of."""
    measured: dict[str, Any] = {form: {"ready": [], "used": [], "times": []} for form in folders}
    for _ in range(STARTS):
        for form, folder in folders.items():
            seconds, used = ready(folder)
            measured[form]["ready"].append(seconds)
            measured[form]["used"].append(used)
    for cores in (0, 1):
        with ExitStack() as stack:
            children = {
                form: stack.enter_context(Child(folder, stream, cores))
                for form, folder in folders.items()
            }
            for _ in range(ROUNDS):
                for form, child in children.items():
                    answer = child.turn()
                    if cores:
                        measured[form].setdefault("cpu", []).append(answer["used"])
                    else:
                        measured[form]["times"] += answer["times"]
                        measured[form]["peak"] = answer["peak"]
    for form, folder in folders.items():
        measured[form]["size"] = sum(path.stat().st_size for path in folder.iterdir()) / 2**20
    return measured


def times_table(done: Mapping[str, Any]) -> str:
    """A table of what `times` has found of each model."""
    rows = []
    for name, forms in done.items():
        for form, of in forms.items():
            p50, p99 = np.percentile(of["times"], (50, 99))
            rounds = zip(forms["onnx"]["cpu"], of["cpu"], strict=True)
            row = {"model": f"{name}, {form}", "folder MiB": of["size"]}
            row |= {"ready s": statistics.median(of["ready"])}
            row |= {"of it CPU s": statistics.median(of["used"]), "p50 ms": p50, "p99 ms": p99}
            row |= {"one core: CPU ms": statistics.median(of["cpu"])}
            row |= {"ONNX / it": statistics.median(ours / theirs for ours, theirs in rounds)}
            rows.append(row | {"memory MiB": of["peak"]})
    return analysis.format_rows(rows, "markdown")


# --- Installation ---------------------------------------------------------------------------------


def groups() -> dict[str, list[str]]:
    """The packages of each purpose, by the groups of pyproject.toml."""
    data = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    tables = data["dependency-groups"]

    def whole(name: str) -> list[str]:
        found = []
        for entry in tables[name]:
            found += whole(entry["include-group"]) if isinstance(entry, dict) else [entry]
        return found

    return {name: whole(name) for name in tables} | {"training": data["project"]["dependencies"]}


def closure(requirements: list[str]) -> set[str]:
    """These packages and what they ask for, without extras, as installed here."""
    from packaging.requirements import Requirement

    packages, waiting = set(), list(requirements)
    while waiting:
        one = Requirement(waiting.pop())
        name = re.sub(r"[-_.]+", "-", one.name).lower()
        if name in packages or (one.marker and not one.marker.evaluate({"extra": ""})):
            continue
        packages.add(name)
        waiting += metadata.requires(name) or []
    return packages


def installed() -> Iterator[tuple[str, int, float]]:
    """(purpose, number of packages, MiB of their files)."""
    for name, requirements in groups().items():
        packages = closure(requirements)
        total = 0
        for package in packages:
            for file in metadata.files(package) or []:
                path = Path(file.locate())
                total += path.stat().st_size if path.is_file() else 0
        yield name, len(packages), total / 2**20


def machine() -> str:
    """The processor, and whether it is idle."""
    path = Path("/proc/cpuinfo")
    text = path.read_text() if path.exists() else ""
    kinds = [word for word in ("avx512_vnni", "avx_vnni", "amx_int8") if f" {word}" in text]
    return (
        f"{record.processor()}, {os.cpu_count()} cores, int8 instructions: "
        f"{', '.join(kinds) or 'none'}, load {os.getloadavg()[0]:.1f} at the start"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--out", type=Path, required=True, help="folder of the results and the exports")
    add("--model", default="demo", help="what the first rows of the times are of")
    add("--no_vit", action="store_true", help="leave out ViT-S/16")
    add("--parts", nargs="+", choices=PARTS, default=PARTS, help="what is measured")
    args = parser.parse_args()
    start = time.monotonic()
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / "results.json"
    results = files.read_json(path) if path.exists() else {"machine": machine()}
    print(f"{results['machine']}\n")
    if "times" in args.parts:
        done = results.setdefault("times", {})
        vit = args.out / "vit"
        for name, model, stream in (
            (args.model, args.model, ""),
            ("ViT-S/16, temporal", vit, "temporal"),
            ("ViT-S/16, all", vit, ""),
        ):
            if model == vit:
                if args.no_vit:
                    continue
                untrained_vit(vit)
            if name not in done:
                place = args.out / f"{Path(model).name}_forms"
                done[name] = times(exports(model, place), stream)
                files.write_json(path, results)
            print(times_table({name: done[name]}), flush=True)
    if "install" in args.parts:
        results["install"] = list(installed())
        files.write_json(path, results)
        names = ("purpose", "packages", "MiB")
        rows = [dict(zip(names, row, strict=True)) for row in results["install"]]
        print("", analysis.format_rows(rows, "markdown"), sep="\n")
    print(f"\n{time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    main()
