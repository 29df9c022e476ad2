"""Runs side by side, each in a process and on devices of its own, with how far all of them are.

The queue is the folder: a run is whose lock is held, and a stage that several runs have is made by
the one that has locked it (`main --claims`). So any number of commands work on the same runs.
"""

import argparse
import contextlib
import dataclasses
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

from stormpsr_jax.base import files
from stormpsr_jax.base.errors import raise_all
from stormpsr_jax.base.interruption import EXIT_RESTART
from stormpsr_jax.experiments import places
from stormpsr_jax.experiments import runs as of_runs
from stormpsr_jax.experiments.places import Place
from stormpsr_jax.experiments.runs import Run, changed

# A line of `stages.run`: a stage, and how many seconds it took.
_TOOK = re.compile(r"(\w+): (\d+) s")
_WAITS = re.compile(r"\w+: another run makes it, which has locked (.+)")
_LOOK_SECONDS = 0.2


class Outlook:
    """Lines that say how far all runs are, and how long the rest takes as far as that is known.

    It reads them from the runs' logs, whoever makes the runs. A stage is expected to take as long
    as those of its name took before, in this command or in earlier ones.
    """

    def __init__(self, expected: Mapping[Run, Sequence[str]], at_once: int = 1):
        """Takes the stages that each run will make, and how many runs are made at once."""
        self._expected = {run: list(stages) for run, stages in expected.items()}
        self._at_once = at_once
        self._start = time.monotonic()
        self._took: dict[str, list[float]] = {}
        self._read: dict[Run, int] = {}  # bytes of its log
        for run in expected:
            for line in self._new_lines(run):
                if made := _TOOK.fullmatch(line):
                    self._took.setdefault(made[1], []).append(float(made[2]))

    def _new_lines(self, run: Run) -> list[str]:
        try:
            with run.log.open("rb") as file:
                file.seek(self._read.get(run, 0))
                whole = file.read().rpartition(b"\n")[0]
        except FileNotFoundError:
            return []
        self._read[run] = self._read.get(run, 0) + len(whole) + bool(whole)
        return [line.strip() for line in whole.decode(errors="replace").splitlines()]

    def look(self) -> None:
        """Says what the logs of the runs have told since the last look."""
        for run in self._expected:
            for line in self._new_lines(run):
                if made := _TOOK.fullmatch(line):
                    self.made(run, made[1], float(made[2]))
                    self.say(run, f"{made[1]} took {made[2]} s")
                elif ": taken over from " in line:
                    self.say(run, line)

    def seconds(self, stage: str) -> float | None:
        """Expected of a stage; None if nothing is known of its like."""
        return statistics.fmean(self._took[stage]) if stage in self._took else None

    def left(self) -> str:
        """How long all that is left takes, for people: as long as the longest run at least."""
        of_runs = [[self.seconds(name) for name in names] for names in self._expected.values()]
        if any(of_runs) and all(one is None for seconds in of_runs for one in seconds):
            return "time left not known yet"
        known = [sum(filter(None, seconds)) for seconds in of_runs]
        seconds = max([sum(known) / self._at_once, *known])
        least = "at least" if any(None in seconds for seconds in of_runs) else "about"
        return f"{least} {seconds / 60:.0f} min left"

    def say(self, run: Run, text: str) -> None:
        """Prints a line about a run."""
        place = list(self._expected).index(run) + 1
        minutes = (time.monotonic() - self._start) / 60
        when = f"({minutes:.0f} min, {self.left()})"
        print(f"[{place}/{len(self._expected)}] {run.name}: {text} {when}", flush=True)

    def made(self, run: Run, stage: str, seconds: float) -> None:
        """Takes note of a finished stage."""
        self._took.setdefault(stage, []).append(seconds)
        if stage in self._expected[run]:
            self._expected[run].remove(stage)

    def ended(self, run: Run) -> None:
        """Takes note that nothing more will come of a run."""
        self._expected[run] = []


class _Work(NamedTuple):
    """A run that is being made: its process, and the lock that keeps it from other commands."""

    run: Run
    process: subprocess.Popen
    held: BinaryIO


class _Queue:
    """The runs of a command that are left, and what keeps each of them from being begun."""

    def __init__(
        self,
        runs: Sequence[Run],
        progress: Outlook,
        others: Sequence[Path],
        flags: Sequence[str],
    ):
        self.left, self.failed = list(runs), list[Run]()
        self._order, self._progress, self._others, self._flags = [*runs], progress, others, flags
        self._waits: dict[Run, Path] = {}  # for this lock, of a stage
        self._elsewhere: set[Run] = set()  # made by somebody else
        for run in runs:  # before any of them looks into the others'
            run.folder.mkdir(parents=True, exist_ok=True)

    def next(self, place: Place) -> _Work | None:
        """Begins the first run that can be begun; None if there is none now."""
        for run in [*self.left]:
            if run in self._waits and not _is_free(self._waits[run]):
                continue
            held = files.open_locked(run.folder.with_name(f".{run.folder.name}.lock"), wait=False)
            if held is None or not _is_free(run.folder / "lock"):
                if held is not None:  # its own command was killed
                    held.close()
                if run not in self._elsewhere:
                    self._progress.say(run, f"waits for who is at work in {run.folder}")
                self._elsewhere.add(run)
                continue
            self.left.remove(run)
            if run in self._waits or of_runs.stages_to_make(run):
                return self._begun(run, place, held)
            held.close()
            self._progress.ended(run)
            self._progress.say(run, "done before")
        return None

    def _begun(self, run: Run, place: Place, held: BinaryIO) -> _Work:
        if run not in self._waits:
            self._progress.say(run, "starts")
        workers = place.loaders(run.config.data.workers)
        here = dataclasses.replace(run, config=changed(run.config, {"data.workers": workers}))
        others = [*(r.folder for r in self._order if r is not run), *self._others]
        flags = [*here.flags(others), *self._flags]
        with run.log.open("a", encoding="utf-8") as log:
            print("python -m stormpsr_jax.main", *flags, file=log, flush=True)
            process = subprocess.Popen(
                [sys.executable, "-m", "stormpsr_jax.main", *flags],
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **place.environment},
                process_group=0,  # Ctrl-C is passed on, once: at a second one it would just end
            )
        return _Work(run, process, held)

    @property
    def has_nothing(self) -> bool:
        """Whether others are making all that is left."""
        return all(run in self._elsewhere and run not in self._waits for run in self.left)

    def ended(self, work: _Work) -> None:
        """Takes note of a run whose process has ended."""
        work.held.close()
        self._progress.look()
        run, status = work.run, work.process.returncode
        said = [line.strip() for line in run.log.read_text("utf-8", "replace").splitlines()]
        self._waits.pop(run, None)
        if not status:
            self._progress.ended(run)
        elif status == EXIT_RESTART:
            locks = [found[1] for line in said if (found := _WAITS.fullmatch(line))]
            self._waits[run] = Path(locks[-1]) if locks else run.folder / "lock"
            self.left = [r for r in self._order if r in self.left or r is run]
        else:
            self.failed.append(run)
            self._progress.ended(run)
            last = next(filter(None, reversed(said)), "")
            self._progress.say(run, f"FAILED: {last} (see {run.log})")


def _is_free(lock: Path) -> bool:
    if not lock.parent.is_dir():
        return True
    if (file := files.open_locked(lock, wait=False)) is None:
        return False
    file.close()
    return True


def execute_all(
    runs: Sequence[Run],
    progress: Outlook,
    others: Sequence[Path],
    here: Sequence[Place],
    flags: Sequence[str],
    leads: bool,
) -> list[Run]:
    """Makes all runs that are not made, in each place one at a time; returns those that failed.

    Each takes over what any of them has, or one of the work folders `others`. A run that fails does
    not stop the others. `flags` are those that every run is given too; who `leads` waits for those
    that other commands make.
    """
    queue, at_work = _Queue(runs, progress, others, flags), dict[int, _Work]()
    try:
        while queue.left or at_work:
            for i in [*at_work]:
                if at_work[i].process.poll() is not None:
                    queue.ended(at_work.pop(i))
            for i, place in enumerate(here):
                if i not in at_work and (work := queue.next(place)):
                    at_work[i] = work
            if not leads and not at_work and queue.has_nothing:
                break
            progress.look()
            time.sleep(_LOOK_SECONDS)
    finally:
        for work in at_work.values():
            work.process.terminate()  # it saves what it has
        for work in at_work.values():
            work.process.wait()
            work.held.close()
    return queue.failed


class RunsFailed(ValueError):
    """Runs have failed, each of which has said why: no error of the command."""


@contextlib.contextmanager
def executed(runs: Sequence[Run], args: argparse.Namespace) -> Iterator[set[Run]]:
    """Makes all runs of a command that are not made; yields those that went to their end.

    A plan shows what is left to make instead, and ends the command. So does what joins another
    command, once there is nothing left to begin.

    Raises:
        ValueError: there is no such folder to take stages over from, or no such devices, or another
            command works in the folder, and this one does not join it.
        RunsFailed: at the end, if runs failed.
    """
    raise_all([f"--from={p}: no such work folder" for p in args.others if not p.is_dir()])
    expected = of_runs.expected_stages(runs, args.others)
    here = places.find(args.devices_per_run)
    progress = Outlook(expected, len(here))
    if args.plan or any(expected.values()):
        _show_plan(progress, expected, len(here))
    if args.plan:
        sys.exit()
    with contextlib.ExitStack() as held:
        leads = True
        try:
            held.enter_context(files.only_writer(args.root / "lock", args.root, "--workdir"))
        except ValueError as error:
            if not args.join:
                raise ValueError(f"{error}; or help it on other devices with --join") from error
            leads = False
        # The locks of what the runs share, wherever they are made, lie in one folder.
        kept = [f"--{name}={vars(args)[name]}" for name in ("remake", "keep") if vars(args)[name]]
        flags = [*kept, f"--claims={args.root / 'claims'}"]
        failed = execute_all(runs, progress, args.others, here, flags, leads)
        if leads:
            yield set(runs) - set(failed)
    if failed:
        raise RunsFailed(f"{len(failed)} of {len(runs)} runs failed, and are in no table")
    if not leads:
        print("nothing is left to begin; the command that was first writes the tables", flush=True)
        sys.exit()


def _show_plan(progress: Outlook, expected: Mapping[Run, Sequence[str]], at_once: int) -> None:
    """Prints the runs, what each makes and takes over, and the time as far as it is known."""
    print("| run | makes | is there or taken over | min |\n|---|---|---|---|")
    for run, stages in expected.items():
        others = [stage for stage in run.config.stages if stage not in stages]
        seconds = [progress.seconds(stage) for stage in stages]
        known = [value for value in seconds if value is not None]
        minutes = f"{sum(known) / 60:.1f}" if len(known) == len(seconds) else "–"
        makes, over = (", ".join(names) or "–" for names in (stages, others))
        print(f"| {run.name} | {makes} | {over} | {minutes} |")
    side = f", {at_once} at a time" if at_once > 1 else ""
    print(f"{len(expected)} runs{side}, {progress.left()}", flush=True)
