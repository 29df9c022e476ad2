"""Incorrect installations accepted against correct ones left not sure, over the bar of `--risk`.

    python -m benchmarks.risk RUN… [--further=60] [--wrong=0.25]

RUN are work folders of finished runs with a learned fusion, or "demo", the model that ships. Scores
the test split of each run and, with --further, so many more recordings of its toy, rendered here,
in which each part is put on incorrectly first with the chance --wrong. All are decoded with the
weights of the learned fusion that ship. Prints the table of each and of all together, what the
alerts of incorrect installations come to at the default risk, by recording, and the losses of all
together, by which `risk.DEFAULTS` were chosen.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.products.product import toy_product
from data_prep.rendering import seeds
from data_prep.rendering.scene import Body
from data_prep.worlds.hiding import OCCLUSIONS
from data_prep.worlds.motion import plan_recording
from data_prep.worlds.timelines import Timeline, draw_timeline
from data_prep.worlds.workplace import Workplace
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
from stormpsr_jax.serving.recogniser import stack
from tools.fusion_weights import read_run

DEMO = "demo"
SIZE, NOISE, SEED = 64, 2.5, 9000  # pixels, grey levels, of what is rendered here
OF_ERRORS = ("wrong part", "error state")  # kinds of alerts
COLUMNS = ("bar", "shown", "accepted", "accepted_low", "accepted_high", "unsure")
COLUMNS += ("right_installations", "right_unsure", "pos", "f1", "delay_s", "until_sure_s")

Recordings = dict[str, LabelledPredictions]


def render(model: Model, timeline: Timeline, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Pictures uint8 (SIZE, SIZE, 3) of the model's toy, as its run draws them."""
    made = model.origin["config"]
    procedure, how, looks, noise = model.procedure.at(model.fps), *rng.spawn(3)
    product = toy_product(
        procedure.num_components, seeds.streams(made["data.synthetic.seed"], "product")[0]
    )
    places = np.array([part.right[:2, 3] for part in product.parts])
    hidden = OCCLUSIONS[made["data.synthetic.occlusion"]]
    motion = plan_recording(timeline, places, procedure.fps, hidden, how)
    workplace = Workplace(product, functools.cache(lambda s: Body(product.mesh(s))), looks)
    for frame, state in enumerate(timeline.per_frame()):
        image = 255 * workplace.picture(motion, frame, state, SIZE).image
        image = image + NOISE * noise.standard_normal(image.shape, np.float32)
        yield np.clip(image + 0.5, 0, 255).astype(np.uint8)


def recognised(model: Model, timeline: Timeline, pictures: Iterator[np.ndarray]) -> Any:
    """The scores and the top detections of a recording."""
    recogniser, rows = model.recogniser(stream="learned"), list(pictures)
    found = [
        recogniser(stack([model.prepare(one, "learned") for one in rows[i : i + model.batch]]))
        for i in range(0, len(rows), model.batch)
    ]
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", metavar="RUN")
    parser.add_argument("--further", type=int, default=0, help="recordings of each run's toy (0)")
    parser.add_argument(
        "--wrong", type=float, default=0.25, help="chance of each part (%(default)s)"
    )
    args = parser.parse_args()
    weights, every, losses = default_weights("scores"), [], []
    settings = LEARNED.defaults(weights)
    chosen = risk.decide(LEARNED, settings, risk.RISK, None, weights).settings
    for run in args.runs:
        worlds = {}
        if run == DEMO:
            model = load_model(run)
            procedure = model.procedure.at(model.fps)
        else:
            procedure, fps, found = read_run(Path(run), ["test"])
            procedure = procedure.at(fps)
            worlds[f"{run}, test"] = {r.name: r for r in found}
        if args.further:
            worlds[f"{run}, further"] = further(run, args.further, args.wrong)
        for name, recordings in worlds.items():
            bars = risk_curve.decode(procedure, recordings, LEARNED, settings, weights)
            rows = bars.rows()
            every += rows
            losses += bars.losses.values()
            print(f"\n{name}: {len(recordings)} recordings")
            print(tables.format_rows([{key: row[key] for key in COLUMNS} for row in rows]))
            said = alerts(procedure, recordings, chosen, weights)
            print(", ".join(f"{key} {value}" for key, value in said.items()), flush=True)
    print("\nall together")
    sums = ("shown", "accepted", "unsure", "right_installations", "right_unsure")
    print(
        tables.format_rows(
            [
                {"bar": bar} | {k: sum(row[k] for row in every if row["bar"] == bar) for k in sums}
                for bar in sorted({row["bar"] for row in every})
            ]
        )
    )
    control = risk.control_of(LEARNED.bars(settings), losses)
    said = zip(control.bars, map(control.bound, control.bars), strict=True)
    print(f"bounds by {control.recordings} recordings:", *(f"{bar} {b:.3f}" for bar, b in said))


if __name__ == "__main__":
    main()
