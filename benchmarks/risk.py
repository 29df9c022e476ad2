"""Incorrect installations accepted against correct ones left not sure, over the bar of `--risk`.

    python -m benchmarks.risk RUN… [--further=60] [--wrong=0.25] [--record=risk]
    python -m benchmarks.risk --plot

RUN are work folders of finished runs with a learned fusion, or "demo", the model that ships. Scores
the test split of each run and, with --further, so many more recordings of its toy, rendered here,
in which each part is put on incorrectly first with the chance --wrong. All are decoded with the
weights of the learned fusion that ship. Prints the table of each and of all together, with the
bounds by which `risk.DEFAULTS` were chosen (F1, POS and delay are means of the test splits), and
what the alerts of incorrect installations come to at the default risk, by recording. --record keeps
them in benchmarks/results; --plot draws docs/risk.webp from the results that are kept as "risk".
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import matplotlib.figure
import numpy as np

from benchmarks import record
from data_prep.products.product import Product, toy_product
from data_prep.rendering import seeds
from data_prep.rendering.scene import Body
from data_prep.worlds.hiding import OCCLUSIONS, Occlusion
from data_prep.worlds.motion import plan_recording
from data_prep.worlds.timelines import Timeline, draw_timeline
from data_prep.worlds.workplace import Workplace
from stormpsr_jax.base import files
from stormpsr_jax.base.progress import Bar
from stormpsr_jax.psr.evaluation import risk_curve, tables
from stormpsr_jax.psr.files import labels
from stormpsr_jax.psr.files.predictions import Detections
from stormpsr_jax.psr.files.recordings import LabelledPredictions
from stormpsr_jax.psr.files.scores import Scores
from stormpsr_jax.psr.monitor import Monitor
from stormpsr_jax.psr.procedure import Procedure
from stormpsr_jax.psr.streams import risk
from stormpsr_jax.psr.streams.learned import LEARNED
from stormpsr_jax.psr.streams.learned_weights import Weights, default_weights
from stormpsr_jax.psr.streams.rules import reported
from stormpsr_jax.serving.model import Model, load_model
from stormpsr_jax.serving.recogniser import Recognised, stack
from tools.fusion_weights import read_run

DEMO = "demo"
SIZE, NOISE, SEED = 64, 2.5, 9000  # pixels, grey levels, of what is rendered here
OF_ERRORS = ("wrong part", "error state")  # kinds of alerts
COLUMNS = ("bar", "shown", "accepted", "accepted_low", "accepted_high", "unsure")
COLUMNS += ("right_installations", "right_unsure", "pos", "f1", "delay_s", "until_sure_s")

Recordings = dict[str, LabelledPredictions]


def drawn(
    product: Product,
    procedure: Procedure,
    timeline: Timeline,
    hidden: Occlusion,
    streams: Sequence[np.random.Generator],
) -> Iterator[np.ndarray]:
    """Pictures uint8 (SIZE, SIZE, 3); `streams` draw the motion, the looks and the noise."""
    how, looks, noise = streams
    places = np.array([part.right[:2, 3] for part in product.parts])
    motion = plan_recording(timeline, places, procedure.fps, hidden, how)
    workplace = Workplace(product, functools.cache(lambda s: Body(product.mesh(s))), looks)
    for frame, state in enumerate(timeline.per_frame()):
        image = 255 * workplace.picture(motion, frame, state, SIZE).image
        image = image + NOISE * noise.standard_normal(image.shape, np.float32)
        yield np.clip(image + 0.5, 0, 255).astype(np.uint8)


def render(model: Model, timeline: Timeline, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Pictures uint8 (SIZE, SIZE, 3) of the model's toy, as its run draws them."""
    made, procedure = model.origin["config"], model.procedure.at(model.fps)
    seed = made["data.synthetic.seed"]
    product = toy_product(procedure.num_components, seeds.streams(seed, "product")[0])
    hidden = OCCLUSIONS[made["data.synthetic.occlusion"]]
    return drawn(product, procedure, timeline, hidden, rng.spawn(3))


def seen_by(
    model: Model, rows: Sequence[np.ndarray], stream: str | None = None
) -> list[Recognised]:
    """What the model's networks say of pictures, chunk by chunk."""
    recogniser, batch = model.recogniser(stream=stream), model.batch
    return [
        recogniser(stack([model.prepare(one, stream) for one in rows[i : i + batch]]))
        for i in range(0, len(rows), batch)
    ]


def recognised(model: Model, timeline: Timeline, pictures: Iterator[np.ndarray]) -> Any:
    """The scores and the top detections of a recording."""
    rows = list(pictures)
    found = seen_by(model, rows, "learned")
    parts = [one.scores for one in found]
    arrays = (
        np.concatenate([np.asarray(a, np.float32) for a in each])
        for each in zip(*parts, strict=True)
    )
    scores = Scores(np.arange(len(rows)), *arrays)
    tops = [one.top(i) for one in found for i in range(len(one.scores.objectness))]
    seen = [(frame, *top[:2]) for frame, top in enumerate(tops) if top is not None]
    frames, classes, confidences = (np.array(column) for column in zip(*seen, strict=True))
    boxes = np.zeros((len(frames), 4))
    return scores, Detections(frames, classes, confidences, boxes)


def further(name: str, count: int, wrong: float) -> Recordings:
    """More recordings of a run's toy, as its model sees them."""
    model = load_model(name if name == DEMO else Path(name) / "model")
    procedure = model.procedure.at(model.fps)
    (variant,) = procedure.variants.values()
    found: Recordings = {}
    with Bar(total=count, desc=name, unit="recording") as bar:
        for i in range(count):
            when, rest = np.random.default_rng([SEED, i]).spawn(2)
            timeline = draw_timeline(procedure, when, wrong=wrong)
            steps = labels.states_to_steps(timeline.frames, timeline.states)
            of = f"further_{i:03d}"
            r = LabelledPredictions(of, variant, steps, timeline.states, frames=timeline.frames)
            r.scores, r.detections = recognised(model, timeline, render(model, timeline, rest))
            found[r.name] = r
            bar.update(1)
    return found


def alerts(
    procedure: Procedure, recordings: Recordings, settings: Any, weights: Weights
) -> dict[str, int]:
    """Recordings with and without an incorrect installation, and how many of each are alerted."""
    counts = dict.fromkeys(("with_errors", "alerted", "without_errors", "falsely_alerted"), 0)
    for r in recordings.values():
        monitor, kinds = Monitor(procedure, r.variant), set()
        events = reported(LEARNED.decode(procedure, r, settings, weights))
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


def together(rows: list[dict[str, Any]], tests: list[dict[str, Any]], control: Any) -> list[dict]:
    """The rows of all worlds as one table; F1, POS and delay of the rows of test splits."""
    sums = ("shown", "accepted", "unsure", "right_installations", "right_unsure")
    found = []
    for bar in control.bars:
        row: dict[str, Any] = {"bar": bar}
        row |= {key: sum(one[key] for one in rows if one["bar"] == bar) for key in sums}
        row["bound"] = control.bound(bar)
        for key in ("f1", "pos", "delay_s"):
            values = [one[key] for one in tests if one["bar"] == bar and one[key] is not None]
            row[f"test_{key}"] = float(np.mean(values)) if values else None
        found.append(row)
    return found


def plot(measured: record.Tables) -> matplotlib.figure.Figure:
    """Incorrect installations accepted against correct ones not sure: of each model, and of all."""
    figure = matplotlib.figure.Figure((7, 3.5), layout="constrained")
    axes = figure.subplots()
    named = {bar: wanted for wanted, bar in risk.DEFAULTS["scores"].items()}
    for title, rows in measured.items():
        if title != "all" and not title.endswith(", further"):
            continue  # a test split shows a dozen incorrect installations
        rows = [row for row in rows if row["bar"] <= max(b for b in named if b < risk.NEVER)]
        x = [100 * row["right_unsure"] / row["right_installations"] for row in rows]
        y = [100 * row["accepted"] / row["shown"] for row in rows]
        if title != "all":
            axes.plot(x, y, lw=0.8, label=f"model {title.removesuffix(', further')}")
            continue
        axes.plot(x, y, "k.-", label="all together")
        for left, up, row in zip(x, y, rows, strict=True):
            if row["bar"] in named:
                axes.annotate(f" R = {named[row['bar']]:g}", (left, up), va="bottom")
    axes.set(xlabel="correct installations left not sure, %")
    axes.set(ylabel="incorrect installations accepted, %", xlim=(0, None), ylim=(0, None))
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("runs", nargs="*", metavar="RUN")
    add("--further", type=int, default=0, help="recordings of each run's toy (0)")
    add("--wrong", type=float, default=0.25, help="chance of each part (%(default)s)")
    add("--record", metavar="NAME", help="keep the tables in benchmarks/results")
    add("--plot", action="store_true", help="draw docs/risk.webp, and end")
    args = parser.parse_args()
    if args.plot:
        figure = plot(files.read_json(record.RESULTS / "risk.json")["tables"])
        figure.savefig(record.RESULTS.parents[1] / "docs" / "risk.webp", dpi=110)
        return
    if not args.runs:
        parser.error("name a RUN or demo, or --plot")
    weights, losses = default_weights("scores"), []
    settings = LEARNED.defaults(weights)
    chosen = risk.decide(LEARNED, settings, risk.RISK, None, weights).settings
    measured: dict[str, list[dict[str, Any]]] = {"all": [], "alerts": []}
    for run in args.runs:
        worlds, name = {}, Path(run).name
        if run == DEMO:
            model = load_model(run)
            procedure = model.procedure.at(model.fps)
        else:
            procedure, fps, found = read_run(Path(run), ["test"])
            procedure = procedure.at(fps)
            worlds[f"{name}, test"] = {r.name: r for r in found}
        if args.further:
            worlds[f"{name}, further"] = further(run, args.further, args.wrong)
        for world, recordings in worlds.items():
            bars = risk_curve.decode(procedure, recordings, LEARNED, settings, weights)
            measured[world] = [{key: row[key] for key in COLUMNS} for row in bars.rows()]
            losses += bars.losses.values()
            said = alerts(procedure, recordings, chosen, weights)
            measured["alerts"].append({"world": world} | said)
    control = risk.control_of(LEARNED.bars(settings), losses)
    rows = {world: of for world, of in measured.items() if world not in ("all", "alerts")}
    tests = [row for world, of in rows.items() if world.endswith(", test") for row in of]
    measured["all"] = together([row for of in rows.values() for row in of], tests, control)
    for title, of in measured.items():
        print(f"\n{title}\n{tables.format_rows(of)}")
    if args.record:
        notes = f"bounds by {control.recordings} recordings"
        record.save(args.record, measured, notes)


if __name__ == "__main__":
    main()
