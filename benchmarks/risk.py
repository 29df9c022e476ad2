"""Incorrect installations accepted against correct ones without a verdict, over the bars of risk.

    python -m benchmarks.risk RUN… [--further=60] [--wrong=0.25] [--corrected=0.5] [--record=risk]
    python -m benchmarks.risk --plot

RUN are work folders of finished runs with a learned fusion, or "demo", the model that ships.
RUNS/WORLD_SEED, as runs/toy_5001, is trained first if it is not there: config `synthetic`, or that
of --config, in this world with this seed. Scores the test split of each
run and, with --further, so many more recordings in its world, rendered here,
in which each part is installed incorrectly first with the chance --wrong, and corrected with the
chance --corrected, of which --later come some steps later. All are decoded with the weights of the
learned fusion of --kinds: those that ship, or with --fit=DIR those that are fitted to
the runs' validation recordings first (`tools.fusion_weights`), and kept in DIR. Prints the table of
each and of all together: what is seen (no bar), and what is right at each bar, of which the
accepted share of all is `risk.priors`; what the alerts of incorrect installations come to at the
default risk, by recording; and the weights of a part's evidence that fit these recordings best
(`evidence.EVIDENCE`). Tables "as decided" are of the weights and the bar that each run has chosen.
--record keeps the tables in benchmarks/results; --plot draws docs/risk.webp from the results that
are kept as "risk".
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.figure
import numpy as np
import simplejpeg

from benchmarks import own_product, record
from data_prep import synthetic
from data_prep.products.product import toy_product
from data_prep.rendering import ranges
from data_prep.worlds.timelines import Habits
from data_prep.worlds.worlds import WORLDS
from stormpsr_jax.base import files
from stormpsr_jax.base.progress import Bar
from stormpsr_jax.psr import analysis, metrics, risk, wrong_parts
from stormpsr_jax.psr.events import reports
from stormpsr_jax.psr.evidence import Evidence, part_inputs, sigmoid
from stormpsr_jax.psr.learned_beliefs import Weights, default_weights, read_weights
from stormpsr_jax.psr.learned_events import LearnedSettings, removal_logits
from stormpsr_jax.psr.learned_stream import LEARNED
from stormpsr_jax.psr.monitor import Monitor
from stormpsr_jax.recordings.evaluation_set import LabelledPredictions
from stormpsr_jax.recordings.labels import states_to_steps
from stormpsr_jax.recordings.predictions import Detections, TemporalPredictions
from stormpsr_jax.recordings.procedure import Procedure
from stormpsr_jax.recordings.scores import KINDS, Scores, from_predictions
from stormpsr_jax.serving import frames
from stormpsr_jax.serving.folder import load_model
from stormpsr_jax.serving.model import Model
from stormpsr_jax.stages import fuse
from tools.fusion_weights import fit_runs, read_run

DEMO = "demo"
SIZE, SEED = 64, 9000  # pixels, of what is rendered here
OF_ERRORS = ("wrong part", "error state")  # kinds of alerts
PARTS = ("shown", "accepted", "unsure", "right_installations", "right_unsure", "no_verdict")
CALLS = ("right_called_wrong", "early")  # of what a run has decided


Recordings = dict[str, LabelledPredictions]


def recipe(model: Model, habits: Habits) -> synthetic.Recipe:
    """Of further recordings of the model's product in its world, whose people have these habits."""
    made, procedure = model.origin["config"], model.procedure.at(model.fps)
    product = toy_product(ranges.streams(made["data.synthetic.seed"], "product")[0])
    world = dataclasses.replace(WORLDS[made["data.synthetic.world"]], habits=habits)
    occlusion = made["data.synthetic.occlusion"]
    return synthetic.Recipe(procedure, product, SEED, occlusion, SIZE, world=world)


def seen_by(
    model: Model, rows: Sequence[np.ndarray], stream: str | None = None
) -> list[frames.Frame]:
    """What the model's networks say of pictures."""
    parts = frames.chunks(map(model.preparing(stream), rows), model.batch)
    return list(itertools.chain.from_iterable(model.frames(stream=stream).over(parts)))


def recognised(model: Model, rows: list[np.ndarray]) -> tuple[Scores, Detections]:
    """The scores and the top detections of a recording's pictures."""
    recordings = seen_by(model, rows, "learned")
    parts = [one.scores for one in recordings]
    arrays = (np.array(each, np.float32) for each in zip(*parts, strict=True))
    scores = Scores(np.arange(len(rows)), *arrays)
    seen = [(one.number, *one.top[:2]) for one in recordings if one.top is not None]
    frames, classes, confidences = (np.array(column) for column in zip(*seen, strict=True))
    return scores, Detections(frames, classes, confidences, np.zeros((len(frames), 4)))


def of_kind(r: LabelledPredictions, kind: str, procedure: Procedure) -> Scores:
    """What weights of a kind read of a recording with all scores."""
    K, scores = procedure.num_components, r.scores
    if kind == "scores":
        return scores
    if kind == "clips":
        return Scores(scores.frames, None, None, None, scores.temporal)
    windows = None
    if kind == "csv":
        none = np.zeros((len(scores.frames), K), int)
        windows = TemporalPredictions(scores.frames, none, none, sigmoid(scores.temporal[:, :K]))
    return from_predictions(r.detections, windows, procedure)


def further(name: str, count: int, changes: dict[str, float]) -> Recordings:
    """More recordings of a run's product, as its model sees them; `changes` of the habits."""
    model = load_model(name if name == DEMO else Path(name) / "model")
    world = WORLDS[model.origin["config"]["data.synthetic.world"]]
    draws = recipe(model, dataclasses.replace(world.habits, **changes))
    (variant,) = draws.procedure.variants.values()
    recordings: Recordings = {}
    with Bar(total=count, desc=name, unit="recording") as bar:
        for i in range(count):
            data = draws.make("test", f"further_{i:03d}")
            rows = [simplejpeg.decode_jpeg(jpeg) for jpeg in data.jpegs]
            first = np.r_[True, (np.diff(data.states, axis=0) != 0).any(axis=1)]
            frames, states = np.flatnonzero(first), data.states[first]
            steps = states_to_steps(frames, states)
            r = LabelledPredictions(data.name, variant, steps, states, frames=frames)
            r.scores, r.detections = recognised(model, rows)
            recordings[r.name] = r
            bar.update(1)
    return recordings


def evidence(procedure: Procedure, recordings: Recordings) -> np.ndarray:
    """The weights of a part's evidence that fit these recordings best, as `EVIDENCE` has them.

    Logistic regression, by Newton's method, of whether a part is right rather than incorrect on
    what is summed up since it was installed, at twelve moments of each installation.
    """
    rows, right = [], []
    settings, seconds = LEARNED.defaults(default_weights("scores")), 1 / procedure.fps
    for r in recordings.values():
        evidence = Evidence(r.variant.initial_state, removal_logits(r.variant, settings))
        says = []
        present = r.states_at(r.scores.frames) != 0
        for (_, seen), there in zip(r.scores.per_frame(), present, strict=True):
            says.append(evidence.weight(seen, there, seconds)[:, None] * part_inputs(seen))
        sums = np.cumsum(says, axis=0)
        for value in (1, -1):
            for k, start, end in wrong_parts.spans(r.frames, r.states, value):
                first, last = np.searchsorted(r.scores.frames, [start, min(end, 1e9)])
                if start > r.frames[0] and last > first:
                    at = np.unique(np.linspace(first, last - 1, 12).astype(int))
                    rows.append(sums[at, k] - sums[first - 1, k])
                    right += [value == 1] * len(at)
    x, y = np.concatenate(rows), np.array(right, float)
    weights = np.zeros(x.shape[1])
    for _ in range(50):
        p = sigmoid(x @ weights)
        curvature = (x * (p * (1 - p))[:, None]).T @ x + 1e-3 * np.eye(len(weights))
        weights += np.linalg.solve(curvature, x.T @ (y - p) - 1e-3 * weights)
    return weights


def rows_of(procedure: Procedure, recordings: Recordings, weights: Weights) -> list[dict[str, Any]]:
    """A row for what is seen, whose bar is None, and one per bar for what is right."""
    settings = LEARNED.defaults(weights)
    bars = LEARNED.bars(settings)
    if weights.kind != "scores":
        recordings = {
            name: dataclasses.replace(r, scores=of_kind(r, weights.kind, procedure))
            for name, r in recordings.items()
        }
    return scored(procedure, recordings, settings, weights, bars)


def scored(
    procedure: Procedure,
    recordings: Recordings,
    settings: LearnedSettings,
    weights: Weights,
    bars: Sequence[float],
    parts: Sequence[str] = PARTS,
) -> list[dict[str, Any]]:
    """A row for what is seen, whose bar is None, and one for what is right at each of `bars`.

    `parts`: which counts of installations a row has.
    """
    scored_rows: list[dict[str, Any]] = []
    decoded = {
        name: LEARNED.decode_each(
            procedure,
            r,
            [LEARNED.with_bar(settings, bar) for bar in (None, *bars)],
            weights,
        )
        for name, r in recordings.items()
    }
    for b, bar in enumerate((None, *bars)):
        scores, wrong = {}, []
        for name, r in recordings.items():
            events = decoded[name][b]
            sure = [event[:2] for event in reports(events)]
            unsure = [event[:2] for event in events if event.kind == "unsure"]
            steps = metrics.scored_steps(sure, r.with_errors)
            scores[name] = metrics.score_recording(r.truth, steps, procedure.fps)
            one = wrong_parts.score_recording(r.frames, r.states, sure, procedure.fps, unsure)
            wrong.append(one)
        whole, counts = metrics.summarise(scores), wrong_parts.summarise(wrong)
        low, high = wrong_parts.interval(counts["accepted"], counts["shown"])
        row = {"bar": bar, **{key: counts[key] for key in parts}}
        row |= {"accepted_low": low, "accepted_high": high}
        scored_rows.append(row | {key: whole[key] for key in ("pos", "f1", "delay_s")})
    return scored_rows


def train(run: Path, config: str) -> None:
    """Trains the run of a folder WORLD_SEED, unless it is finished."""
    if (run / "metrics.json").exists():
        return
    world, _, seed = run.name.partition("_")
    if world not in WORLDS or not seed.isdigit():
        raise SystemExit(f"{run}: no finished run; WORLD_SEED is trained: {', '.join(WORLDS)}")
    made = [f"--config.seed={seed}"]
    made += [f"--config.data.synthetic.{field}" for field in (f"world={world}", f"seed={seed}")]
    own_product.run("stormpsr_jax.main", f"--config={config}", *made, f"--workdir={run}")


def decided(run: Path, procedure: Procedure, recordings: Recordings) -> list[dict[str, Any]]:
    """The rows of a run's own weights and bar."""
    chosen = files.read_json(run / "metrics.json")["streams"][LEARNED.name]["settings"]
    settings, fusion = LearnedSettings(**chosen), fuse.read(run / "fuse")
    bars = () if settings.sure is None else (settings.sure,)
    return scored(procedure, recordings, settings, fusion.weights, bars, (*PARTS, *CALLS))


def alerts(procedure: Procedure, recordings: Recordings, weights: Weights) -> dict[str, int]:
    """Recordings with and without an incorrect installation, and how many of each are alerted."""
    settings = LEARNED.defaults(weights)
    settings = risk.decide(LEARNED, settings, risk.RISK, None, weights.prior).settings
    counts = dict.fromkeys(("with_errors", "alerted", "without_errors", "falsely_alerted"), 0)
    for r in recordings.values():
        monitor, kinds = Monitor(procedure, r.variant), set()
        events = reports(LEARNED.decode(procedure, r, settings, weights))
        detections = dict(r.detections.per_frame())
        wrong = LEARNED.beliefs(procedure, r, settings, weights).probabilities().wrong
        for frame, believed in zip(r.scores.frames.tolist(), wrong.tolist(), strict=True):
            steps = [event.step_id for event in events if event.frame == frame]
            kinds |= {
                a.kind for a in monitor.update(frame, steps, detections.get(frame, ()), believed)
            }
        alerted = bool(kinds & set(OF_ERRORS))
        error = bool((r.states < 0).any())
        counts["with_errors" if error else "without_errors"] += 1
        counts["alerted" if error else "falsely_alerted"] += alerted
    return counts


def together(rows: Sequence[Sequence[dict[str, Any]]], tests: Any) -> list[dict[str, Any]]:
    """The rows of all worlds as one table; F1, POS and delay of the rows of test splits."""
    sums = []
    for i, first in enumerate(rows[0]):
        row = {"bar": first["bar"], **{key: sum(its[i][key] for its in rows) for key in PARTS}}
        row["accepted_share"] = row["accepted"] / row["shown"]
        for key in ("f1", "pos", "delay_s"):
            values = [its[i][key] for its in tests if its[i][key] is not None]
            row[f"test_{key}"] = float(np.mean(values)) if values else None
        sums.append(row)
    return sums


def plot(measured: record.Tables) -> matplotlib.figure.Figure:
    """Incorrect ones accepted against correct ones without a verdict: of each model, and of all."""
    figure = matplotlib.figure.Figure((7, 3.5), layout="constrained")
    axes = figure.subplots()
    settings, named = LEARNED.defaults(default_weights("scores")), {None: " seen"}
    for asked in (0.2, 0.1, 0.05):
        chosen = risk.decide(LEARNED, settings, asked, None, "scores").settings
        named[chosen.sure] = f" R = {asked:g}"
    for title, rows in measured.items():
        _, _, of = title.partition("scores, ")
        if title != "all scores" and not of.endswith(", further"):
            continue  # a test split shows a dozen incorrect installations
        x = [100 * row["no_verdict"] / row["right_installations"] for row in rows]
        y = [100 * row["accepted"] / row["shown"] for row in rows]
        if of:
            axes.plot(x, y, lw=0.8, label=f"model {of.removesuffix(', further')}")
            continue
        axes.plot(x, y, "k.-", label="all together")
        for left, up, row in zip(x, y, rows, strict=True):
            if row["bar"] in named:
                axes.annotate(named[row["bar"]], (left, up), va="bottom")
    axes.set(xlabel="correct installations without a verdict, %")
    axes.set(ylabel="incorrect installations accepted, %", xlim=(0, None), ylim=(0, None))
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("runs", nargs="*", metavar="RUN")
    add("--config", default="synthetic", help="of runs that are trained here (%(default)s)")
    add("--further", type=int, default=0, help="recordings of each run's product (0)")
    for habit in ("wrong", "corrected", "later"):
        add(f"--{habit}", type=float, help="chance in these recordings; otherwise the world's")
    add("--kinds", nargs="+", choices=KINDS, default=["scores"], help="of weights that decode")
    add("--fit", type=Path, metavar="DIR", help="fit weights to the runs, and keep them here")
    add("--record", metavar="NAME", help="keep the tables in benchmarks/results")
    add("--plot", action="store_true", help="draw docs/risk.webp, and end")
    args = parser.parse_args()
    if args.plot:
        figure = plot(files.read_json(record.RESULTS / "risk.json")["tables"])
        figure.savefig(record.RESULTS.parents[1] / "docs" / "risk.webp", dpi=110)
        return
    if not args.runs:
        parser.error("name a RUN or demo, or --plot")
    for run in args.runs:
        if run != DEMO:
            train(Path(run), args.config)
    if args.fit:
        folders = [Path(run) for run in args.runs if run != DEMO]
        fit_runs(folders, args.fit, ",".join(args.kinds), rehearsals=24)
        weights = [read_weights(args.fit / f"fusion_{kind}.json") for kind in args.kinds]
    else:
        weights = [default_weights(kind) for kind in args.kinds]
    measured: dict[str, list[dict[str, Any]]] = {"alerts": []}
    for run in args.runs:
        worlds, name, trained = {}, Path(run).name, {}
        if run == DEMO:
            model = load_model(run)
            procedure = model.procedure.at(model.fps)
        else:
            procedure, fps, measured_rows = read_run(Path(run), ["test"])
            fused = fuse.read(Path(run) / "fuse").weights
            trained = {"trust": fused.trust, "world": fused.world}
            procedure = procedure.at(fps)
            worlds[f"{name}, test"] = {r.name: r for r in measured_rows}
        if args.further:
            habits = {key: getattr(args, key) for key in ("wrong", "corrected", "later")}
            changes = {key: value for key, value in habits.items() if value is not None}
            worlds[f"{name}, further"] = further(run, args.further, changes)
        for world, recordings in worlds.items():
            print(f"{world}: evidence {np.round(evidence(procedure, recordings), 2).tolist()}")
            of_scores = dataclasses.replace(default_weights("scores"), **trained)
            measured["alerts"].append({"world": world} | alerts(procedure, recordings, of_scores))
            for one in weights:
                measured_rows = rows_of(procedure, recordings, dataclasses.replace(one, **trained))
                measured[f"{one.kind}, {world}"] = measured_rows
            if run != DEMO:
                measured[f"as decided, {world}"] = decided(Path(run), procedure, recordings)
    for kind in args.kinds:
        rows = {title: of for title, of in measured.items() if title.startswith(f"{kind}, ")}
        tests = [of for title, of in rows.items() if title.endswith(", test")]
        measured[f"all {kind}"] = together(list(rows.values()), tests)
    for title, of in measured.items():
        print(f"\n{title}\n{analysis.format_rows(of)}")
    if args.record:
        record.save(args.record, measured)


if __name__ == "__main__":
    main()
