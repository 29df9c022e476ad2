"""The learned fusion on a detector's files alone, against the decoders of the papers.

    python -m benchmarks.real_detections --labels=LABELS --asd=ASD

LABELS and ASD are of IndustReal, whose recordings are named PERSON_…: the labels and the detections
that its authors published. The thresholds of both are chosen with each two people left out, on all
others, and judged on the two; so each recording is judged as often as two people can be chosen with
its own among them. The weights of the learned fusion have seen no recording of people.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from stormpsr_jax.psr.evaluation import tables
from stormpsr_jax.psr.files import scores
from stormpsr_jax.psr.files.recordings import LabelledPredictions, load_recordings
from stormpsr_jax.psr.procedure import Procedure, load_procedure
from stormpsr_jax.psr.scoring import metrics, wrong_parts
from stormpsr_jax.psr.streams.accumulated import ASD
from stormpsr_jax.psr.streams.learned import LEARNED
from stormpsr_jax.psr.streams.learned_weights import Weights, default_weights
from stormpsr_jax.psr.streams.rules import Settings
from stormpsr_jax.psr.streams.stream import Stream

# Few, as what is chosen from many on so few recordings is chosen by luck.
INSTALL = (2.0, 2.5, 3.0)
THRESHOLDS = (4.0, 6.0, 8.0)
# F1 and POS count alike; what else matters: a step a second earlier is worth .01 of their mean, and
# that no wrong part is accepted, .25.
SECOND, ACCEPTED = 0.01, 0.25

Judged = dict[str, dict[str, Any]]  # by recording


def judged(
    procedure: Procedure,
    recordings: Mapping[str, LabelledPredictions],
    stream: Stream,
    settings: Any,
    weights: Weights,
) -> Judged:
    """Decodes and scores every recording."""
    found: Judged = {}
    for name, r in recordings.items():
        events = stream.decode(procedure, r, settings, weights)
        steps = [event[:2] for event in events]
        found[name] = {
            **metrics.score_recording(r.truth, metrics.scored(events, False), procedure.fps),
            "wrong": wrong_parts.score_recording(r.frames, r.states, steps, procedure.fps),
        }
    return found


def figures(found: Judged) -> dict[str, Any]:
    """POS, F1, delay and the wrong parts accepted of some recordings."""
    whole = metrics.summarise(found)
    wrong = wrong_parts.summarise(one["wrong"] for one in found.values())
    accepted = f"{wrong['accepted']} of {wrong['shown']}"
    return {key: whole[key] for key in ("pos", "f1", "delay_s")} | {"accepted": accepted}


def worth(found: Judged) -> float:
    """What settings are chosen by."""
    whole = metrics.summarise(found)
    wrong = wrong_parts.summarise(one["wrong"] for one in found.values())
    share = wrong["accepted"] / max(1, wrong["shown"])
    seconds = 60.0 if whole["delay_s"] is None else whole["delay_s"]
    return (whole["f1"] + whole["pos"]) / 2 - SECOND * seconds - ACCEPTED * share


def left_out(candidates: Sequence[tuple[Any, Judged]]) -> tuple[dict[str, Any], list[Any]]:
    """Means over what was judged with settings that were chosen without it, and these settings."""
    names = list(candidates[0][1])
    of_recording: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    chosen = []
    for pair in itertools.combinations(sorted({name.split("_")[0] for name in names}), 2):
        own = [name for name in names if name.split("_")[0] in pair]
        settings, found = max(
            candidates,
            key=lambda one: worth({n: d for n, d in one[1].items() if n not in own}),
        )
        chosen.append(settings)
        for name in own:
            of_recording[name].append(found[name])
    means: dict[str, Any] = {}
    for key in ("pos", "f1", "delay_s"):
        values = [
            [d[key] for d in all_of if d[key] is not None] for all_of in of_recording.values()
        ]
        means[key] = float(np.mean([np.mean(own) for own in values if own]))
    shares = [(d["wrong"], len(all_of)) for all_of in of_recording.values() for d in all_of]
    accepted, shown = (
        sum(wrong_parts.summarise([one])[key] / times for one, times in shares)
        for key in ("accepted", "shown")
    )
    return means | {"accepted": f"{accepted:.1f} of {shown:.0f}"}, chosen


def described(stream: Stream, settings: Any) -> str:
    """What was varied, in short."""
    threshold = getattr(settings, stream.flags["threshold"])
    return f"{stream.name} at {threshold:g}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--labels", required=True)
    parser.add_argument("--asd", required=True)
    args = parser.parse_args()
    procedure = load_procedure("industreal")
    recordings = load_recordings(procedure, args.labels, args.asd)
    for r in recordings.values():
        r.scores = scores.from_predictions(r.detections, None, procedure)
    weights = default_weights("detections")
    paper = Settings(threshold=6.0, confidence=0.5)
    defaults = LEARNED.defaults(weights)
    still = dataclasses.replace(paper, decay=1.0)
    rows = []
    for label, stream, settings in (
        ("B3, T 6, floor .5", ASD, paper),
        ("the same, --unseen_decay=1", ASD, dataclasses.replace(paper, unseen_decay=1.0)),
        ("the same, --decay=1", ASD, still),
        ("learned, --fusion=default", LEARNED, defaults),
    ):
        found = judged(procedure, recordings, stream, settings, weights)
        rows.append({"settings": label, **figures(found)})
    for label, stream, grid in (
        ("B3, --decay=1, T chosen", ASD, [ASD.with_threshold(still, t) for t in THRESHOLDS]),
        (
            "learned, install chosen",
            LEARNED,
            [LEARNED.with_threshold(defaults, install) for install in INSTALL],
        ),
    ):
        candidates = [(s, judged(procedure, recordings, stream, s, weights)) for s in grid]
        for settings, found in candidates:
            rows.append({"settings": described(stream, settings), **figures(found)})
        means, chosen = left_out(candidates)
        said = ", ".join(dict.fromkeys(described(stream, settings) for settings in chosen))
        print(f"chosen with two people left out, {label}: {said}")
        rows.append({"settings": f"{label}, two people left out", **means})
    print(tables.format_rows(rows, "text"))


if __name__ == "__main__":
    main()
