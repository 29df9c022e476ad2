"""Stage `fuse`: fits the learned fusion on the validation split.

WORKDIR/fuse/fusion.json   the weights, as `evaluate --fusion` takes them
WORKDIR/fuse/folds.json    of each recording those that have not seen it, to choose thresholds by

With fuse.steps=0, with fewer recordings than folds, or where the fitted ones are no better on
recordings that they have not seen, the weights are those that ship with the package.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from stormpsr_jax.base import files
from stormpsr_jax.base.progress import Bar
from stormpsr_jax.configs import default as sections
from stormpsr_jax.psr.calibration import level, trust
from stormpsr_jax.psr.learned_beliefs import (
    Weights,
    default_weights,
    read_weights,
    write_weights,
)
from stormpsr_jax.psr.selection import MIN_RECORDINGS
from stormpsr_jax.recordings.scores import KINDS
from stormpsr_jax.stages.data import FPS, LABEL_FILES, Reads
from stormpsr_jax.stages.predict import Prediction, read_split
from stormpsr_jax.stages.stage import Run, Stage
from stormpsr_jax.training import learned_fusion

LEARNING_RATE, DECAY = 3e-3, 0.02  # as of weights that are nearly right
WEIGHTS, FOLDS = "fusion.json", "folds.json"


@dataclasses.dataclass(frozen=True, eq=False)
class Fusion:
    """The weights of the learned fusion that the stage has left.

    Attributes:
        weights: to recognise with.
        folds: weights that have not seen some recordings.
        recordings: by name, the place in `folds`; empty if the weights are not fitted.
    """

    weights: Weights
    folds: tuple[Weights, ...]
    recordings: Mapping[str, int]

    def held_out(self, name: str) -> Weights:
        """Weights that have not seen a recording."""
        if not self.folds:
            return self.weights
        if name not in self.recordings:
            raise ValueError(f"{FOLDS} does not have recording {name}; run stage 'fuse' again")
        return self.folds[self.recordings[name]]


@dataclasses.dataclass(frozen=True)
class FusionFit(Stage):
    """Fits the learned fusion: WORKDIR/fuse/fusion.json and folds.json."""

    name = "fuse"
    results = (f"fuse/{WEIGHTS}", f"fuse/{FOLDS}")

    fuse: sections.Fuse
    predict: Prediction

    def make(self, run: Run) -> dict[str, Any]:
        """Fits the weights, if there are recordings enough; notes their number and held-out losses.

        MemoryError if the recordings are too long together.
        """
        if jax.process_index() != 0:
            return {}
        config, folder = self.fuse, run.workdir / "fuse"
        recordings = {
            name: r for name, r in read_split(run, "val", scored=True).items() if len(r.frames)
        }
        catalogue = run.procedure.states
        examples = [
            learned_fusion.Example(
                r.scores, r.states_at(r.scores.frames), r.variant.initial_state, catalogue
            )
            for r in recordings.values()
            if r.scores is not None  # which stage `predict` leaves for this one
        ]
        kinds = {example.scores.kind for example in examples}
        kind = kinds.pop() if len(kinds) == 1 else "csv"
        folder.mkdir(parents=True, exist_ok=True)
        start = default_weights(kind, config.world)
        if (taught := self.predict.taught(run)) is not None:
            found = level(example.scores for example in examples)
            start = dataclasses.replace(start, trust=trust(found, taught))
        if not config.steps:
            _ship(folder, start, "fuse.steps=0")
            return {"recordings": 0}
        least = max(MIN_RECORDINGS, learned_fusion.FOLDS)
        if len(recordings) < least:
            num = len(recordings)
            few = f"{num} validation recordings with labelled states are fewer than {least}"
            _ship(folder, start, few)
            return {"recordings": 0}
        total = learned_fusion.num_steps(config.steps, start)
        with Bar(total=total, desc="fuse", unit="step") as bar:
            fitted = learned_fusion.fit(
                examples,
                run.data.source("val").fps,
                start=start,
                steps=config.steps,
                learning_rate=LEARNING_RATE,
                decay=DECAY,
                seed=run.config.seed,
                progress=bar.update,
            )
        losses = {"loss_before": fitted.before, "loss_after": fitted.after}
        facts = {"recordings": len(examples), **losses}
        if not fitted.after < fitted.before:
            why = "fitted weights are no better on recordings that they have not seen"
            _ship(folder, start, why)
            return facts | {"recordings": 0}
        folds = list({id(w): w for w in fitted.held_out}.values())
        places = {name: folds.index(w) for name, w in zip(recordings, fitted.held_out, strict=True)}
        content = {"recordings": places, "folds": [weights.to_json() for weights in folds]}
        files.write_json(folder / FOLDS, content)
        write_weights(folder / WEIGHTS, fitted.weights)
        return facts

    def reads(self, run: Run) -> list[Reads]:
        """Labels, and what beliefs begin with."""
        parts = ("initial states", "states", "variants of recordings")
        return [Reads((LABEL_FILES, FPS), ("val",)), Reads(parts)]

    def files(self, run: Run) -> dict[str, str]:
        """The weights that ship."""
        world = self.fuse.world
        return {
            f"default weights of kind {kind}": default_weights(kind, world).checksum
            for kind in KINDS
        }

    def check(self, run: Run) -> list[str]:
        """Says whether there is anything to weigh."""
        temporal = self.predict.temporal
        if temporal and (self.predict.detector or temporal.temporal.state_loss):
            return []
        return [
            "stages has 'fuse', which weighs what 'temporal' says, and 'detector' where it is "
            "there; add one of them, or set temporal.state_loss, or leave it out"
        ]


def _ship(folder: Path, weights: Weights, why: str) -> None:
    print(f"fuse: {why}: the weights that ship with the package", flush=True)
    files.write_json(folder / FOLDS, {"recordings": {}, "folds": []})
    write_weights(folder / WEIGHTS, weights)


def read(folder: Path) -> Fusion:
    """Reads what the stage has left in its folder, whose checksums the runner has compared."""
    data = files.read_json(folder / FOLDS)
    folds = tuple(Weights.from_json(one, str(folder / FOLDS)) for one in data["folds"])
    return Fusion(read_weights(folder / WEIGHTS), folds, data["recordings"])
