"""Label files and boxes, in folders and zip files, that `data_prep` reads."""

import json
import random
import shutil
import zipfile
from pathlib import Path

from data_prep import impact, industreal, meccano, own
from stormpsr_jax.psr import convert
from tests.hostile.damage import change_json, damage_text
from tests.hostile.processes import MEMORY, call, command, made_once
from tests.hostile.runs import Found
from tests.hostile.zips import WAYS_OF_ZIPS, pack, spoil_zip
from tests.support import assembly101_data, impact_data, industreal_data, meccano_data, own_data

SHARDS = ["--workers=1", "--size=16"]
# The flags of each command by the folder that they name, and its other words.
COMMANDS = {
    "own": (own, {"videos": "videos", "labels": "labels", "boxes": "boxes", "splits": "splits.csv",
                  "procedure": "procedure.json"}, SHARDS),
    "meccano": (meccano, {"frames": "frames", "labels": "psr", "asd_labels": "asd"}, SHARDS),
    "industreal": (industreal, {"data": "recordings"}, SHARDS),
    "impact": (impact, {"videos": "videos", "labels": "psr"}, SHARDS),
    "assembly101": (convert, {"annotations": "annots"}, ["assembly101"]),
}  # fmt: skip


def _write_base(folder: Path) -> None:
    meccano_data.make_data(folder / "meccano", dict.fromkeys(meccano_data.FRAMES, 9))
    industreal_data.make_data(folder / "industreal")
    impact_data.make_data(folder / "impact")
    assembly101_data.make_data(folder / "assembly101" / "annots")
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
    module, flags, more = COMMANDS[source]
    sound = made_once(base / "labels", _write_base) / source
    data = place / "data"
    shutil.copytree(sound, data)
    paths = [p for p in sorted(data.rglob("*")) if p.suffix in (".csv", ".json", ".txt")]
    kind = rng.choice(sorted({(p.suffix, p.parent == data, len(p.stem) == 6) for p in paths}))
    path = rng.choice([p for p in paths if (p.suffix, p.parent == data, len(p.stem) == 6) == kind])
    name = path.relative_to(data)
    if path.suffix == ".json" and rng.random() < 0.6:
        way = change_json(rng, path)
    else:
        way = damage_text(rng, path, place.parent / "beside" / "file")
    # Whatever of the path an error may name.
    names = {name.name, name.stem, name.parent.name} - {""}
    top = data / name.parts[0]
    if rng.random() < 0.3 and top.is_dir() and name.parts[0] not in ("boxes", "annots"):
        archive = top.with_suffix(".zip")
        pack(rng, top, archive)
        flags = {flag: of.replace(name.parts[0], archive.name) for flag, of in flags.items()}
        names.add(archive.name)
        member = str(Path(*name.parts[1:]))
        with zipfile.ZipFile(archive) as file:
            there = member in file.namelist()
        if there and rng.random() < 0.5:
            spoilt = spoil_zip(rng, rng.choice(WAYS_OF_ZIPS), archive, member, sound / name)
            way += f"; {spoilt.what}"
    words = [*more, *(f"--{flag}={data / of}" for flag, of in flags.items())]
    words.append(f"--out={place / 'out'}")
    outcome = call(command(module, words), place, memory=MEMORY)
    return f"{source}: {name}: {way}", outcome.judged(names), outcome.output
