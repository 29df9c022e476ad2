"""Runs that belong together, each in a work folder of its own; they share what is the same."""

from __future__ import annotations

import dataclasses
import functools
import os
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

STAGES = ("data", *default.LEARNING)  # that runs share
# What differs from a config, as {field: value}, or what says it of the config.
Changes = Mapping[str, Any] | Callable[[Config], Mapping[str, Any]]


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """One run of `stormpsr_jax.main`.

    `folder` is its work folder.
    """

    config: Config
    folder: Path

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
        return [*words, f"--workdir={self.folder}"] + [
            f"--config.{field}={tuple(value) if isinstance(value, list) else value}"
            for field, value in config_flag.flat(self.config).items()
            if value != usual[field]
        ]


Runs = Mapping[tuple[str, int], Run]  # by (variant, seed)


def changed(base: Config, changes: Mapping[str, Any]) -> Config:
    """A config with other values of some fields, {field: value}."""
    fields = {**config_flag.flat(base), **changes}
    return msgspec.convert(traverse_util.unflatten_dict(fields, sep="."), Config)


def planned(
    base: Config, variants: Mapping[str, Changes], root: Path, seeds: Iterable[int]
) -> Runs:
    """The runs of some variants, {name: what differs}.

    Where variants come to the same config, all have the run of the first one.
    """
    all_runs: dict[tuple[str, int], Run] = {}
    for seed in seeds:
        of_seed, runs = changed(base, {"seed": seed}), list[Run]()
        for name, changes in variants.items():
            config = changed(of_seed, changes(of_seed) if callable(changes) else changes)
            run = next((run for run in runs if run.config == config), None)
            if run is None:
                runs.append(run := Run(config, root / f"seed_{seed}" / name))
            all_runs[name, seed] = run
    return all_runs


def missing(runs: Iterable[Run]) -> list[list[Run]]:
    """The runs that are left, in order of need; those of one list can go on at the same time.

    Where several come to the same results of a stage, the first makes them, and the folders of the
    others lead there, as symbolic links.
    """
    runs = list(dict.fromkeys(runs))
    makers: dict[Hashable, Run] = {}
    every = [(run, stage) for run in runs for stage in run.stages.values() if _shares(run, stage)]
    for run, stage in sorted(every, key=lambda pair: not pair[0].is_made(pair[1])):
        makers.setdefault(_origin(run, stage), run)
    turn = dict.fromkeys(runs, 0)
    for run, stage in every:
        maker, folder = makers[_origin(run, stage)], run.folder / stage.name
        if maker is not run and not maker.is_made(stage):
            turn[run] = max(turn[run], turn[maker] + 1)
        if maker is not run and not os.path.lexists(folder):
            folder.parent.mkdir(parents=True, exist_ok=True)
            folder.symlink_to(os.path.relpath(maker.folder / stage.name, run.folder))
    left = [run for run in runs if not _is_finished(run)]
    waves = [[run for run in left if turn[run] == n] for n in range(1 + max(turn.values()))]
    return [wave for wave in waves if wave]


def _is_finished(run: Run) -> bool:
    return all(map(run.is_made, stages_run.chosen(run.stages, run.config, run.opened)))


def _shares(run: Run, stage: Stage) -> bool:
    return stage.name in STAGES and stage.name in run.config.stages


def _origin(run: Run, stage: Stage) -> Hashable:
    """What two runs have alike that come to the same results of a stage."""
    c = run.config
    more = () if stage.name == "data" else (c.procedure, c.seed, c.dtype)
    return stage, c.data, *more
