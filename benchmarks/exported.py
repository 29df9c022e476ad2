"""What an export changes: events, size, speed, memory, start and installation, in one table each.

    python -m benchmarks.exported [--workdir=WORKDIR] [--parts=events,table,install]
        [--pictures=200] [--recordings=N] [--threads=N]

* events: what each form finds on the demo video and, with --workdir, on the test split of that run
  (a work folder of `main` with its data), against the model itself;
* table: of the demo's model and of ViT-S/16 at 224 with random weights (`benchmarks.live`), each
  form in a process of its own: size of the folder, seconds of processor and of the clock until the
  first picture is recognised, time of a picture in `live` (p50, p99), memory;
* install: MiB that the packages of each purpose take (`[dependency-groups]` of pyproject.toml), of
  those that are installed here.

Targets: events of float32 the same; of int8 F1 and POS within .005, delay within .1 s, a picture of
ViT-S/16 at least twice as fast where the processor has VNNI; the demo's model in ONNX ready within
1.5 s, in 250 MiB, from at most 300 MiB of packages.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).parents[1]
FORMS = ("flax", "onnx", "int8", "stablehlo")
FIGURES = ("pos", "f1", "delay_s")
# In a process of its own, which imports no more than the form needs.
CHILD = """
import json, resource, sys, time
start, used = time.perf_counter(), time.process_time()
import numpy as np
from stormpsr_jax import load_model
model = load_model(sys.argv[1])
live = model.live(next(iter(model.procedure.variants)))
shown = np.random.default_rng(0).integers(0, 256, (16, 12, 16, 3), np.uint8)
shown = shown.repeat(40, 1).repeat(40, 2)
live.update(shown[0], 0.0)
ready, used = time.perf_counter() - start, time.process_time() - used
times, before = [], time.process_time()
for i in range(1, int(sys.argv[2])):
    begin = time.perf_counter()
    live.update(shown[i % 16], i / model.fps)
    times.append(1000 * (time.perf_counter() - begin))
cpu = 1000 * (time.process_time() - before) / len(times)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({"ready": ready, "used": used, "times": times, "cpu": cpu, "peak": peak}))
"""


def exports(model: str | Path, place: Path) -> dict[str, Path]:
    """The folders of a model's forms, made in `place`; the first is the model itself."""
    from stormpsr_jax.export.exporting import export_model
    from stormpsr_jax.model.folder import model_folder

    found = {"flax": model_folder(model)}
    for form in FORMS[1:]:
        found[form] = place / form
        program = "onnx" if form == "int8" else form
        export_model(found["flax"], found[form], program, int8=form == "int8")
    return found


# --- Events ---------------------------------------------------------------------------------------


def recordings(model, workdir: Path | None, count: int | None) -> Iterator[tuple]:
    """(name, prepared pictures, truth of it) of the demo, or of a run's test split."""
    from stormpsr_jax import demo
    from stormpsr_jax.media import sources
    from stormpsr_jax.media.pictures import read_upright

    if workdir is None:
        opened = sources.open_source(demo.VIDEO).open(model.fps)
        rows = [model.prepare(picture) for picture in read_upright(opened)]
        yield "demo", rows, demo.LABELS / "demo.csv"
        return
    from stormpsr_jax.data.clips import ClipSource

    folder = Path(model.origin["config"]["data.dir"] or workdir / "data")
    source = ClipSource(folder, "test", model.procedure)
    for name in sorted(source.recordings)[:count]:
        rows = [model.prepare(one) for _, images in source.chunks(name, 64) for one in images]
        yield name, rows, folder / "labels" / "test" / f"{name}.csv"


def events(folders: dict[str, Path], workdir: Path | None, count: int | None) -> None:
    """Prints what each form finds, in the default stream."""
    from stormpsr_jax.model.model import load_model
    from stormpsr_jax.model.recogniser import decode, stack
    from stormpsr_jax.psr.files import label_files
    from stormpsr_jax.psr.scoring import metrics

    models = {form: load_model(folder) for form, folder in folders.items()}
    flax = models["flax"]
    scores = {form: [] for form in models}
    differ = {form: [0, 0, 0] for form in models}  # recordings, recordings with others, frames
    for name, rows, truth in recordings(flax, workdir, count):
        variant = flax.procedure.variant_for(name, None)
        said = label_files.read(truth, flax.procedure, variant, fps=flax.fps)
        found = {}
        for form, model in models.items():
            recogniser, decoder = model.recogniser(), model.decoder(variant=variant.name)
            found[form] = []
            for start in range(0, len(rows), model.batch):
                part = rows[start : start + model.batch]
                numbers = range(start, start + len(part))
                found[form] += decode(decoder, numbers, recogniser(stack(part)))
            scores[form].append(
                metrics.score_recording(said.steps, metrics.scored(found[form]), flax.fps)
            )
            ours, theirs = (
                [(e.step_id, e.frame) for e in sorted(found[f])] for f in ("flax", form)
            )
            differ[form][0] += 1
            differ[form][1] += ours != theirs
            if [step for step, _ in ours] == [step for step, _ in theirs]:
                shifts = [abs(a[1] - b[1]) for a, b in zip(ours, theirs, strict=True)]
                differ[form][2] = max(differ[form][2], *shifts, 0)
    print("| form | recordings | with other events | frames apart | POS | F1 | delay s | met |")
    print("|---|---|---|---|---|---|---|---|")
    mean = {
        form: [statistics.fmean(s[key] for s in of if s[key] is not None) for key in FIGURES]
        for form, of in scores.items()
    }
    for form in models:
        limits = (0.005, 0.005, 0.1) if form == "int8" else (0, 0, 0)
        apart = [abs(a - b) for a, b in zip(mean[form], mean["flax"], strict=True)]
        met = all(a <= limit for a, limit in zip(apart, limits, strict=True))
        met = met and (form == "int8" or not differ[form][1])
        figures = " | ".join(f"{value:.4f}" for value in mean[form])
        cells = " | ".join(map(str, differ[form]))
        print(f"| {form} | {cells} | {figures} | {'yes' if met else 'NO'} |", flush=True)


# --- Size, speed, memory, start -------------------------------------------------------------------


def table(name: str, folders: dict[str, Path], pictures: int, threads: int) -> None:
    """Prints a row for each form of a model."""
    for form, folder in folders.items():
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)} if threads else None
        words = [sys.executable, "-c", CHILD, str(folder), str(pictures)]
        out = subprocess.run(
            words, cwd=ROOT, env=environment, capture_output=True, text=True, check=True
        ).stdout
        said = json.loads(out.splitlines()[-1])
        times = sorted(said["times"])
        p50, p99 = times[len(times) // 2], times[min(len(times) - 1, len(times) * 99 // 100)]
        size = sum(path.stat().st_size for path in folder.iterdir()) / 2**20
        print(
            f"| {name} | {form} | {size:.1f} | {said['used']:.2f} | {said['ready']:.2f} | "
            f"{p50:.1f} | {p99:.1f} | {said['cpu']:.1f} | {said['peak']:.0f} |",
            flush=True,
        )


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

    found, waiting = set(), list(requirements)
    while waiting:
        one = Requirement(waiting.pop())
        name = re.sub(r"[-_.]+", "-", one.name).lower()
        if name in found or (one.marker and not one.marker.evaluate({"extra": ""})):
            continue
        found.add(name)
        waiting += metadata.requires(name) or []
    return found


def install() -> None:
    """Prints the size of each purpose's packages."""
    print("| purpose | packages | MiB |\n|---|---|---|")
    for name, requirements in groups().items():
        packages = closure(requirements)
        total = 0
        for package in packages:
            for file in metadata.files(package) or []:
                path = Path(file.locate())
                total += path.stat().st_size if path.is_file() else 0
        print(f"| {name} | {len(packages)} | {total / 2**20:.0f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add, words = parser.add_argument, lambda text: text.split(",")
    add("--workdir", type=Path, help="of a finished run, for its test split")
    add("--model", default="demo", help="what the events and the first table are of")
    add("--parts", type=words, default=["events", "table", "install"])
    add("--pictures", type=int, default=200, help="of each form, for the table")
    add("--recordings", type=int, help="of the test split, the first ones; otherwise all")
    add("--threads", type=int, default=0, help="of the table's processes; otherwise as they choose")
    args = parser.parse_args()
    start = time.monotonic()
    flags = Path("/proc/cpuinfo").read_text() if os.path.exists("/proc/cpuinfo") else ""
    kinds = [word for word in ("avx512_vnni", "avx_vnni", "amx_int8") if f" {word}" in flags]
    print(f"{os.cpu_count()} cores, int8 instructions: {', '.join(kinds) or 'none'}\n")
    with tempfile.TemporaryDirectory() as place:
        if "events" in args.parts:
            model = args.workdir or args.model
            events(exports(model, Path(place, "events")), args.workdir, args.recordings)
            print()
        if "table" in args.parts:
            print(
                "| model | form | MiB | start, CPU s | start, s | p50 ms | p99 ms | CPU ms | MiB |"
            )
            print("|---|---|---|---|---|---|---|---|---|")
            table(
                args.model, exports(args.model, Path(place, "small")), args.pictures, args.threads
            )
            large = Path(place, "vit")
            untrained_vit(large)
            folders = exports(large, Path(place, "large"))
            table("ViT-S/16, 224", folders, max(20, args.pictures // 10), args.threads)
            print()
        if "install" in args.parts:
            install()
    print(f"\n{time.monotonic() - start:.0f} s")


def untrained_vit(folder: Path) -> None:
    """Writes the networks of config meccano, the paper's sizes, with random weights."""
    from benchmarks.live import untrained
    from stormpsr_jax.configs import meccano

    untrained(meccano.get_config(), 224, folder)


if __name__ == "__main__":
    main()
