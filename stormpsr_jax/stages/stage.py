"""What defines a stage: all that the runner, the checks and the records need to know."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from stormpsr_jax.base.results import RECORD
from stormpsr_jax.data.clips import ClipSource
from stormpsr_jax.stages.context import Context, packaged_or_path
from stormpsr_jax.training import loop
from stormpsr_jax.training.checkpoint import BEST
from stormpsr_jax.training.definition import Definition

SPLITS = ("train", "val")  # what learns reads these
# Parts of a split that are no arrays of a source.
LABEL_FILES, FPS = "label files", "frames per second"
Check = Callable[[Context], Iterable[str]]


def _nothing(_: Any) -> tuple:
    return ()


@dataclasses.dataclass(frozen=True)
class Reads:
    """What a stage reads of some splits of the data, or of the procedure.

    Attributes:
        parts: "pictures", "states", "boxes", "visible", "poses", LABEL_FILES or FPS; of the
            procedure "states", "initial states", "variants of recordings" or "whole". A change of
            one of them makes the stage again. The number of components is read by all.
        splits: their names; none: of the procedure.
        source: what opens a split; ValueError if it cannot be read.
        owner: before the parts' names on record, where a stage reads a part from two sources.
    """

    parts: tuple[str, ...]
    splits: tuple[str, ...] = ()
    source: Callable[[Context, str], ClipSource] = Context.source
    owner: str = ""


@dataclasses.dataclass(frozen=True)
class Stage:
    """A stage of a run. Those that there are stand in `order.STAGES`.

    Attributes:
        name: its name in config.stages, and of its folder in WORKDIR.
        fields: fields of the config that it reads, or sections of them; "!" stands before one that
            is not on record, as it changes how the stage goes and not what comes out.
        run: makes its results; returns facts for its record. What trains alone has `build` instead.
        build: of a stage that trains: what it trains. Its results are trained weights, which are
            not thrown away unasked, and the config has a section of its name, with an optimizer.
        makes_data: whether it makes the data folder, which all later stages read.
        reads: the parts of the data and of the procedure that it reads.
        start: the field that names the file of weights which it starts from; "": there is none. Not
            the field is on record, but what is in the file.
        further: what else it is made from, {what: checksum}; the data are there, unless it makes
            them.
        after: the stages whose results it reads.
        results: the files in WORKDIR that later stages or people use, once it is finished, as
            patterns; by default the best weights of a stage that trains.
        check: what would cost hours, or give a wrong result unnoticed. All fields are in their
            ranges. If the data are there, their splits can be opened; where a stage makes them, it
            is asked again then. Process 0 alone comes here. May raise ValueError, too.
        show: prints what a finished run ends with.
    """

    name: str
    fields: tuple[str, ...]
    run: Callable[[Context], dict[str, Any]] | None = None
    build: Callable[[Context], Definition] | None = None
    start: str = ""
    makes_data: bool = False
    reads: Callable[[Context], Sequence[Reads]] = _nothing
    further: Callable[[Context], dict[str, Any]] = lambda _: {}
    after: Callable[[Context], tuple[Stage, ...]] = _nothing
    results: tuple[str, ...] = ()
    check: Check = _nothing
    show: Callable[[Context], None] | None = None

    @property
    def costly(self) -> bool:
        """Whether its results are trained weights."""
        return self.build is not None

    @property
    def folders(self) -> tuple[str, ...]:
        """The folders of WORKDIR that are its alone, with its record in the last one."""
        patterns = [] if any("/" not in pattern for pattern in self.results) else self.results
        others = dict.fromkeys(pattern.partition("/")[0] for pattern in patterns)
        return (*(name for name in others if name != self.name), self.name)

    def start_file(self, context: Context) -> Path | None:
        """The file of weights that it starts from; None: there is none.

        Raises:
            ValueError: it is in an extra that is not installed.
        """
        name = context.config
        for part in self.start.split(".") if self.start else ():
            name = name[part]
        return packaged_or_path(name) if self.start and name else None

    def is_chosen(self, context: Context) -> bool:
        """Whether a run has the stage; it makes no data where a finished folder is given."""
        return self.name in context.config.stages and not self.is_given(context)

    def is_given(self, context: Context) -> bool:
        """Whether it would make data that are there, and that this run has not made."""
        given = self.makes_data and context.config.data.dir and context.has_data
        return bool(given) and not (context.workdir / self.name / RECORD).exists()

    def make(self, context: Context) -> dict[str, Any]:
        """Makes its results; returns facts for its record."""
        if self.run:
            return self.run(context)
        assert self.build is not None, f"stage {self.name} has neither run nor build"
        return train_stage(context, self.name, self.build(context))

    def result_files(self, workdir: Path) -> list[Path]:
        """Its results, files in WORKDIR."""
        patterns = self.results or ((f"{self.name}/{BEST}",) if self.costly else ())
        return sorted({path for pattern in patterns for path in workdir.glob(pattern)})


def train_stage(context: Context, name: str, definition: Definition) -> dict[str, Any]:
    """Trains a stage in WORKDIR/name by the section of the config of that name."""
    section = context.config[name]
    return loop.train(
        context.workdir / name,
        definition,
        steps=section.steps,
        eval_every=section.eval_every,
        mesh=context.devices,
        rng=context.key(f"{name}/steps"),
        log_every=context.config.log_every,
        checkpoint_every=context.config.checkpoint_every,
        dtype=context.config.dtype,
        profile_steps=context.profile_steps,
    )
