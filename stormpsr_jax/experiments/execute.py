"""Runs one after the other, each in a process of its own, with how far all of them are."""

from __future__ import annotations

import contextlib
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from stormpsr_jax.base import files
from stormpsr_jax.base.errors import raise_all
from stormpsr_jax.experiments import runs as of_runs
from stormpsr_jax.experiments.command import Request, RunsFailed
from stormpsr_jax.experiments.runs import Run

# A line of `stages.run`: a stage, and how many seconds it took.
_TOOK = re.compile(r"(\w+): (\d+) s")


class Progress:
    """Lines that say how far all runs are, and how long the rest takes as far as that is known.

    A stage is expected to take as long as those of its name took before, in this command or in
    earlier ones.
    """

    def __init__(self, expected: Mapping[Run, Sequence[str]]):
        """Takes the stages that each run will make."""
        self._expected = {run: list(stages) for run, stages in expected.items()}
        self._start = time.monotonic()
        self._took: dict[str, list[float]] = {}
        for stage, seconds in (found for run in expected for found in took(run.log)):
            self._took.setdefault(stage, []).append(seconds)

    def seconds(self, stage: str) -> float | None:
        """Expected of a stage; None if nothing is known of its like."""
        return statistics.fmean(self._took[stage]) if stage in self._took else None

    def left(self) -> str:
        """How long all that is left takes, for people."""
        known = [self.seconds(stage) for stages in self._expected.values() for stage in stages]
        minutes = sum(seconds for seconds in known if seconds is not None) / 60
        least = "at least" if None in known else "about"
        return f"{least} {minutes:.0f} min left"

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


def took(path: Path) -> list[tuple[str, float]]:
    """The stages that a log says were made, with their seconds."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            found = [_TOOK.fullmatch(line.strip()) for line in file]
    except FileNotFoundError:
        return []
    return [(match[1], float(match[2])) for match in found if match]


def execute(run: Run, others: Sequence[Path], progress: Progress) -> bool:
    """Makes a run to its end, with stages of other work folders; returns whether it did."""
    run.folder.mkdir(parents=True, exist_ok=True)
    _wait_for(run, progress)
    progress.say(run, "starts")
    flags = run.flags(other for other in others if other.is_dir())
    last = ""
    with run.log.open("a", encoding="utf-8") as log:
        print("python -m stormpsr_jax.main", *flags, file=log, flush=True)
        process = subprocess.Popen(
            [sys.executable, "-m", "stormpsr_jax.main", *flags],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            process_group=0,  # Ctrl-C is passed on below, once: at a second one it would just end
        )
        assert process.stdout is not None  # a pipe was asked for
        try:
            for line in process.stdout:
                log.write(line)
                log.flush()
                line = line.strip()
                last = line or last
                if made := _TOOK.fullmatch(line):
                    progress.made(run, made[1], float(made[2]))
                    progress.say(run, f"{made[1]} took {made[2]} s")
                elif ": taken over from " in line:
                    progress.say(run, line)
        finally:
            if process.poll() is None:
                process.terminate()  # it saves what it has
            process.wait()
    progress.ended(run)
    if process.returncode:
        progress.say(run, f"FAILED: {last} (see {run.log})")
    return process.returncode == 0


def _wait_for(run: Run, progress: Progress) -> None:
    """Waits for a process that a killed command has left at work in the folder."""
    held = files.open_locked(run.folder / "lock", wait=False)
    if held is None:
        progress.say(run, f"waits for the process that is at work in {run.folder}")
        held = files.open_locked(run.folder / "lock", wait=True)
    assert held is not None  # it has waited
    held.close()


def execute_all(runs: Sequence[Run], progress: Progress, others: Sequence[Path] = ()) -> list[Run]:
    """Makes all runs that are not made; a run that fails does not stop the others.

    Args:
        runs: in the order to make them in; each takes over what any of them has.
        progress: what says how far they are.
        others: further work folders to take stages over from.

    Returns:
        Those that failed.
    """
    failed = []
    for run in runs:
        if run.folder.is_dir() and not of_runs.stages_to_make(run):
            progress.ended(run)
            progress.say(run, "done before")
        elif not execute(run, [*(r.folder for r in runs if r is not run), *others], progress):
            failed.append(run)
    return failed


@contextlib.contextmanager
def executed(runs: Sequence[Run], request: Request) -> Iterator[set[Run]]:
    """Makes all runs of a command that are not made; yields those that went to their end.

    A plan shows what is left to make instead, and ends the command.

    Raises:
        ValueError: there is no such folder to take stages over from, or another command works in
            the folder.
        RunsFailed: at the end, if runs failed.
    """
    root = request.root
    raise_all([f"--from={p}: no such work folder" for p in request.others if not p.is_dir()])
    expected = of_runs.expected_stages(runs, request.others)
    progress = Progress(expected)
    if request.plan:
        show_plan(progress, expected)
        sys.exit()
    root.mkdir(parents=True, exist_ok=True)
    with files.only_writer(root / "lock", root, "--workdir"):
        failed = execute_all(runs, progress, request.others)
        yield set(runs) - set(failed)
    if failed:
        raise RunsFailed(f"{len(failed)} of {len(runs)} runs failed, and are in no table")


def show_plan(progress: Progress, expected: Mapping[Run, Sequence[str]]) -> None:
    """Prints the runs, what each makes and takes over, and the time as far as it is known."""
    print("| run | makes | is there or taken over | min |\n|---|---|---|---|")
    for run, stages in expected.items():
        others = [stage for stage in run.config.stages if stage not in stages]
        seconds = [progress.seconds(stage) for stage in stages]
        known = [value for value in seconds if value is not None]
        minutes = f"{sum(known) / 60:.1f}" if len(known) == len(seconds) else "–"
        makes, over = (", ".join(names) or "–" for names in (stages, others))
        print(f"| {run.name} | {makes} | {over} | {minutes} |")
    print(f"{len(expected)} runs, {progress.left()}")
