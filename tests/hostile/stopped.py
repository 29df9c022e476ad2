"""The families of attempts whose commands are stopped, starved, or in odd surroundings."""

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

from tests.hostile import damage
from tests.hostile.processes import Outcome, Process, call, limited, small_disk
from tests.hostile.runs import LIMIT, STAGES, Found, copy_before, run, same, seconds_of
from tests.support.processes import ROOT, free_address
from tests.support.tiny import TINY, flags_of


def interrupted(number: int, codes: tuple[int, ...], rng, place: Path, base: Path) -> Found:
    """A stage is sent a signal at a random instant, or two; then the command runs to its end."""
    stage = rng.choice(STAGES)
    stages = copy_before(base, place / "run", stage)
    wrong, said, instants = set(), "", []
    for _ in range(rng.choice((1, 1, 2))):
        process = Process(run(place / "run", stages=stages), place)
        instants.append(round(rng.random() * seconds_of(base, stage), 2))
        time.sleep(instants[-1])
        process.signal(number)
        outcome = process.wait(LIMIT)
        said += outcome.output
        wrong |= outcome.wrong | ({"different"} if outcome.code not in codes else set())
    wrong_at_last, last = _to_its_end(place, base, stages)
    return f"{stage} after {instants} s", wrong | wrong_at_last, said + last


def _to_its_end(place: Path, base: Path, stages: tuple[str, ...]) -> tuple[set[str], str]:
    """The command once more, undisturbed: the verdicts, and what it said."""
    last = call(run(place / "run", stages=stages), place, LIMIT)
    sound = last.code == 0 and same(base, place / "run", stages)
    return last.wrong | (set() if sound else {"different"}), last.output[-1000:]


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
        wrong = first.wrong | ({"traceback"} if first.code and not first.errors else set())
        wrong_at_last, last = _to_its_end(place, base, stages)
    return what, wrong | wrong_at_last, first.output[-2000:] + last


def environment(rng: random.Random, place: Path, base: Path) -> Found:
    """A command of its own under an unusual locale, folder, limit or output."""
    workdir = place / "run"
    copy_before(base, workdir, rng.choice(("evaluate", "predict")))
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    options = {"cwd": place, "stdout": subprocess.PIPE}
    limits = {
        "memory": (resource.RLIMIT_AS, 30, 34),
        "file size": (resource.RLIMIT_FSIZE, 8, 20),
        "open files": (resource.RLIMIT_NOFILE, 4, 7.6),
    }
    healthy = ("encoding", "locale", "folder", "closed", "no home")
    ends = ("read-only", "a file", "full output", "broken pipe")
    what = way = rng.choice((*healthy, *ends, *limits))
    if way == "encoding":
        what = env["PYTHONIOENCODING"] = rng.choice(("ascii", "latin-1", "cp1252", "ascii:strict"))
    elif way == "locale":
        env |= {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    elif way == "folder":
        options["cwd"] = rng.choice(("/", "/tmp", str(base)))
    elif way == "read-only":
        workdir = Path(rng.choice(("/sys/run", "/proc/run", "/dev/null/run")))
    elif way == "a file":
        shutil.rmtree(workdir)
        workdir.write_text("a file")
    elif way in limits:
        kind, least, most = limits[way]
        value = int(2 ** rng.uniform(least, most))
        what += f" {value}"
        options["preexec_fn"] = lambda: resource.setrlimit(kind, (value, value))
    elif way == "closed":
        options["preexec_fn"] = functools.partial(os.close, rng.choice((0, 1, 2)))
    elif way == "full output":
        options["stdout"] = open("/dev/full", "w")
    elif way == "no home":
        env |= {"HOME": "/nonexistent", "TMPDIR": "/nonexistent"}
    words = [sys.executable, "-m", "stormpsr_jax.main", "--config=synthetic"]
    words += [f"--workdir={workdir}", *flags_of(TINY)]
    process = subprocess.Popen(words, env=env, stderr=subprocess.PIPE, **options)
    if way == "broken pipe":
        process.stdout.close()
        process.stdout = None
    hung = False
    try:
        out, errors = process.communicate(timeout=LIMIT)
    except subprocess.TimeoutExpired:
        hung = True
        process.kill()
        out, errors = process.communicate()
    text = ((out or b"") + errors).decode(errors="replace")
    outcome = Outcome(process.returncode, text, hung)
    wrong = outcome.wrong
    if outcome.code and not outcome.errors and way not in ("closed", "broken pipe"):
        wrong |= {"traceback"}
    if way in healthy and (outcome.code or not same(base, workdir)):
        wrong |= {"different"}
    return what, wrong, text


def processes(rng: random.Random, place: Path, base: Path) -> Found:
    """Two processes as one run, of which one dies, stops, or was started otherwise."""
    way = rng.choice(("dead", "stopped", "other folder", "other count", "other config", "damaged"))
    address = free_address()
    stages = copy_before(base, place / "run", "temporal")
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
    when = ""
    if way in ("dead", "stopped"):
        after = rng.random() * 1.5 * seconds_of(base, "temporal")
        time.sleep(after)
        started[victim].signal(signal.SIGKILL if way == "dead" else signal.SIGSTOP)
        when = f" after {after:.1f} s"
    if way == "damaged":
        path = damage.choose(rng, [place / "run" / "embed"])
        when = f" {path.name}: {damage.damage(rng, path, place.parent / 'beside' / 'file')}"
    other = started[1 - victim].wait(LIMIT)
    if way == "stopped":
        started[victim].signal(signal.SIGKILL)
    mine = started[victim].wait(LIMIT)
    wrong = set() if way in ("dead", "stopped") else mine.wrong
    # JAX ends the others at once when process 0 is killed, with what its C++ has to say.
    by_jax = way == "dead" and victim == 0 and other.code < 0 and not other.hung
    wrong |= set() if by_jax else other.wrong
    if way.startswith("other") and not (other.code and other.errors + mine.errors):
        wrong |= {"silent"}
    said = f"{mine.code} {mine.output[-1400:]}\n--- other {other.code}\n{other.output[-1400:]}"
    return f"{way}: process {victim}{when}", wrong, said
