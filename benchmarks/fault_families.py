"""The families of attempts of `faults.py`.

A family is a function (rng, place, base) -> (what was done, the verdicts that apply, what was
said). It makes one attempt in the empty folder `place`; `base` is the folder of `prepare`.
"""

import contextlib
import functools
import hashlib
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import fault_files
import fuzz_evaluate
import numpy as np
import safetensors.numpy
from absl import app
from fault_processes import Outcome, Process, call, limited, small_disk
from processes_of_tests import ROOT, free_address
from tiny import TINY, TRAINED, flags_of, tiny

from stormpsr_jax import config_flag, evaluate, load_model, torch_files, weights
from stormpsr_jax import main as command
from stormpsr_jax.psr import analysis
from stormpsr_jax.stages import checks, provenance
from stormpsr_jax.stages import run as _run_of_stages  # noqa: F401 (imported before forks)
from stormpsr_jax.stages.context import Context
from stormpsr_jax.training import interruption
from stormpsr_jax.training.sharding import make_mesh

STAGES = ("data", "pretrain", "embed", "temporal", "finetune", "detector", "predict", "evaluate")
SECONDS = "seconds.json"
LIMIT = 180  # seconds; a stage of the tiny run takes up to 40 on a busy machine
ERRORS = (ValueError, OSError, MemoryError, FloatingPointError)  # those that commands put in a line

Found = tuple[str, set[str], str]


# --- Runs -----------------------------------------------------------------------------------------


def run(workdir: Path, *flags: str, **fields) -> Callable[[], None]:
    """The command of a tiny run, for a process of its own."""
    words = ["main", f"--config={ROOT / 'configs' / 'synthetic.py'}", f"--workdir={workdir}"]
    words += flags_of({**TINY, **{name.replace("__", "."): v for name, v in fields.items()}})

    def function() -> None:
        interruption.install()
        sys.argv = [*words, *flags]
        app.run(command.main, flags_parser=config_flag.parse_flags)

    return function


def prepare(base: Path) -> None:
    """Makes the undisturbed run that the attempts start from and are compared with."""
    base.mkdir(parents=True, exist_ok=True)
    if not (base / "run" / "metrics.json").exists():
        outcome = call(run(base / "run"), base, 1800)
        if outcome.code:
            sys.exit(outcome.output)
        took = dict(re.findall(r"^(\w+): (\d+) s$", outcome.output, re.MULTILINE))
        seconds = {stage: float(took[stage]) for stage in STAGES}
        (base / SECONDS).write_text(json.dumps(seconds))


def results(folder: Path, stages: Sequence[str]) -> dict[str, str]:
    """Checksums of what stages have made, without what holds times and dates."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        top = "predict" if name.parts[0] == "predictions" else name.parts[0]
        top = "evaluate" if top in ("model", "metrics.json", "report.html") else top
        # Of a finished stage, what it was made from is in done.json.
        # Only a stage that goes on looks at the recordings that it has completed.
        unlike = {"checkpoints", "tensorboard", "completed", provenance.MADE_FROM}
        skipped = unlike & set(name.parts)
        if top not in stages or skipped or not path.is_file():
            continue
        content = path.read_bytes()
        if path.name == "model.json" or name.parts == ("evaluate", provenance.DONE):
            data = json.loads(content)
            for of_date in ("created", "results", "checksum"):
                data.pop(of_date, None)
            content = json.dumps(data).encode()
        found[str(name)] = hashlib.sha256(content).hexdigest()
    return found


def copy_before(base: Path, target: Path, stage: str) -> tuple[str, ...]:
    """Copies the run as it was before a stage; returns the stages up to it."""
    later = STAGES[STAGES.index(stage) :]
    gone = {*later, "lock"}
    gone |= {"predictions"} if "predict" in later else set()
    gone |= {"model", "metrics.json", "report.html"}
    for path in (base / "run").iterdir():
        if path.name not in gone:
            _copy(path, target / path.name)
    return STAGES[: STAGES.index(stage) + 1]


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target)
    else:
        shutil.copy2(source, target)


def _verdicts(outcome: Outcome) -> set[str]:
    """Those that need no knowledge of what was done."""
    wrong = {"hang"} if outcome.hung else set()
    return wrong | ({"traceback"} if outcome.crashed and not outcome.hung else set())


def seconds_of(base: Path, stage: str) -> float:
    """How long a stage took in the undisturbed run, with what it compiled."""
    return json.loads((base / SECONDS).read_text())[stage]


def interrupted(number: int, codes: tuple[int, ...], rng, place: Path, base: Path) -> Found:
    """A stage is sent a signal at a random instant, or two; then the command runs to its end."""
    stage = rng.choice(STAGES)
    seconds = seconds_of(base, stage)
    stages = copy_before(base, place / "run", stage)
    wrong, said, instants = set(), "", []
    for _ in range(rng.choice((1, 1, 2))):
        process = Process(run(place / "run", stages=stages), place)
        instants.append(round(rng.random() * seconds, 2))
        time.sleep(instants[-1])
        process.signal(number)
        outcome = process.wait(LIMIT)
        said += outcome.output
        wrong |= _verdicts(outcome) | ({"different"} if outcome.code not in codes else set())
    last = call(run(place / "run", stages=stages), place, LIMIT)
    wrong |= _verdicts(last)
    if last.code or results(place / "run", stages) != results(base / "run", stages):
        wrong.add("different")
    return f"{stage} after {instants} s", wrong, said + last.output


def full_disk(rng: random.Random, place: Path, base: Path) -> Found:
    """A stage without room for what it writes; then with room, to its end."""
    stage = rng.choice(STAGES)
    workdir = place / "run"
    with contextlib.ExitStack() as stack:
        small = rng.random() < 0.7 and stack.enter_context(small_disk(workdir, 2**30))
        stages = copy_before(base, workdir, stage)
        function = run(workdir, stages=stages)
        if small:
            # Blocks of 4 kB; as much again as the stage needs is the most.
            used = sum(-(-p.stat().st_size // 4096) * 4096 for p in workdir.rglob("*"))
            room = int(rng.random() ** 2 * 2**22)
            os.system(f"mount -o remount,size={used + room + 2**16} '{workdir}'")
            what = f"{stage}: {room} bytes left on the disk"
        else:
            most = int(2 ** rng.uniform(15, 21))
            function = limited(resource.RLIMIT_FSIZE, most, function)
            what = f"{stage}: files of {most} bytes at most"
        first = call(function, place, LIMIT)
        if small:
            os.system(f"mount -o remount,size=1g '{workdir}'")
        wrong = _verdicts(first)
        if first.code and "error: " not in first.output:
            wrong.add("traceback")
        last = call(run(workdir, stages=stages), place, LIMIT)
        wrong |= _verdicts(last)
        if last.code or results(workdir, stages) != results(base / "run", stages):
            wrong.add("different")
    return what, wrong, first.output[-2000:] + last.output[-1000:]


# --- Damaged files --------------------------------------------------------------------------------


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
    wrong = _verdicts(outcome)
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
    path = fault_files.choose(rng, [place / "model"])
    way = fault_files.damage(rng, path, place.parent / "beside" / "file")
    outcome = call(_reported(lambda: load_model(place / "model")), place)
    wrong = _verdicts(outcome)
    # What a person may change in model.json, such as a threshold, is nobody's damage.
    silent = path.name not in outcome.output if outcome.code else path.name != "model.json"
    return f"{path.name}: {way}", wrong | ({"silent"} if silent else set()), outcome.output


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
    wrong = _verdicts(outcome)
    named = {path.name, path.stem, path.parent.name, path.stem.removesuffix("_results_pred")}
    if outcome.code and not any(name in outcome.output for name in named):
        wrong.add("silent")
    if not outcome.code:  # the result, which others read
        result = place / "out.json"
        way += f"; out.json: {fault_files.damage(rng, result, place.parent / 'beside' / 'file')}"
        outcome = call(_reported(lambda: analysis.load_result(result)), place)
        wrong |= _verdicts(outcome)
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
    read = torch_files.read_state_dict if kind == "npz" else weights.load_params
    outcome = call(limited(resource.RLIMIT_AS, 2**33, _reported(lambda: read(path))), place)
    wrong = _verdicts(outcome)
    if outcome.code and path.name not in outcome.output:
        wrong.add("silent")
    return f"{kind}: {way}", wrong, outcome.output


def _reported(function: Callable[[], object]) -> Callable[[], None]:
    """The function, with its errors in lines as commands print them."""

    def reported() -> None:
        try:
            function()
        except ERRORS as error:
            sys.exit(f"error: {error}")

    return reported


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
        for stage in ("pretrain", "detector", "evaluate"):
            provenance.made_from(context, stage)
        for split in ("train", "val"):
            source = context.source(split)
            for name in source.recordings:
                for _ in source.chunks(name, 64):
                    pass

    outcome = call(limited(resource.RLIMIT_AS, 2**34, _reported(read)), place)
    return what, _verdicts(outcome), outcome.output


# --- Surroundings ---------------------------------------------------------------------------------


def environment(rng: random.Random, place: Path, base: Path) -> Found:
    """A command of its own under an unusual locale, folder, limit or output."""
    workdir = place / "run"
    copy_before(base, workdir, rng.choice(("evaluate", "predict")))
    words = [sys.executable, "-m", "stormpsr_jax.main", "--config=synthetic"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    options = {"cwd": place, "stdout": subprocess.PIPE}
    limit, may_fail = None, False
    ascii_ = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    way = rng.choice(
        ("encoding", "locale", "folder", "read-only", "a file", "memory", "file size", "open files",
         "closed", "full output", "broken pipe", "no home")
    )  # fmt: skip
    what = way
    if way == "encoding":
        env["PYTHONIOENCODING"] = rng.choice(("ascii", "latin-1", "cp1252", "ascii:strict"))
        what = env["PYTHONIOENCODING"]
    elif way == "locale":
        env |= ascii_
    elif way == "folder":
        options["cwd"] = rng.choice(("/", "/tmp", str(base)))
    elif way == "read-only":
        workdir, may_fail = Path(rng.choice(("/sys/run", "/proc/run", "/dev/null/run"))), True
    elif way == "a file":
        shutil.rmtree(workdir)
        workdir.write_text("a file")
        may_fail = True
    elif way == "memory":
        limit, may_fail = (resource.RLIMIT_AS, int(2 ** rng.uniform(30, 34))), True
    elif way == "file size":
        limit, may_fail = (resource.RLIMIT_FSIZE, int(2 ** rng.uniform(8, 20))), True
    elif way == "open files":
        limit, may_fail = (resource.RLIMIT_NOFILE, rng.randrange(16, 200)), True
    elif way == "closed":
        options["preexec_fn"] = functools.partial(os.close, rng.choice((0, 1, 2)))
    elif way == "full output":
        options["stdout"], may_fail = open("/dev/full", "w"), True
    elif way == "no home":
        env |= {"HOME": "/nonexistent", "TMPDIR": "/nonexistent"}
    if limit:
        what += f" {limit[1]}"
        options["preexec_fn"] = lambda: resource.setrlimit(limit[0], (limit[1], limit[1]))
    words += [f"--workdir={workdir}", *flags_of(TINY)]
    start = time.monotonic()
    process = subprocess.Popen(words, env=env, stderr=subprocess.PIPE, **options)
    if way == "broken pipe":
        process.stdout.close()
        process.stdout, may_fail = None, True
    hung = False
    try:
        out, errors = process.communicate(timeout=LIMIT)
    except subprocess.TimeoutExpired:
        hung = True
        process.kill()
        out, errors = process.communicate()
    text = ((out or b"") + errors).decode(errors="replace")
    outcome = Outcome(process.returncode, text, hung, time.monotonic() - start)
    wrong = _verdicts(outcome)
    if outcome.code and "error: " not in text and way not in ("closed", "broken pipe"):
        wrong.add("traceback")
    if not may_fail and (outcome.code or results(workdir, STAGES) != results(base / "run", STAGES)):
        wrong.add("different")
    return what, wrong, text


def processes(rng: random.Random, place: Path, base: Path) -> Found:
    """Two processes as one run, of which one dies, stops, or was started otherwise."""
    way = rng.choice(("dead", "stopped", "other folder", "other count", "other config", "damaged"))
    address = free_address()
    copy_before(base, place / "run", "temporal")
    stages = STAGES[: STAGES.index("temporal") + 1]
    victim = rng.randrange(2)
    started = []
    for i in range(2):
        workdir, count, fields = place / "run", 2, {}
        if i == victim and way == "other folder":
            workdir = place / "other"
        if i == victim and way == "other count":
            count = 4
        if i == victim and way == "other config":
            fields = {"seed": 7}
        flags = (f"--coordinator={address}", f"--num_processes={count}", f"--process_id={i}")
        function = run(workdir, *flags, "--connect_timeout=40", stages=stages, **fields)
        started.append(Process(function, place, f"output{i}"))
    after = None
    if way in ("dead", "stopped"):
        after = rng.random() * 1.5 * seconds_of(base, "temporal")
        time.sleep(after)
        started[victim].signal(signal.SIGKILL if way == "dead" else signal.SIGSTOP)
    if way == "damaged":
        path = fault_files.choose(rng, [place / "run" / "embed"])
        way += f" {path.name}: {fault_files.damage(rng, path, place.parent / 'beside' / 'file')}"
    other = started[1 - victim].wait(LIMIT)
    if way == "stopped":
        started[victim].signal(signal.SIGKILL)
    mine = started[victim].wait(LIMIT)
    wrong = set() if way in ("dead", "stopped") else _verdicts(mine)
    # JAX itself ends a process whose peer has died, with what its C++ has to say.
    wrong |= _verdicts(other) if other.code != -signal.SIGABRT or other.hung else set()
    if other.code and way.startswith("other") and "error: " not in other.output + mine.output:
        wrong.add("silent")
    if other.code == 0 and way.startswith("other"):
        wrong.add("silent")
    when = "" if after is None else f" after {after:.1f} s"
    said = f"{mine.code} {mine.output[-1400:]}\n--- other {other.code}\n{other.output[-1400:]}"
    return f"{way}: process {victim}{when}", wrong, said


# Hostile media belong here too: videos, pictures and zip files that data_prep reads.
FAMILIES = {
    "kill": functools.partial(interrupted, signal.SIGKILL, (0, -signal.SIGKILL)),
    # One that comes before the command handles it ends the process as any other.
    "terminate": functools.partial(interrupted, signal.SIGTERM, (0, 75, -signal.SIGTERM)),
    "interrupt": functools.partial(interrupted, signal.SIGINT, (0, 130, -signal.SIGINT)),
    "full disk": full_disk,
    "damaged run": damaged_run,
    "damaged data": damaged_data,
    "damaged model": damaged_model,
    "damaged input": damaged_input,
    "damaged weights": damaged_weights,
    "crafted data": crafted_data,
    "environment": environment,
    "processes": processes,
}
