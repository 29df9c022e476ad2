"""Runs that belong together, each in a work folder of its own; they share what is the same."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import re
from collections.abc import Callable, Hashable, Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec
from flax import traverse_util

from stormpsr_jax.configs import default
from stormpsr_jax.configs.default import Config
from stormpsr_jax.stages import config_flag, order, remaking
from stormpsr_jax.stages import run as stages_run
from stormpsr_jax.stages.stage import Run as Opened
from stormpsr_jax.stages.stage import Stage

DATA = "data"  # the stage that renders
SHARED = "stages"  # the folder below the root of all runs
# What differs from a config, as {field: value}, or what says it of the config.
Changes = Mapping[str, Any] | Callable[[Config], Mapping[str, Any]]


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """One run of `stormpsr_jax.main`.

    Attributes:
        folder: its work folder.
        shared: folder of the results that runs share.
    """

    name: str
    config: Config
    folder: Path
    shared: Path

    @functools.cached_property
    def opened(self) -> Opened:
        """What its stages work in, to look at what is there, which takes no devices."""
        return stages_run.run_of(self.config, self.folder, mesh=None)

    @functools.cached_property
    def stages(self) -> dict[str, Stage]:
        """All stages by name, those too that it leaves out."""
        return order.stages(self.config)

    def is_made(self, stage: Stage) -> bool:
        """Whether it has finished a stage, made from what it would be made from now."""
        return remaking.is_made(self.opened, stage)

    @property
    def command(self) -> list[str]:
        """The words of the command that makes it, after `python`."""
        usual = config_flag.flat(Config())
        words = ["-m", "stormpsr_jax.main", f"--config={default.__file__}"]
        words += [f"--workdir={self.folder}", f"--stages={self.shared}"]
        return words + [
            f"--config.{field}={tuple(value) if isinstance(value, list) else value}"
            for field, value in config_flag.flat(self.config).items()
            if value != usual[field]
        ]

    def alone(self, stage: Stage) -> Run:
        """The run of a stage and what it needs."""
        needed = [stage]
        for one in needed:
            needed += one.after
        names = {DATA, *(one.name for one in needed)}
        stages = tuple(name for name in self.config.stages if name in names)
        config = msgspec.structs.replace(self.config, stages=stages)
        return dataclasses.replace(self, name=f"{self.name}, {stage.name}", config=config)


Runs = Mapping[tuple[str, int], Run]  # by (variant, seed)


def changed(base: Config, changes: Mapping[str, Any]) -> Config:
    """A config with other values of some fields, {field: value}."""
    fields = {**config_flag.flat(base), **changes}
    return msgspec.convert(traverse_util.unflatten_dict(fields, sep="."), Config)


def planned(
    base: Config, variants: Mapping[str, Changes], root: Path, seeds: Iterable[int]
) -> Runs:
    """The runs of some variants, {name for people: what differs}.

    Where variants come to the same config, all have the run of the first one.
    """
    all_runs: dict[tuple[str, int], Run] = {}
    for seed in seeds:
        of_seed, runs = changed(base, {"seed": seed}), list[Run]()
        for name, changes in variants.items():
            config = changed(of_seed, changes(of_seed) if callable(changes) else changes)
            run = next((run for run in runs if run.config == config), None)
            if run is None:
                folder = root / f"seed_{seed}" / _folder(name)
                runs.append(run := Run(f"{name}, seed {seed}", config, folder, root / SHARED))
            all_runs[name, seed] = run
    return all_runs


def _folder(name: str) -> str:
    folder = re.sub(r"[^\w.=+-]+", "_", name)
    if folder == name.replace(", ", "_"):
        return folder
    return f"{folder}_{hashlib.sha256(name.encode()).hexdigest()[:12]}"  # others may come to it too


def missing(runs: Iterable[Run]) -> list[list[Run]]:
    """What is left of runs, in order of need: for each stage what several share, then all.

    The runs of a list can go on at the same time.
    """
    left = [run for run in dict.fromkeys(runs) if not _is_finished(run)]
    waves = []
    for name in (DATA, *default.LEARNING):
        alike: dict[Hashable, list[Run]] = {}
        for run in left:
            if name in run.config.stages:
                alike.setdefault(_origin(run, run.stages[name]), []).append(run)
        groups = [group for group in alike.values() if len(group) > 1]
        new = [g for g in groups if not any(run.is_made(run.stages[name]) for run in g)]
        waves.append([group[0].alone(group[0].stages[name]) for group in new])
    return [wave for wave in [*waves, left] if wave]


def _is_finished(run: Run) -> bool:
    return all(map(run.is_made, stages_run.chosen(run.stages, run.config, run.opened)))


def _origin(run: Run, stage: Stage) -> Hashable:
    """What two runs have alike that come to the same results of a stage."""
    c = run.config
    return (stage, c.data) if stage.name == DATA else (stage, c.data, c.procedure, c.seed, c.dtype)
