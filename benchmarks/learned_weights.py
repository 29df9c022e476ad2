"""Fits the weights of the learned fusion that ship with the package, on finished runs.

    python benchmarks/learned_weights.py runs/seed0 runs/seed1 --out=stormpsr_jax/pretrained

Takes the validation recordings of every run (--splits names others; never one that results are
reported on) and writes fusion_scores.json and fusion_csv.json: of the networks' scores, and of what
prediction files hold. The runs are of one procedure. Prints the loss on recordings that were held
out, at the start and at the end.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path

from stormpsr_jax import files
from stormpsr_jax.progress import Bar
from stormpsr_jax.psr.learned_weights import write_weights
from stormpsr_jax.psr.procedure import Procedure
from stormpsr_jax.psr.recordings import LabelledPredictions, load_recordings
from stormpsr_jax.psr.scores import KINDS, from_predictions
from stormpsr_jax.training import fusion


def read_run(
    workdir: Path, splits: list[str]
) -> tuple[Procedure, float, list[LabelledPredictions]]:
    """The procedure of a finished run, its frames per second, and recordings with scores."""
    model = files.read_json(workdir / "model" / "model.json")
    config = json.loads((workdir / "config.json").read_text())
    procedure = Procedure.from_json(model["procedure"])
    recordings = []
    for split in splits:
        predicted = workdir / "predictions" / split
        found = load_recordings(
            procedure,
            Path(config["data"]["dir"] or workdir / "data") / "labels" / split,
            predicted / "asd",
            predicted / "temporal",
            scores_dir=predicted / "scores",
        )
        recordings += [r for r in found.values() if len(r.frames)]
    return procedure, model["fps"], recordings


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workdir", nargs="+", type=Path, help="finished runs")
    parser.add_argument("--out", type=Path, required=True, help="folder of the two files")
    parser.add_argument("--splits", default="val", help="as val,train (%(default)s)")
    parser.add_argument("--steps", type=int, default=2000, help="of each fit (%(default)s)")
    parser.add_argument("--units", type=int, default=8, help="(%(default)s)")
    args = parser.parse_args()
    recordings: list[LabelledPredictions] = []
    known = None
    for workdir in args.workdir:
        procedure, fps, found = read_run(workdir, args.splits.split(","))
        if known not in (None, (procedure, fps)):
            parser.error(f"{workdir}: is of another procedure or frame rate than those before")
        known = procedure, fps
        recordings += found
    for kind in KINDS:
        examples = []
        for r in recordings:
            scores = r.scores
            if kind == "csv":
                scores = from_predictions(r.detections, r.temporal, procedure)
            initial, states = r.variant.initial_state, r.states_at(scores.frames)
            examples.append(fusion.Example(scores, states, initial))
        total = fusion.num_steps(args.steps, None)
        with Bar(total=total, desc=kind, unit="step") as bar:
            fitted = fusion.fit(
                examples,
                procedure,
                fps=fps,
                units=args.units,
                steps=args.steps,
                progress=bar.update,
            )
        path = args.out / f"fusion_{kind}.json"
        # Networks without outputs of single parts still give the weights that fit them best.
        write_weights(path, dataclasses.replace(fitted.weights, kind=kind))
        print(f"{path}: {len(examples)} recordings, {fitted.before:.4f} → {fitted.after:.4f}")


if __name__ == "__main__":
    main()
