"""The families of attempts whose files are damaged, or made up, after we have written them."""

import json
import random
import re
import shutil
from pathlib import Path

import numpy as np
import safetensors.numpy

from stormpsr_jax import evaluate, load_model
from stormpsr_jax.base import results
from stormpsr_jax.psr.evaluation import analysis
from stormpsr_jax.psr.evaluation.scoring import PROTOCOLS
from stormpsr_jax.psr.streams.rules import DECODERS
from stormpsr_jax.serving.card import CARD
from stormpsr_jax.stages import checks, order, provenance
from stormpsr_jax.stages.context import Context
from stormpsr_jax.training.sharding import make_mesh
from stormpsr_jax.weights import parameters, torch_files
from tests.hostile.damage import (
    change_json,
    choose,
    craft,
    damage,
    damage_header,
    damage_text,
)
from tests.hostile.processes import MEMORY, Outcome, call, made_once, reported
from tests.hostile.runs import LIMIT, STAGES, Found, run, same
from tests.support import evaluate_data
from tests.support.exported import TAMPERED, declare, export, tamper
from tests.support.tiny import TRAINED, tiny


def damaged_run(rng: random.Random, place: Path, base: Path) -> Found:
    """A file of a finished run, or of one that was stopped in a trained stage."""
    workdir = place / "run"
    shutil.copytree(base / "run", workdir)
    folders = [workdir]
    what = "finished"
    if rng.random() < 0.4:
        stage = rng.choice(TRAINED)
        what = f"stopped in {stage}"
        record = results.read(workdir / stage)
        record.results = None
        results.write(workdir / stage, record)
        shutil.rmtree(workdir / stage / "checkpoints" / "12")
        folders = [workdir / stage]
    path = choose(rng, folders, without=("data", "tensorboard", "pace.jsonl", "lock"))
    way = damage(rng, path, place.parent / "beside" / "file")
    outcome = call(run(workdir), place, LIMIT)
    wrong = _of_damage(outcome, path, workdir, base)
    return f"{what}: {path.relative_to(workdir)}: {way}", wrong, outcome.output


def damaged_data(rng: random.Random, place: Path, base: Path) -> Found:
    """A file of the data folder of a finished run, which a folder elsewhere is given as."""
    workdir, data = place / "run", place / "data"
    shutil.copytree(base / "run", workdir, ignore=shutil.ignore_patterns("data"))
    shutil.copytree(base / "run" / "data", data)
    path = choose(rng, [data])
    way = damage(rng, path, place.parent / "beside" / "file")
    outcome = call(run(workdir, stages=STAGES[1:], data__dir=str(data)), place, LIMIT)
    wrong = _of_damage(outcome, path, workdir, base, STAGES[1:])
    return f"{path.relative_to(data)}: {way}", wrong, outcome.output


def _of_damage(outcome: Outcome, path: Path, workdir: Path, base: Path, stages=STAGES) -> set[str]:
    """Silent is: other results, or none, and no word of the file."""
    parts = path.relative_to(workdir.parent).parts
    names = {path.name, *(f"checkpoints/{part}" for part in parts if part.isdigit())}
    names |= {f"split {split}" for split in ("train", "val", "test") if split in str(path)}
    names |= {part for part in parts if part.startswith("checkpoints") and len(parts) > 3}
    named = any(name in outcome.output for name in names)
    sound = outcome.code == 0 and same(base, workdir, stages)
    return outcome.wrong | (set() if sound or named else {"silent"})


def damaged_model(rng: random.Random, place: Path, base: Path) -> Found:
    """A file of a model folder, loaded."""
    shutil.copytree(base / "run" / "model", place / "model")
    (place / "model" / CARD).unlink()  # nothing reads it
    path = choose(rng, [place / "model"])
    whole = path.read_bytes()
    way = damage(rng, path, place.parent / "beside" / "file")
    outcome = call(reported(lambda: load_model(place / "model")), place)
    sound = not outcome.code and _means_the_same(path, whole)
    return f"{path.name}: {way}", outcome.judged([path.name], sound), outcome.output


def damaged_export(rng: random.Random, place: Path, base: Path) -> Found:
    """A file of an exported model, loaded; mostly one that model.json names as it is then."""
    form = rng.choice(("onnx", "onnx", "stablehlo"))
    whole = made_once(
        base / form, lambda folder: export(base / "run" / "model", folder / "m", form)
    )
    folder = shutil.copytree(whole / "m", place / "model")
    path = choose(rng, [folder], without=(CARD,))
    before = path.read_bytes()
    if path.suffix == ".onnx" and rng.random() < 0.5:
        change = rng.choice(list(TAMPERED))
        tamper(folder, path.stem, change)
        way = change.__name__
    elif path.suffix == ".json":
        way = change_json(rng, path)
    else:
        way = damage(rng, path, place.parent / "beside" / "file")
        if path.is_file() and not path.is_symlink() and rng.random() < 0.7:
            declare(folder, path.stem)
            way += ", named so"
    outcome = call(reported(lambda: load_model(folder)), place, LIMIT, 2 * MEMORY)
    # With the right checksum a weight may be any number: enough that nothing breaks.
    meant = way.endswith(", named so") or path.suffix == ".json"
    sound = not outcome.code and (meant or path.read_bytes() == before)
    return f"{path.name}: {way}", outcome.judged([path.name], sound), outcome.output


def _means_the_same(path: Path, before: bytes) -> bool:
    """Whether a JSON file, that was changed in a space, says what it did."""
    return path.suffix == ".json" and json.loads(path.read_bytes()) == json.loads(before)


def damaged_input(rng: random.Random, place: Path, base: Path) -> Found:
    """Labels, predictions, visibilities or procedure of `evaluate`, or its metrics.json."""
    del base
    files, result, outside = place / "in", place / "out.json", place.parent / "beside" / "file"
    evaluate_data.make_files(files, ("01_assy_a", "07_main_c"))
    procedure = files / "procedure.json"
    procedure.write_text(json.dumps(evaluate_data.PROCEDURE.to_json(), indent=1))
    path = choose(rng, [files])
    way = damage_text(rng, path, outside)
    protocol, decoder = rng.choice(PROTOCOLS), rng.choice(DECODERS)
    words = evaluate_data.command(
        files, f"--procedure={procedure}", f"--visibility={files / 'visibility'}",
        f"--protocol={protocol}", f"--decoder={decoder}", f"--out={result}",
    )  # fmt: skip
    outcome = call(lambda: evaluate.main(words), place)
    names = {path.name, path.stem, path.parent.name, path.stem.removesuffix("_results_pred")}
    whole = not outcome.code and all(
        sorted(stream["recordings"]) == ["01_assy_a", "07_main_c"]
        for stream in json.loads(result.read_bytes())["streams"].values()
    )
    wrong = outcome.judged(names, whole)
    if outcome.code and not re.fullmatch(r"(error: [^\n]+\n)+", outcome.output):
        wrong |= {"traceback"}
    if not outcome.code:  # the result, which others read
        way += f"; out.json: {damage(rng, result, outside)}"
        outcome = call(reported(lambda: analysis.load_result(result)), place)
        wrong |= outcome.judged(["out.json"])
    return f"{path.name}: {way}", wrong, outcome.output


def damaged_weights(rng: random.Random, place: Path, base: Path) -> Found:
    """Weights: our own, an .npz, or safetensors with a header of our making."""
    best = base / "run" / rng.choice(TRAINED) / "best.safetensors"
    kind = rng.choice(("ours", "npz", "header"))
    path = place / ("weights.npz" if kind == "npz" else "weights.safetensors")
    if kind == "npz":
        np.savez(path, **safetensors.numpy.load_file(best))
    else:
        shutil.copy(best, path)
    change = damage_header if kind == "header" else damage
    way = change(rng, path, place.parent / "beside" / "file")
    read = torch_files.read_state_dict if kind == "npz" else parameters.load_params
    outcome = call(reported(lambda: read(path)), place, memory=MEMORY)
    return f"{kind}: {way}", outcome.judged([path.name]), outcome.output


def crafted_data(rng: random.Random, place: Path, base: Path) -> Found:
    """A data folder whose labels, settings or procedure somebody made up."""
    data = place / "data"
    shutil.copytree(base / "run" / "data", data)
    what = craft(rng, data)

    def read() -> None:
        config = tiny(**{"stages": STAGES[1:], "data.dir": str(data)})
        context = Context(config, place / "run", make_mesh(1, 1))
        if mistakes := checks.find_mistakes(context):
            raise ValueError("\n".join(mistakes))
        for stage in order.chosen(context):
            provenance.made_from(context, stage)
        for split in ("train", "val"):
            source = context.source(split)
            for name in source.recordings:
                for _ in source.chunks(name, 64):
                    pass

    outcome = call(reported(read), place, memory=2 * MEMORY)
    return what, outcome.wrong, outcome.output
