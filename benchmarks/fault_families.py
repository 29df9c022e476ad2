"""The families of attempts of `faults.py`.

A family is a function (rng, place, base) -> (what was done, the verdicts that apply, what was
said). It makes one attempt in the empty folder `place`; `base` is the folder of
`fault_runs.prepare`.
"""

import contextlib
import functools
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import fault_checkpoints
import fault_configs
import fault_damage
import fault_files
import fault_labels
import fault_media
import fault_recognition
from fault_processes import Outcome, Process, call, limited, small_disk
from fault_runs import LIMIT, STAGES, Found, copy_before, results, run, seconds_of, verdicts

from tests.support.processes import ROOT, free_address
from tests.support.tiny import TINY, flags_of

# --- Stopped and starved --------------------------------------------------------------------------


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
        wrong |= verdicts(outcome) | ({"different"} if outcome.code not in codes else set())
    last = call(run(place / "run", stages=stages), place, LIMIT)
    wrong |= verdicts(last)
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
        wrong = verdicts(first)
        if first.code and "error: " not in first.output:
            wrong.add("traceback")
        last = call(run(workdir, stages=stages), place, LIMIT)
        wrong |= verdicts(last)
        if last.code or results(workdir, stages) != results(base / "run", stages):
            wrong.add("different")
    return what, wrong, first.output[-2000:] + last.output[-1000:]


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
    wrong = verdicts(outcome)
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
    wrong = set() if way in ("dead", "stopped") else verdicts(mine)
    # JAX ends the others at once when process 0 is killed, with what its C++ has to say.
    by_jax = way == "dead" and victim == 0 and other.code < 0 and not other.hung
    wrong |= set() if by_jax else verdicts(other)
    if other.code and way.startswith("other") and "error: " not in other.output + mine.output:
        wrong.add("silent")
    if other.code == 0 and way.startswith("other"):
        wrong.add("silent")
    when = "" if after is None else f" after {after:.1f} s"
    said = f"{mine.code} {mine.output[-1400:]}\n--- other {other.code}\n{other.output[-1400:]}"
    return f"{way}: process {victim}{when}", wrong, said


FAMILIES = {
    "kill": functools.partial(interrupted, signal.SIGKILL, (0, -signal.SIGKILL)),
    # One that comes before the command handles it ends the process as any other.
    "terminate": functools.partial(interrupted, signal.SIGTERM, (0, 75, -signal.SIGTERM)),
    "interrupt": functools.partial(interrupted, signal.SIGINT, (0, 130, -signal.SIGINT)),
    "full disk": full_disk,
    "damaged run": fault_damage.damaged_run,
    "damaged data": fault_damage.damaged_data,
    "damaged model": fault_damage.damaged_model,
    "damaged input": fault_damage.damaged_input,
    "damaged weights": fault_damage.damaged_weights,
    "crafted data": fault_damage.crafted_data,
    "damaged scores": fault_recognition.damaged_scores,
    "damaged fusion": fault_recognition.damaged_fusion,
    "damaged state": fault_recognition.damaged_state,
    "checkpoints of others": fault_checkpoints.damaged_checkpoint,
    "hostile media": fault_media.hostile_media,
    "damaged labels": fault_labels.damaged_labels,
    "configs": fault_configs.configs,
    "environment": environment,
    "processes": processes,
}
