"""Readers of files from outside: good files for each, and what is read of them.

    python -m tests.hostile.readers FOLDER FIRST LAST

makes the attempts of these seeds with each reader, in one process with a limit of memory: it
changes a good file and reads it. FOLDER/outcomes.jsonl has what came of each. What is read is a
checksum, so that two can be compared.
"""

import contextlib
import faulthandler
import io
import json
import os
import pickle
import random
import resource
import shutil
import sys
import traceback
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from stormpsr_jax import evaluate, load_model
from stormpsr_jax.base import files, folders
from stormpsr_jax.data.clips import ClipSource, list_splits
from stormpsr_jax.live import station
from stormpsr_jax.live.capture import Clock
from stormpsr_jax.media import containers, pictures, sources, video
from stormpsr_jax.media.framing import Framing
from stormpsr_jax.recordings import box_files, predictions, scores
from stormpsr_jax.recordings.boxes import join_pictures
from stormpsr_jax.recordings.recording import LabelPlace
from stormpsr_jax.serving.files.unit import Reset
from stormpsr_jax.weights import parameters, torch_files
from tests.hostile import changes, good_media
from tests.support import (
    evaluate_data,
    industreal_data,
    label_formats,
    live_data,
    model_data,
    pickles,
    shards_data,
)
from tests.support.peak_memory import forget_peak, peak_mebibytes

MEMORY = 2**33  # bytes of address space, more than anything sound takes
SECONDS = 20  # of an attempt, before it counts as a hang
# A checksum tells of damage: what is read of these is right, or an error.
SEALED = (".npz", ".pth", ".safetensors", "model.json", "state.json")
# What is no damage, or what a reader takes for the absence of a file that need not be there.
HARMLESS = ("appended", "removed", "a link", "a folder")


def digest(values: Any) -> int:
    """Of arrays in dictionaries and lists."""
    leaves = jax.tree_util.tree_leaves_with_path(values)
    return zlib.crc32(pickle.dumps([(str(p), np.asarray(v).tobytes()) for p, v in leaves]))


def commanded(main: Callable, words: list[str]) -> None:
    """Runs a command; ValueError if it ends with lines of errors."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            status = main(words)
    except SystemExit as end:
        status = end.code
    lines = [line for line in said.getvalue().splitlines() if not line.startswith("warning: ")]
    if status:
        assert lines, status
        assert all(line.startswith("error: ") for line in lines), lines
        raise ValueError("\n".join(lines))


# --- Media ----------------------------------------------------------------------------------------


def read_video(root: Path, path: Path) -> int:
    """All frames, as `containers` reads times in a limited process, which this one is."""
    place = sources.open_source(path).place
    times = containers._read_index(place).times
    wanted = np.ones(len(times), bool)
    return sum(1 for _ in video.decode(place, times, wanted))


def make_pictures(folder: Path) -> None:
    for mode in ("RGB", "L", "CMYK", "P", "I;16"):
        (folder / mode.replace(";", "")).mkdir()
        image = good_media.image(mode)
        for i in range(3):
            ending = "jpg" if mode in ("RGB", "CMYK") else "png"
            image.save(folder / mode.replace(";", "") / f"{i:05d}.{ending}", progressive=i == 2)


def read_pictures(root: Path, path: Path) -> int:
    numbers = pictures.number_images(path.parent, folders.entries(path.parent)[1])
    shown = pictures.ImageFiles(path.parent, min(numbers), len(numbers))
    return len(list(pictures.encode(shown.read(), Framing((16, 16)))))


# --- Labels and predictions -----------------------------------------------------------------------


def make_labels(folder: Path) -> None:
    events = [(1.0, 10, "Install seal"), (2.0, 20, "Install cover"), (3.5, 35, "Remove cover")]
    for name, write in (label_formats.TIMED | label_formats.FRAMED).items():
        write(folder / name, events, live_data.FPS)
    (folder / "rec").mkdir()
    (folder / "rec" / "PSR_labels_raw.csv").write_text("000000.jpg,0,0,0\n000005.jpg,1,0,0\n")
    (folder / "rec" / "PSR_labels.csv").write_text("000005.jpg,0,Install seal\n")
    (folder / "boxes.json").write_text(json.dumps(industreal_data.coco("rec")))


def read_labels(root: Path, path: Path) -> None:
    variant = live_data.PROCEDURE.variants["assembly"]
    if path.name == "boxes.json":
        join_pictures(box_files.coco(files.read_json(path), path))
    else:
        path = path.parent if path.parent.name == "rec" else path
        LabelPlace(path).read(live_data.PROCEDURE, variant)


def make_evaluated(folder: Path) -> None:
    evaluate_data.make_files(folder, ("01_assy_a",))
    procedure, name = evaluate_data.PROCEDURE, "01_assy_a_results_pred.csv"
    (folder / "procedure.json").write_text(json.dumps(procedure.to_json(), indent=1))
    seen = "frame,step_id,visible_from\n50,0,\n90,4,93\n"
    (folder / "labels/01_assy_a/PSR_labels_visible_from.csv").write_text(seen)
    detections = predictions.read_detections(folder / "asd" / name, procedure)
    clips = predictions.read_temporal(folder / "temporal" / name, procedure)
    (folder / "scores").mkdir()
    learned = scores.from_predictions(detections, clips, procedure)
    scores.write_scores(folder / "scores/01_assy_a.npz", learned)


def read_evaluated(root: Path, path: Path) -> int:
    words = [f"--procedure={root / 'procedure.json'}", f"--visibility={root / 'visibility'}"]
    words.append(f"--scores={root / 'scores'}")
    commanded(evaluate.main, evaluate_data.command(root, *words))
    return zlib.crc32((root / "out.json").read_bytes())


# --- Networks, data, states -----------------------------------------------------------------------


def make_weights(folder: Path) -> None:
    state = {f"block.{i}.weight": np.arange(12, dtype=np.float32) + i for i in range(3)}
    tensors = {
        name: pickles.tensor((3, 4), (4, 1), of=pickles.storage(str(i)))
        for i, name in enumerate(state)
    }
    with zipfile.ZipFile(folder / "theirs.pth", "w") as archive:
        content = b"\x80\x02" + pickles.dict_of(**tensors) + pickles.STOP
        archive.writestr("archive/data.pkl", content)
        for i, array in enumerate(state.values()):
            archive.writestr(f"archive/data/{i}", array.tobytes())
    np.savez(folder / "theirs.npz", **state)
    parameters.save_params(folder / "ours.safetensors", {"dense": state})
    tensor = pickles.tensor((9, 999), (999, 1), of=pickles.storage(numel=8991, further=b"N"))
    data = {"0": (8991, np.arange(8991, dtype=np.float32).tobytes())}
    (folder / "old.pt").write_bytes(pickles.old_file(pickles.dict_of(w=tensor), data))


def read_weights(root: Path, path: Path) -> int:
    if path.suffix == ".safetensors":
        return digest(parameters.load_params(path))
    return digest(torch_files.read_state_dict(path))


def read_model(root: Path, path: Path) -> int:
    model = load_model(path.parent)
    return digest({role: n.variables for role, n in model._content.networks.of.items()})


def read_data(root: Path, path: Path) -> int:
    count = 0
    for split in list_splits(root):
        source = ClipSource(root, split, shards_data.toy_procedure())
        count += sum(len(shown) for n in source.recordings for shown in source.chunks(n, 8))
    return count


def station_of(path: Path) -> station.Station:
    clock = Clock(live_data.FPS, 0.0)
    options = {"clock": clock, "reset": Reset("complete"), "state": path}
    return station.Station(live_data.scripted(), "x", tell=json.loads, **options)


def make_states(folder: Path) -> None:
    """Saves one in the middle of a unit."""
    script = live_data.Script(live_data.frames((live_data.SEAL, 4), (live_data.COVER, 12)))
    stop: list[int] = []
    script.before = lambda script: stop.append(1) if len(script.shown) == 1 else None
    station_of(folder / "state.json").run(script, stop)


def read_state(root: Path, path: Path) -> str:
    one = station_of(path)
    one.restore()
    return json.dumps(one._live.state(), default=str)


READERS = {
    "videos": (good_media.write_videos, read_video),
    "pictures": (make_pictures, read_pictures),
    "labels and boxes": (make_labels, read_labels),
    "files of evaluate": (make_evaluated, read_evaluated),
    "model folders": (model_data.write, read_model),
    "weights": (make_weights, read_weights),
    "data folders": (shards_data.build, read_data),
    "states": (make_states, read_state),
}
CHANGES = {
    ".json": changes.change_json,
    **dict.fromkeys((".jpg", ".png"), changes.change_picture),
    ".pth": changes.change_zip,
    ".npz": changes.change_arrays,
    ".safetensors": changes.change_header,
    **dict.fromkeys((".csv", ".txt", ".xml", ".eaf"), changes.change_text),
}


# --- The process ----------------------------------------------------------------------------------


def copied(good: Path, attempt: Path) -> Path:
    """The folder `inside` of an attempt, beside the empty one in which it is made."""
    shutil.rmtree(attempt, ignore_errors=True)
    shutil.copytree(good, attempt / "inside")
    (attempt / "here").mkdir()
    os.chdir(attempt / "here")
    return attempt / "inside"


def attempt_of(rng: random.Random, good: Path, folder: Path, read: Callable, results: dict) -> dict:
    """Changes a file and reads it: what was done, and what is "wrong", None if nothing."""
    chosen, place = rng.choice(list(results)), copied(good, folder)
    path, error, wrong = place / chosen, "", None
    change = CHANGES.get(path.suffix)
    crafted = change is not None and rng.random() < 0.6
    way = change(rng, path) if crafted else changes.damage(rng, path)
    forget_peak()
    try:
        result = read(place, path)
        sealed = path.name.endswith(SEALED) and not crafted and way not in HARMLESS
        if sealed and result != results[chosen]:
            wrong = f"silent: {result!r:.80}, not {results[chosen]!r:.80}"
    except ValueError as raised:
        error = str(raised)
        if not all(line.isprintable() and len(line) < 2500 for line in error.split("\n")):
            wrong = "no printable line"
        elif not any(part in error for part in (path.name, path.stem, path.parent.name)):
            wrong = "does not name the file"
    except BaseException:
        wrong = traceback.format_exc()
    if os.listdir(folder / "here") or set(os.listdir(folder)) != {"inside", "here"}:
        wrong = "outside"
    if peak_mebibytes() > 1500:
        wrong = f"memory: {peak_mebibytes()} MiB"
    return {"what": f"{chosen}: {way}", "error": error, "wrong": wrong}


def main(folder: Path, seeds: range) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    for name, (make, read) in READERS.items():
        good, attempt = folder / "good" / name, folder / "attempt"
        good.mkdir(parents=True)
        make(good)
        paths = [path for path in sorted(good.rglob("*")) if path.is_file()]
        if name == "data folders":  # others say when, and how, it was made
            paths = [p for p in paths if p.suffix != ".lock" and "dataset_info" not in p.name]
        paths = [path.relative_to(good) for path in paths]
        place = copied(good, attempt)
        results = {path: read(place, place / path) for path in paths}
        for seed in seeds:
            with (folder / "outcomes.jsonl").open("a") as out:
                out.write(f'{{"reader": "{name}", "seed": {seed}')  # is there if it ends here
                out.flush()
                faulthandler.dump_traceback_later(SECONDS, exit=True)
                rng = random.Random(f"{name}/{seed}")
                outcome = attempt_of(rng, good, attempt, read, results)
                faulthandler.cancel_dump_traceback_later()
                out.write(", " + json.dumps(outcome)[1:] + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), range(*map(int, sys.argv[2:])))
