"""What the record of a stage says that it was made from, beside what it is made from now.

Of the code of the package one checksum is kept, which makes nothing again by itself.
"""

import functools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax
import msgspec

import stormpsr_jax
from stormpsr_jax.base import installed, results
from stormpsr_jax.base.results import MadeFrom, Record
from stormpsr_jax.configs import default as default_config
from stormpsr_jax.stages.config_flag import flat


def changes(record: Record, now: MadeFrom) -> list[str]:
    """Says in what a stage was made from something else, for people; code makes no difference."""
    if damage := record.facts.get("damage"):
        return [damage]
    # A field that a record lacks is newer than it: what was done then is its default. One that it
    # has and its stage takes no more was another stage's, whose result tells.
    known = record.made_from.get("config", {})
    before = {f: known.get(f, _defaults().get(f)) for f in now["config"]}
    return results.differences({**record.made_from, "config": before}, now)


@functools.cache
def _defaults() -> dict[str, Any]:
    return flat(default_config.get_config())


def is_of_other_code(record: Record) -> bool:
    """Whether other code of the package made a stage."""
    return record.made_from.get("package", {}).get("digest") != package()["digest"]


def environment() -> dict[str, Any]:
    """What a run computes with: versions, the kind of device, and the commit of a clone.

    The commit is None of an installation, and says where files of the packages were changed since.
    """
    device = jax.devices()[0]
    kind = f"{jax.device_count()} x {device.device_kind} ({device.platform})"
    return {**installed.versions(), "device": kind, "commit": installed.commit()}


def package() -> dict[str, str]:
    """The version of the package, and the checksum of its code."""
    return {"version": stormpsr_jax.__version__, "digest": installed.code()}


def trainings(workdir: Path, stages: Iterable[str]) -> dict[str, list[dict[str, Any]]]:
    """By stage the trainings behind the weights of some, those of the stages before them too."""
    found: dict[str, Any] = {}
    left = [*stages]
    while left:
        name = left.pop()
        record = results.found(workdir / name)
        if name not in found and record is not None:
            found[name] = msgspec.to_builtins(record.trained)
            left += record.made_from.get("stages", {})
    return {name: trained for name, trained in sorted(found.items()) if trained}
