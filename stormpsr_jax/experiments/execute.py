"""Runs side by side on this machine, each in a process and on devices of its own."""

import dataclasses
import os
import subprocess
import sys
import time
from collections.abc import Sequence

from stormpsr_jax.experiments.runs import Run, changed
from stormpsr_jax.training import hosts

_LOOK_SECONDS = 0.2
# In a process of its own: one that has looked at devices keeps their memory.
_DEVICES = "import jax; print(jax.default_backend(), jax.local_device_count())"


class RunsFailed(ValueError):
    """Runs have failed, each of which has said why: no error of the command."""


def make_all(waves: Sequence[Sequence[Run]], per_run: int, flags: Sequence[str]) -> list[Run]:
    """Makes runs, as many at once as have so many devices of their own (0: all, one by one).

    What is in one of the waves, of `runs.missing`, is made before the next, each with the `flags`.
    Returns those of the last that failed; they do not stop the others. ValueError: no such devices;
    RunsFailed: what several runs share could not be made.
    """
    if not waves:
        return []
    places, failed = environments(per_run), list[Run]()
    for wave in waves:
        failed = _make(wave, places, flags)
        if failed and wave is not waves[-1]:
            raise RunsFailed(f"{len(failed)} of {len(wave)} runs that others need failed")
    return failed


def environments(per_run: int) -> list[dict[str, str]]:
    """The variables of runs that go on at once: each shows so many devices; 0: all of them.

    ValueError if there are fewer, or they cannot be shared out.
    """
    if not per_run:
        return [{}]
    words = [sys.executable, "-c", _DEVICES]
    found = subprocess.run(words, capture_output=True, text=True, check=False)
    if found.returncode:
        why = (found.stderr.strip().splitlines() or ["killed"])[-1]
        raise ValueError(f"JAX cannot use the devices of this machine: {why}")
    kind, text = found.stdout.split()[-2:]
    count = int(text)
    flag = f"--devices_per_run={per_run}: this machine has {count} of JAX's devices ({kind})"
    if per_run > count:
        raise ValueError(f"{flag}; give at most {count}, or 0 for all of them")
    if per_run == count:
        return [{}]
    if kind == "cpu":
        flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count"
        return [{"XLA_FLAGS": f"{flags}={per_run}".strip()}] * (count // per_run)
    if kind != "gpu":
        raise ValueError(f"{flag}, and GPUs alone are shared out; give 0 for all of them")
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = given.split(",") if given else [str(i) for i in range(count)]
    groups = [names[i : i + per_run] for i in range(0, count - per_run + 1, per_run)]
    return [{"CUDA_VISIBLE_DEVICES": ",".join(group)} for group in groups]


def with_loaders(run: Run, at_once: int) -> Run:
    """A run with its share of the loaders that it would have alone, at least one of any."""
    asked = run.config.data.workers
    if not asked or at_once == 1:
        return run
    share = max(1, (hosts.cores() if asked < 0 else asked) // at_once)
    return dataclasses.replace(run, config=changed(run.config, {"data.workers": share}))


def _make(runs: Sequence[Run], places: Sequence[dict[str, str]], flags: Sequence[str]) -> list[Run]:
    """Makes runs, one at a time in each place; returns those that failed."""
    left, failed = list(runs), list[Run]()
    at_work: dict[int, tuple[Run, subprocess.Popen]] = {}
    try:
        while left or at_work:
            for i, place in enumerate(places):
                if i in at_work and at_work[i][1].poll() is not None:
                    run, process = at_work.pop(i)
                    failed += [run] if process.returncode else []
                    said = run.log.read_text("utf-8", "replace").split("\n")
                    last = next(filter(None, map(str.strip, reversed(said))), "")
                    failure = f"FAILED: {last} (see {run.log})"
                    _say(runs, run, failure if process.returncode else "done")
                if i not in at_work and left:
                    run = left.pop(0)
                    _say(runs, run, f"starts ({run.log})")
                    words = [*with_loaders(run, len(places)).command, *flags]
                    at_work[i] = run, _started(run, words, place)
            time.sleep(_LOOK_SECONDS)
    finally:
        for _, process in at_work.values():
            process.terminate()  # it saves what it has
        for _, process in at_work.values():
            process.wait()
    return failed


def _started(run: Run, words: Sequence[str], place: dict[str, str]) -> subprocess.Popen:
    run.folder.mkdir(parents=True, exist_ok=True)
    with run.log.open("a", encoding="utf-8") as log:
        print("python", *words, file=log, flush=True)
        return subprocess.Popen(
            [sys.executable, *words],
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **place},
            process_group=0,  # Ctrl-C is passed on, once: at a second one it would just end
        )


def _say(runs: Sequence[Run], run: Run, text: str) -> None:
    print(f"[{list(runs).index(run) + 1}/{len(runs)}] {run.name}: {text}", flush=True)
