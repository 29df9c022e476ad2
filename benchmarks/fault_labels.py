"""Label files and boxes, in folders and zip files, that `data_prep` reads, for `faults.py`."""

import json
import random
import resource
import shutil
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import fuzz_evaluate
from fault_files import change_json, damage
from fault_pictures import WAYS_OF_ZIPS, pack, spoil_zip
from fault_processes import call, limited, made_once
from fault_runs import Found, verdicts

from data_prep import industreal, meccano, own
from tests.support import industreal_data, meccano_data, own_data

MEMORY = 2**33
# The flags of each command, by the folder that they name.
COMMANDS = {
    "own": (own, {"videos": "videos", "labels": "labels", "boxes": "boxes", "splits": "splits.csv",
                  "procedure": "procedure.json"}),
    "meccano": (meccano, {"frames": "frames", "labels": "psr", "asd_labels": "asd"}),
    "industreal": (industreal, {"data": "recordings"}),
}  # fmt: skip


def prepare_labels(base: Path) -> Path:
    """Makes a small data set for each command, once; returns their folder."""
    return made_once(base / "labels", _write_base)


def _write_base(folder: Path) -> None:
    meccano_data.make_data(folder / "meccano", dict.fromkeys(meccano_data.FRAMES, 9))
    industreal_data.make_data(folder / "industreal")
    data = own_data.make_data(folder / "own", ("bench1", "bench2", "bench3", "bench4"))
    (data / "procedure.json").write_text(json.dumps(own_data.PROCEDURE.to_json()))
    splits = zip(("bench1", "bench2", "bench3", "bench4"), ("train", "train", "val", "test"),
                 strict=True)  # fmt: skip
    rows = [f"{name},{split}\n" for name, split in splits]
    (data / "splits.csv").write_text("".join(["recording,split\n", *rows]))
    (data / "labels" / "bench4.csv").unlink()
    (data / "labels" / "bench4").mkdir()
    files = {
        "PSR_labels.csv": "000005.jpg,0,seal\n",
        "PSR_labels_raw.csv": "000000.jpg,0,0,0\n000005.jpg,1,0,0\n",
    }
    for name, text in files.items():
        (data / "labels" / "bench4" / name).write_text(text)
    for name in ("bench1", "bench2"):
        (data / "boxes" / name).mkdir(parents=True)
        for frame in (4, 7):
            (data / "boxes" / name / f"{frame:06d}.txt").write_text("0 0.5 0.5 0.25 0.25\n")
        (data / "boxes" / name / "classes.txt").write_text("pump\n")
    (data / "boxes" / "bench3.json").write_text(json.dumps(industreal_data.coco("bench3")))


def damaged_labels(rng: random.Random, place: Path, base: Path) -> Found:
    """One label file, or the zip file that they are in."""
    source = rng.choice(list(COMMANDS))
    module, flags = COMMANDS[source]
    data = place / "data"
    shutil.copytree(prepare_labels(base) / source, data)
    paths = [p for p in sorted(data.rglob("*")) if p.suffix in (".csv", ".json", ".txt")]
    kind = rng.choice(sorted({(p.suffix, p.parent == data, len(p.stem) == 6) for p in paths}))
    path = rng.choice([p for p in paths if (p.suffix, p.parent == data, len(p.stem) == 6) == kind])
    name = path.relative_to(data)
    if path.suffix == ".json" and rng.random() < 0.6:
        way = change_json(rng, path)
    elif rng.random() < 0.6:
        way = fuzz_evaluate.break_file(path, rng)
    else:
        way = damage(rng, path, place.parent / "beside" / "file")
    # Whatever of the path an error may name.
    names = {name.name, name.stem, name.parent.name} - {""}
    top = data / name.parts[0]
    if rng.random() < 0.3 and top.is_dir() and name.parts[0] != "boxes":
        archive = top.with_suffix(".zip")
        pack(rng, top, archive)
        flags = {flag: of.replace(name.parts[0], archive.name) for flag, of in flags.items()}
        names.add(archive.name)
        if rng.random() < 0.5:
            other = prepare_labels(base) / source / name
            member = str(Path(*name.parts[1:]))
            with zipfile.ZipFile(archive) as file:
                there = member in file.namelist()
            if there:
                way += f"; {spoil_zip(rng, rng.choice(WAYS_OF_ZIPS), archive, member, other).what}"
    words = [f"--{flag}={data / of}" for flag, of in flags.items()]
    words += [f"--out={place / 'out'}", "--workers=1", "--size=16"]
    outcome = call(limited(resource.RLIMIT_AS, MEMORY, _command(module, words)), place)
    wrong = verdicts(outcome)
    if outcome.code:
        lines = [line for line in outcome.output.splitlines() if line.startswith("error: ")]
        if not lines:
            wrong.add("traceback")
        elif not any(name in line for line in lines for name in names):
            wrong.add("silent")
    return f"{source}: {name}: {way}", wrong, outcome.output


def _command(module, words: list[str]) -> Callable[[], None]:
    def function() -> None:
        sys.argv = [module.__name__, *words]
        sys.exit(module.main())

    return function
