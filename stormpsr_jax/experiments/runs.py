"""Runs that belong together, each in a work folder of its own; recordings are rendered once."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from stormpsr_jax.configs import default
from stormpsr_jax.stages import order, provenance, remaking
from stormpsr_jax.stages.context import Context

DATA = "data"  # the stage that renders, and its folder
# What differs from a config, as {field: value}, or what says it of the config.
Changes = Mapping[str, Any] | Callable[[ConfigDict], Mapping[str, Any]]


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """One run of `stormpsr_jax.main`.

    Attributes:
        folder: its work folder. What it prints is beside it, in <folder>.log.
        renders: the run that renders its recordings before; None if they are there.
    """

    name: str
    config: ConfigDict
    folder: Path
    renders: Run | None = None

    @property
    def context(self) -> Context:
        """A context to look at what is there, which takes no devices."""
        return Context(self.config, self.folder, mesh=None)

    @property
    def log(self) -> Path:
        """The file of what the run prints."""
        return self.folder.with_name(f"{self.folder.name}.log")

    @property
    def command(self) -> list[str]:
        """The words of the command that makes it, after `python`."""
        usual = provenance.flat_config(default.get_config())
        words = ["-m", "stormpsr_jax.main", f"--config={default.__file__}"]
        return [*words, f"--workdir={self.folder}"] + [
            f"--config.{field}={tuple(value) if isinstance(value, list) else value}"
            for field, value in provenance.flat_config(self.config).items()
            if value != usual[field]
        ]


def changed(base: ConfigDict, changes: Mapping[str, Any]) -> ConfigDict:
    """A copy of a config with other values of some fields, {field: value}."""
    config = base.copy_and_resolve_references()
    config.update_from_flattened_dict(dict(changes))
    return config


def planned(
    base: ConfigDict,
    variants: Mapping[str, Changes],
    root: Path,
    seeds: Iterable[int],
    seeded: Sequence[str] = ("seed",),
) -> dict[tuple[str, int], Run]:
    """The runs of some variants, by (variant, seed), in the order to make them in.

    Where variants come to the same config, all have the run of the first one. Those that render the
    same recordings share them.

    Args:
        variants: by name for people, what differs in the config of a seed.
        seeded: the fields that have the seed.
    """
    found: dict[tuple[str, int], Run] = {}
    rendering: dict[Path, Run] = {}
    for seed in seeds:
        of_seed, runs = changed(base, dict.fromkeys(seeded, seed)), list[Run]()
        for name, changes in variants.items():
            config = changed(of_seed, changes(of_seed) if callable(changes) else changes)
            renders = None
            if DATA in config.stages:
                alone = changed(config, {"stages": (DATA,)})
                what = config.data.dir + config.data.synthetic.to_json(sort_keys=True)
                what += config.procedure if config.procedure != base.procedure else ""
                folder = root / f"data_{_digest(what)}"
                renders = rendering.setdefault(folder, Run(folder.name, alone, folder))
                stages = tuple(stage for stage in config.stages if stage != DATA)
                place = config.data.dir or str(folder / DATA)
                config = changed(config, {"stages": stages, "data.dir": place})
            run = next((run for run in runs if run.config == config), None)
            if run is None:
                folder = root / f"seed_{seed}" / _folder(name)
                runs.append(run := Run(f"{name}, seed {seed}", config, folder, renders))
            found[name, seed] = run
    return found


def _folder(name: str) -> str:
    folder = re.sub(r"[^\w.=+-]+", "_", name)
    # Another name may come to the same.
    return folder if folder == name.replace(", ", "_") else f"{folder}_{_digest(name)}"


def _digest(text: str) -> str:
    """A name for a text that stays when others come."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def missing(runs: Iterable[Run]) -> tuple[list[Run], list[Run]]:
    """Those of the runs that have not gone to their end, and before them those that render."""
    left = [run for run in dict.fromkeys(runs) if not _is_made(run)]
    rendering = dict.fromkeys(run.renders for run in left if run.renders is not None)
    return [run for run in rendering if not _is_made(run)], left


def _is_made(run: Run) -> bool:
    context = run.context
    return all(remaking.is_made(context, stage) for stage in order.chosen(context))
