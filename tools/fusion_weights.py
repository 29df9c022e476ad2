"""Fits the weights of the learned fusion that ship with the package, on finished runs.

    python -m tools.fusion_weights runs/seed0 runs/seed1 --out=stormpsr_jax/pretrained
    python -m tools.fusion_weights --drawn=600 --out=stormpsr_jax/pretrained

Takes the validation recordings of every run (--splits names others; never one that results are
reported on) and writes fusion_scores.json and fusion_csv.json: of the networks' scores, and of what
prediction files hold. --kinds names others: `clips` is of the temporal network alone, as models
without boxes have it. The runs are of one frame rate. Prints the loss on recordings that were held
out, at the start and at the end. Of a recording the first MAX_ROWS pictures count.

Workers make few mistakes, so such recordings teach little of what wrong parts look like to the
networks. With --rehearsals=N the weights are fitted to N more of every run, of config `synthetic`,
in which every other part is put on wrong first (RUN/rehearsed; none that a network has seen), and
then, as stage `fuse` does it, to the others, in which mistakes are as rare as they are.

Without runs it writes fusion_detections.json: of detections alone, fitted to --drawn recordings
that are drawn at random, as wrong as a real detector's (`tools/drawn_detections.py`).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from data_prep import synthetic
from data_prep.products.product import toy_product
from data_prep.rendering import ranges
from data_prep.worlds.worlds import WORLDS
from data_prep.writing import shards
from stormpsr_jax.base import files
from stormpsr_jax.base.progress import Bar
from stormpsr_jax.configs import default
from stormpsr_jax.psr.learned_beliefs import write_weights
from stormpsr_jax.recordings.evaluation_set import LabelledPredictions, load_recordings
from stormpsr_jax.recordings.procedure import Procedure, load_procedure
from stormpsr_jax.recordings.scores import Scores, from_predictions
from stormpsr_jax.stages import config_flag, fuse, order
from stormpsr_jax.stages.run import run_of
from stormpsr_jax.training import learned_fusion
from stormpsr_jax.training.devices import make_mesh
from tools import drawn_detections

STAGES = ("pretrain", "temporal", "detector")
OF_RUNS = ("workdir", "out", "kinds", "splits", "rehearsals", "steps", "batch", "units")
# Rows of a recording, and of drawn ones, as padding costs what the longest does; noise on the
# inputs of drawn ones.
MAX_ROWS, DRAWN_ROWS, NOISE = 1200, 500, 0.05


def read_run(
    workdir: Path, splits: list[str]
) -> tuple[Procedure, float, list[LabelledPredictions]]:
    """The procedure of a finished run, its frames per second, and recordings with scores."""
    model = files.read_json(workdir / "model" / "model.json")
    config = json.loads((workdir / "config.json").read_text())
    procedure = Procedure.from_json(model["procedure"])
    data = Path(config["data"]["dir"] or workdir / "data")
    return procedure, model["fps"], read_recordings(procedure, data, workdir, splits)


def rehearse(workdir: Path, count: int) -> list[LabelledPredictions]:
    """Renders rehearsals of a run's product and lets its networks look at them."""
    out = workdir / "rehearsed"
    config = ConfigDict(json.loads((workdir / "config.json").read_text()))
    procedure, made = load_procedure(config.procedure), config.data.synthetic
    product = toy_product(ranges.streams(made.seed, "product")[0])
    told = {name: made[name] for name in ("seed", "occlusion", "size")}
    told |= {"error_recordings_step": 1, "world": WORLDS[made.world]}
    shards.build(
        out / "data",
        procedure=procedure,
        image_size=(made.size, made.size),
        splits={"test": [f"rehearsal_{i:03d}" for i in range(count)]},
        make=synthetic.Recipe(procedure, product, **told).make,
        workers=2,
    )
    for stage in STAGES:
        if not (out / stage).exists():
            (out / stage).symlink_to((workdir / stage).resolve())
    config.update(stages=("pretrain", "temporal", "detector", "predict"))
    config.predict.splits, config.data.dir = ("test",), str(out / "data")
    values = config_flag.typed(config)
    order.stages(values)["predict"].make(run_of(values, out, make_mesh(1, 1)))
    return read_recordings(procedure, out / "data", out, ["test"])


def read_recordings(
    procedure: Procedure, data: Path, workdir: Path, splits: list[str]
) -> list[LabelledPredictions]:
    """Recordings of a data folder with what a run has predicted of them, if they have states."""
    recordings = []
    for split in splits:
        predicted = workdir / "predictions" / split
        loaded = load_recordings(
            procedure,
            data / "labels" / split,
            predicted / "asd",
            predicted / "temporal",
            scores_dir=predicted / "scores",
        )
        recordings += [r for r in loaded.values() if len(r.frames)]
    return recordings


def examples_of(
    recordings: list[LabelledPredictions], kind: str, procedure: Procedure
) -> list[learned_fusion.Example]:
    """What weights of a kind are fitted to."""
    examples = []
    for r in recordings:
        scores = r.scores
        if kind == "clips":
            scores = Scores(scores.frames, None, None, None, scores.temporal)
        elif kind != "scores":
            scores = from_predictions(r.detections, r.temporal, procedure)
        arrays = scores.arrays.each(lambda array: array[:MAX_ROWS])
        scores = Scores(scores.frames[:MAX_ROWS], *arrays)
        initial, states = r.variant.initial_state, r.states_at(scores.frames)
        examples.append(learned_fusion.Example(scores, states, initial, procedure.states))
    return examples


def fit_drawn(args: argparse.Namespace) -> None:
    """Fits weights for detections alone, and writes them."""
    procedure, rng = load_procedure("industreal"), np.random.default_rng(args.seed)
    variants = list(procedure.variants.values())
    recordings = [
        drawn_detections.draw(procedure, variants[i % len(variants)], rng, max_rows=DRAWN_ROWS)
        for i in range(args.drawn)
    ]
    examples = examples_of(recordings, "detections", procedure)
    total = learned_fusion.num_steps(args.steps, None)
    with Bar(total=total, desc="detections", unit="step") as bar:
        fitted = learned_fusion.fit(
            examples,
            procedure.fps,
            units=args.units,
            steps=args.steps,
            batch=args.batch,
            noise=NOISE,
            seed=args.seed,
            progress=bar.update,
        )
    print(f"detections: {len(examples)} recordings, {fitted.before:.4f} → {fitted.after:.4f}")
    write_weights(args.out / "fusion_detections.json", fitted.weights)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workdir", nargs="*", type=Path, help="finished runs")
    parser.add_argument("--out", type=Path, required=True, help="folder of the files")
    parser.add_argument("--splits", default="val", help="as val,train (%(default)s)")
    parser.add_argument("--steps", type=int, default=2000, help="of each fit (%(default)s)")
    parser.add_argument("--batch", type=int, default=24, help="recordings a step (%(default)s)")
    parser.add_argument("--units", type=int, default=8, help="(%(default)s)")
    parser.add_argument("--kinds", default="scores,csv", help="of runs (%(default)s)")
    parser.add_argument("--drawn", type=int, default=600, help="without runs (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn (%(default)s)")
    parser.add_argument("--rehearsals", type=int, default=0, help="further ones of each run (0)")
    args = parser.parse_args()
    if not args.workdir:
        fit_drawn(args)
        return
    try:
        fit_runs(**{name: value for name, value in vars(args).items() if name in OF_RUNS})
    except ValueError as error:
        parser.error(str(error))


def fit_runs(
    workdir: Sequence[Path],
    out: Path,
    kinds: str,
    splits: str = "val",
    rehearsals: int = 0,
    steps: int = 2000,
    batch: int = 24,
    units: int = 8,
) -> None:
    """Fits weights of kinds to runs, and writes them; ValueError for runs of several rates."""
    out.mkdir(parents=True, exist_ok=True)
    runs = [read_run(folder, splits.split(",")) for folder in workdir]
    fps = runs[0][1]
    if others := [str(w) for w, run in zip(workdir, runs, strict=True) if run[1] != fps]:
        raise ValueError(f"{others[0]}: is of another frame rate than {workdir[0]}")
    rehearsed = [rehearse(folder, rehearsals) if rehearsals else [] for folder in workdir]
    for kind in kinds.split(","):
        examples, more = [], []
        for (procedure, _, recordings), further in zip(runs, rehearsed, strict=True):
            examples += examples_of(recordings, kind, procedure)
            more += examples_of(further, kind, procedure)
        with Bar(total=learned_fusion.num_steps(steps, None), desc=kind, unit="step") as bar:
            fitted = learned_fusion.fit(
                examples + more, fps, units=units, steps=steps, batch=batch, progress=bar.update
            )
        print(
            f"{kind}: {len(examples + more)} recordings, {fitted.before:.4f} → {fitted.after:.4f}"
        )
        if more:
            fitted = learned_fusion.fit(
                examples,
                fps,
                start=fitted.weights,
                steps=default.get_config().fuse.steps,
                batch=batch,
                learning_rate=fuse.LEARNING_RATE,
                decay=fuse.DECAY,
            )
            print(f"{kind}: {len(examples)} of them, {fitted.before:.4f} → {fitted.after:.4f}")
        # Networks without outputs of single parts still give the weights that fit them best.
        path = out / f"fusion_{kind}.json"
        write_weights(path, dataclasses.replace(fitted.weights, kind=kind))


if __name__ == "__main__":
    main()
