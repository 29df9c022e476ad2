"""The families of `faults.py` whose files are damaged, or made up, after we have written them."""

import json
import random
import resource
import shutil
from pathlib import Path

import fault_files
import fuzz_evaluate
import numpy as np
import safetensors.numpy
from fault_processes import Outcome, call, limited
from fault_runs import LIMIT, STAGES, Found, reported, results, run, verdicts

from stormpsr_jax import evaluate, load_model
from stormpsr_jax.model.card import CARD
from stormpsr_jax.psr.evaluation import analysis
from stormpsr_jax.stages import checks, order, provenance
from stormpsr_jax.stages.context import Context
from stormpsr_jax.training.sharding import make_mesh
from stormpsr_jax.weights import parameters, torch_files
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
        (workdir / stage / provenance.DONE).unlink()
        shutil.rmtree(workdir / stage / "checkpoints" / "12")
        folders = [workdir / stage]
    path = fault_files.choose(rng, folders, without=("data", "tensorboard", "lock"))
    way = fault_files.damage(rng, path, place.parent / "beside" / "file")
    outcome = call(run(workdir), place, LIMIT)
    return (
        f"{what}: {path.relative_to(workdir)}: {way}",
        _of_damage(outcome, path, workdir, base),
        outcome.output,
    )


def damaged_data(rng: random.Random, place: Path, base: Path) -> Found:
    """A file of the data folder of a finished run, which a folder elsewhere is given as."""
    workdir, data = place / "run", place / "data"
    shutil.copytree(base / "run", workdir, ignore=shutil.ignore_patterns("data"))
    shutil.copytree(base / "run" / "data", data)
    path = fault_files.choose(rng, [data])
    way = fault_files.damage(rng, path, place.parent / "beside" / "file")
    outcome = call(run(workdir, stages=STAGES[1:], data__dir=str(data)), place, LIMIT)
    return (
        f"{path.relative_to(data)}: {way}",
        _of_damage(outcome, path, workdir, base, STAGES[1:]),
        outcome.output,
    )


def _of_damage(outcome: Outcome, path: Path, workdir: Path, base: Path, stages=STAGES) -> set:
    """Silent is: other results, or none, and no word of the file."""
    wrong = verdicts(outcome)
    parts = path.relative_to(workdir.parent).parts
    names = {path.name, *(f"checkpoints/{part}" for part in parts if part.isdigit())}
    names |= {f"split {split}" for split in ("train", "val", "test") if split in str(path)}
    names |= {part for part in parts if part.startswith("checkpoints") and len(parts) > 3}
    named = any(name in outcome.output for name in names)
    sound = outcome.code == 0 and results(workdir, stages) == results(base / "run", stages)
    return wrong | (set() if sound or named else {"silent"})


def damaged_model(rng: random.Random, place: Path, base: Path) -> Found:
    """A file of a model folder, loaded."""
    shutil.copytree(base / "run" / "model", place / "model")
    (place / "model" / CARD).unlink()  # nothing reads it
    path = fault_files.choose(rng, [place / "model"])
    whole = path.read_bytes()
    way = fault_files.damage(rng, path, place.parent / "beside" / "file")
    outcome = call(reported(lambda: load_model(place / "model")), place)
    wrong = verdicts(outcome)
    silent = path.name not in outcome.output if outcome.code else not _means_the_same(path, whole)
    return f"{path.name}: {way}", wrong | ({"silent"} if silent else set()), outcome.output


def _means_the_same(path: Path, before: bytes) -> bool:
    """Whether a JSON file, that was changed in a space, says what it did."""
    return path.suffix == ".json" and json.loads(path.read_bytes()) == json.loads(before)


def damaged_input(rng: random.Random, place: Path, base: Path) -> Found:
    """Labels, predictions, visibilities or procedure of `evaluate`, or its metrics.json."""
    del base
    fuzz_evaluate.make_input(place / "in")
    path = fault_files.choose(rng, [place / "in"])
    if rng.random() < 0.5:
        way = fuzz_evaluate.break_file(path, rng)
    else:
        way = fault_files.damage(rng, path, place.parent / "beside" / "file")
    words = [f"--{kind}={place / 'in' / kind}" for kind in ("labels", "asd", "temporal")]
    words += [f"--visibility={place / 'in' / 'visibility'}", f"--out={place / 'out.json'}"]
    words += [f"--procedure={place / 'in' / 'procedure.json'}", "--threshold=1.5"]
    outcome = call(lambda: evaluate.main(words), place)
    wrong = verdicts(outcome)
    named = {path.name, path.stem, path.parent.name, path.stem.removesuffix("_results_pred")}
    if outcome.code and not any(name in outcome.output for name in named):
        wrong.add("silent")
    if not outcome.code:  # the result, which others read
        result = place / "out.json"
        way += f"; out.json: {fault_files.damage(rng, result, place.parent / 'beside' / 'file')}"
        outcome = call(reported(lambda: analysis.load_result(result)), place)
        wrong |= verdicts(outcome)
        if outcome.code and "out.json" not in outcome.output:
            wrong.add("silent")
    return f"{path.name}: {way}", wrong, outcome.output


def damaged_weights(rng: random.Random, place: Path, base: Path) -> Found:
    """Weights: our own, an .npz, or safetensors with a header of our making."""
    best = base / "run" / rng.choice(TRAINED) / "best.safetensors"
    kind = rng.choice(("ours", "npz", "header"))
    if kind == "npz":
        path = place / "weights.npz"
        np.savez(path, **safetensors.numpy.load_file(best))
        way = fault_files.damage(rng, path, place.parent / "beside" / "file")
    else:
        path = place / "weights.safetensors"
        shutil.copy(best, path)
        change = fault_files.damage_header if kind == "header" else fault_files.damage
        way = change(rng, path, place.parent / "beside" / "file")
    read = torch_files.read_state_dict if kind == "npz" else parameters.load_params
    outcome = call(limited(resource.RLIMIT_AS, 2**33, reported(lambda: read(path))), place)
    wrong = verdicts(outcome)
    if outcome.code and path.name not in outcome.output:
        wrong.add("silent")
    return f"{kind}: {way}", wrong, outcome.output


def crafted_data(rng: random.Random, place: Path, base: Path) -> Found:
    """A data folder whose labels, settings or procedure somebody made up."""
    data = place / "data"
    shutil.copytree(base / "run" / "data", data)
    what = fault_files.craft(rng, data)

    def read() -> None:
        context = Context(tiny(**{"stages": STAGES[1:], "data.dir": str(data)}), place / "run",
                          make_mesh(1, 1))  # fmt: skip
        mistakes = checks.find_mistakes(context)
        if mistakes:
            raise ValueError("\n".join(mistakes))
        for stage in order.chosen(context.config):
            provenance.made_from(context, stage)
        for split in ("train", "val"):
            source = context.source(split)
            for name in source.recordings:
                for _ in source.chunks(name, 64):
                    pass

    outcome = call(limited(resource.RLIMIT_AS, 2**34, reported(read)), place)
    return what, verdicts(outcome), outcome.output
