"""Runs one after the other, each in a process of its own, with how far all of them are."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from stormpsr_jax.base import files
from stormpsr_jax.base.errors import raise_all
from stormpsr_jax.experiments import runs as of_runs
from stormpsr_jax.experiments.command import Request, RunsFailed
from stormpsr_jax.experiments.runs import Run

# A line of `stages.run`: a stage, and how many seconds it took.
_TOOK = re.compile(r"(\w+): (\d+) s")
Weight = Callable[[Run, str], float]


def every_stage_alike(run: Run, stage: str) -> float:
    """The weight of a stage among those of its name where no other is known."""
    del run, stage
    return 1.0


class Progress:
    """Lines that say how far all runs are, and how long the rest takes as far as that is known.

    A stage is expected to take as long as those of its name took before, in this command or in
    earlier ones, by their weights.
    """

    def __init__(
        self,
        expected: Mapping[Run, Sequence[str]],
        weight: Weight = every_stage_alike,
        usual: Mapping[str, float] | None = None,
    ):
        """Takes what is left of each run.

        Args:
            expected: the stages that each run will make.
            weight: of a stage of a run among the stages of that name.
            usual: seconds of a stage of weight 1 that are known of another machine.
        """
        self._expected = {run: list(stages) for run, stages in expected.items()}
        self._weight, self._usual = weight, dict(usual or {})
        self._start = time.monotonic()
        self._took: dict[str, list[float]] = {}  # by stage (seconds, weight), summed
        for run in expected:
            for stage, seconds in took(run.log):
                self._learn(run, stage, seconds)

    def _learn(self, run: Run, stage: str, seconds: float) -> None:
        sums = self._took.setdefault(stage, [0.0, 0.0])
        sums[0] += seconds
        sums[1] += self._weight(run, stage)

    def seconds(self, run: Run, stage: str) -> float | None:
        """Expected of a stage; None if nothing is known of its like."""
        weight = self._weight(run, stage)
        if (sums := self._took.get(stage)) is not None:
            return sums[0] / sums[1] * weight
        if stage not in self._usual:
            return None
        # The usual time is that of another machine, whose speed the stages done so far tell.
        both = [name for name in self._took if name in self._usual]
        here = sum(self._took[name][0] for name in both)
        there = sum(self._usual[name] * self._took[name][1] for name in both)
        return self._usual[stage] * weight * (here / there if here and there else 1.0)

    def left(self) -> str:
        """How long all that is left takes, for people."""
        known = [
            self.seconds(run, stage) for run, stages in self._expected.items() for stage in stages
        ]
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
        self._learn(run, stage, seconds)
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
    held = files.open_locked(root / "lock", wait=False)
    if held is None:
        raise ValueError(f"another command is at work in {root}; wait for its end, or stop it")
    with held:
        failed = execute_all(runs, progress, request.others)
        yield set(runs) - set(failed)
    if failed:
        raise RunsFailed(f"{len(failed)} of {len(runs)} runs failed, and are in no table")


def show_plan(progress: Progress, expected: Mapping[Run, Sequence[str]]) -> None:
    """Prints the runs, what each makes and takes over, and the time as far as it is known."""
    print("| run | makes | is there or taken over | min |\n|---|---|---|---|")
    for run, stages in expected.items():
        others = [stage for stage in run.config.stages if stage not in stages]
        seconds = [progress.seconds(run, stage) for stage in stages]
        known = [value for value in seconds if value is not None]
        minutes = f"{sum(known) / 60:.1f}" if len(known) == len(seconds) else "–"
        makes, over = (", ".join(names) or "–" for names in (stages, others))
        print(f"| {run.name} | {makes} | {over} | {minutes} |")
    print(f"{len(expected)} runs, {progress.left()}")
