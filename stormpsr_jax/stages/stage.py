"""What defines a stage: all that the runner, the checks and the records need to know."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from stormpsr_jax.data.clips import ClipSource
from stormpsr_jax.data.features import FeatureSource
from stormpsr_jax.stages.context import Context
from stormpsr_jax.training.checkpoint import BEST
from stormpsr_jax.training.definition import Definition

SPLITS = ("train", "val")  # what learns reads these
# Parts of a split that are no part of a source; see `checksums.DataChecksums` for the others.
LABELS, LABEL_FILES = "labels", "label files"
Check = Callable[[Context], Iterable[str]]


def _nothing(_: Any) -> tuple:
    return ()


@dataclasses.dataclass(frozen=True)
class Reads:
    """What a stage reads of some splits of the data.

    Attributes:
        parts: "pictures", "states", "boxes", "visible", "poses", LABELS or LABEL_FILES. A change
            of one of them makes the stage again.
        splits: their names.
        source: what opens a split; ValueError if it cannot be read.
        owner: before the parts' names on record, where a stage reads a part from two sources.
    """

    parts: tuple[str, ...]
    splits: tuple[str, ...]
    source: Callable[[Context, str], ClipSource | FeatureSource] = Context.source
    owner: str = ""


@dataclasses.dataclass(frozen=True)
class Stage:
    """A stage of a run. Those that there are stand in `order.STAGES`.

    Attributes:
        name: its name in config.stages, and of its folder in WORKDIR.
        fields: fields of the config that it reads, or sections of them.
        run: makes its results; returns facts for its record. What trains alone has `build` instead.
        build: of a stage that trains: what it trains. Its results are trained weights, which are
            not thrown away unasked, and the config has a section of its name, with an optimizer.
        free: patterns of fields that change how it goes and not what comes out.
        file_fields: fields that name a file that it reads, if they name any.
        makes_data: whether it makes the data folder, which all later stages read.
        reads: the parts of the data that it reads.
        further: what else it is made from, {what: JSON value}; the data are there, unless it makes
            them.
        procedure: the parts of the procedure that it reads; see `provenance.made_from`.
        after: the stages whose results it reads.
        results: the files in WORKDIR that later stages or people use, once it is finished; by
            default the best weights of a stage that trains.
        folders: the folders of WORKDIR besides its own that it leaves results in.
        taken_over: whether another run can link to what it has made.
        check: what would cost hours, or give a wrong result unnoticed. All fields are in their
            ranges. If the data are there, their splits can be opened; where a stage makes them, it
            is asked again then. May raise ValueError, too.
        damage: what is wrong with its results besides their checksums.
        show: prints what a finished run ends with.
    """

    name: str
    fields: tuple[str, ...]
    run: Callable[[Context], dict[str, Any]] | None = None
    build: Callable[[Context], Definition] | None = None
    free: tuple[str, ...] = ()
    file_fields: tuple[str, ...] = ()
    makes_data: bool = False
    reads: Callable[[Context], Sequence[Reads]] = _nothing
    further: Callable[[Context], dict[str, Any]] = lambda _: {}
    procedure: tuple[str, ...] = ("number of components",)
    after: Callable[[Context], tuple[Stage, ...]] = _nothing
    results: Callable[[Path], Iterable[Path]] | None = None
    folders: tuple[str, ...] = ()
    taken_over: bool = True
    check: Check = _nothing
    damage: Callable[[Context], list[str]] = lambda _: []
    show: Callable[[Context], None] | None = None

    @property
    def costly(self) -> bool:
        """Whether its results are trained weights."""
        return self.build is not None

    def is_chosen(self, context: Context) -> bool:
        """Whether a run has the stage."""
        return self.name in context.config.stages

    def make(self, context: Context) -> dict[str, Any]:
        """Makes its results; returns facts for its record."""
        if self.run:
            return self.run(context)
        assert self.build is not None, f"stage {self.name} has neither run nor build"
        return context.train(self.name, self.build(context))

    def result_files(self, workdir: Path) -> list[Path]:
        """Its results, files in WORKDIR."""
        if self.results:
            return [*self.results(workdir)]
        return [workdir / self.name / BEST] if self.costly else []
