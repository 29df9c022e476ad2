"""Runs that belong together: each in a work folder of its own, with what they can share."""

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

# What differs from a config, as {field: value}, or what says it of the config.
Changes = Mapping[str, Any] | Callable[[ConfigDict], Mapping[str, Any]]


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """One run of `stormpsr_jax.main`.

    Attributes:
        config: of it, which names the data folder that it shares with others.
        folder: its work folder. What it prints is beside it, in <folder>.log.
    """

    name: str
    config: ConfigDict
    folder: Path

    @property
    def context(self) -> Context:
        """A context to look at what is there, which takes no devices."""
        return Context(self.config, self.folder, mesh=None)

    @property
    def log(self) -> Path:
        """The file of what the run prints."""
        return self.folder.with_name(f"{self.folder.name}.log")

    def flags(self, others: Iterable[Path] = ()) -> list[str]:
        """The flags of `stormpsr_jax.main` that make the run with stages of other work folders."""
        usual = provenance.flat_config(default.get_config())
        words = [f"--config={default.__file__}", f"--workdir={self.folder}"]
        words += [f"--from={','.join(map(str, others))}"] if (others := list(others)) else []
        return words + [
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

    Where variants come to the same config, all have the run of the first one. Where they render
    data of their own, those that render the same share them.

    Args:
        variants: by name for people, what differs in the config of a seed.
        seeded: the fields that have the seed.
    """
    found: dict[tuple[str, int], Run] = {}
    for seed in seeds:
        of_seed, runs = changed(base, dict.fromkeys(seeded, seed)), list[Run]()
        for name, changes in variants.items():
            config = changed(of_seed, changes(of_seed) if callable(changes) else changes)
            if not config.data.dir:
                rendered = config.data.synthetic.to_json(sort_keys=True)
                rendered += config.procedure if config.procedure != base.procedure else ""
                config = changed(config, {"data.dir": str(root / f"data_{_digest(rendered)}")})
            run = next((run for run in runs if run.config == config), None)
            if run is None:
                folder = root / f"seed_{seed}" / _folder(name)
                runs.append(run := Run(f"{name}, seed {seed}", config, folder))
            found[name, seed] = run
    return found


def _folder(name: str) -> str:
    folder = re.sub(r"[^\w.=+-]+", "_", name)
    # Another name may come to the same.
    return folder if folder == name.replace(", ", "_") else f"{folder}_{_digest(name)}"


def _digest(text: str) -> str:
    """A name for a text that stays when others come."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def stages_to_make(run: Run) -> list[str]:
    """The stages of a run that are not finished, or were made from something else."""
    context = run.context
    to_make: list[str] = []
    for stage in order.chosen(context):
        again = any(other.name in to_make for other in stage.after(context))
        if again or not remaking.is_made(context, stage):
            to_make.append(stage.name)
    return to_make


def expected_stages(runs: Sequence[Run], others: Iterable[Path] = ()) -> dict[Run, list[str]]:
    """By run the stages that are left to make if all runs go well, one after the other."""
    others = list(others)
    made: set[str] = set()
    found = {}
    for run in runs:
        left = {stage.name for stage in order.chosen(run.context)}
        for folder in (run.folder, *others):
            if folder.is_dir():
                there = dataclasses.replace(run, folder=folder)
                stays = [s.name for s in order.STAGES if folder != run.folder and not s.taken_over]
                left -= left.difference(stages_to_make(there), stays)
        made_of = identities(run)
        found[run] = [
            stage.name
            for stage in order.chosen(run.context)
            if stage.name in left
            and not ((stage.taken_over or stage.makes_data) and made_of[stage.name] in made)
        ]
        made |= set(made_of.values())
    return found


def identities(run: Run) -> dict[str, str]:
    """By stage what it is made from, without looking at anything on the disk."""
    config = changed(run.config, {"data.dir": ""})
    context = Context(config, run.folder / "nothing", mesh=None)
    data = run.config.data
    # The names of that of which made_from has checksums.
    places = (config.procedure, data.dir, data.cad_dir, data.detector_dir, data.extra)
    found: dict[str, str] = {}
    for stage in order.chosen(context):
        fields = sorted(provenance.fields(config, stage, free=True).items())
        before = [found.get(other.name) for other in stage.after(context)]
        found[stage.name] = repr((stage.name, places, fields, before))
    return found
