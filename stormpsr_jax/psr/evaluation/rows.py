"""The rows of the published tables that detections alone give: `evaluate rows`.

The detections that IndustReal publishes (`ASD_results_IndustRealplusSynthetic_test`) and its
step labels are all they need: no picture and no training. Below them stands the learned fusion of
detections alone: what it has seen, and what it calls right. Its settings were chosen with some of
these recordings in view; so each recording is also judged by settings that were chosen on the other
people's, with every two people left out in turn, as often as two can be chosen with its own.
"""

import dataclasses
import itertools
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from stormpsr_jax.psr.evaluation.evaluate import evaluate_recordings
from stormpsr_jax.psr.files import scores
from stormpsr_jax.psr.files.recordings import LabelledPredictions
from stormpsr_jax.psr.procedure import Procedure
from stormpsr_jax.psr.scoring import headline, metrics, wrong_parts
from stormpsr_jax.psr.streams.learned import LEARNED
from stormpsr_jax.psr.streams.learned_beliefs import default_weights
from stormpsr_jax.psr.streams.risk import RISK, default_bar
from stormpsr_jax.psr.streams.stream import Settings, reported
from stormpsr_jax.psr.streams.streams import ASD

PROCEDURE = "industreal"
NUM_RECORDINGS = 32  # of split test, which published figures are means over


@dataclasses.dataclass(frozen=True)
class Row:
    """A published row.

    Attributes:
        source: the paper; "IndustReal" is Schoonbeek et al., WACV 2024, "STORM-PSR" is arXiv
            2510.12385.
        settings: that come nearest to it. Neither paper gives the floor of confidences, which is
            the detector's own here (it lists none below .25) where the figures fit that better.
        published: POS, F1 and delay in seconds.
    """

    name: str
    source: str
    settings: Settings
    published: tuple[float, float, float]


_B1 = Settings(decoder="naive")
_B2 = Settings(decoder="confidence", threshold=8.0, confidence=0.25)
_B3 = Settings(decoder="expected", threshold=8.0, confidence=0.25)
ROWS = (
    Row("B1", "IndustReal", _B1, (0.570, 0.779, 14.9)),
    Row("B2", "IndustReal", _B2, (0.731, 0.860, 22.3)),
    Row("B3", "IndustReal", _B3, (0.797, 0.883, 22.4)),
    Row("B3", "STORM-PSR", _B3, (0.797, 0.891, 21.0)),
    Row("B3", "STORM-PSR", Settings(decoder="expected"), (0.797, 0.891, 21.0)),
)


# What the learned fusion is chosen from. Few, as of many some do well on so few recordings by luck.
INSTALL, BARS = (2.0, 2.5, 3.0), (3.0, 3.25, 3.5, 3.75)
# F1 and POS count alike; a step a second earlier is worth .01 of their mean, and that no incorrect
# installation is accepted, .25.
SECOND, ACCEPTED = 0.01, 0.25

Judged = Mapping[str, Mapping[str, Any]]  # by recording


def table(
    procedure: Procedure, recordings: Mapping[str, LabelledPredictions]
) -> list[dict[str, Any]]:
    """Decodes and scores the recordings, IndustReal's, as each row says, by protocol `paper`.

    Returns a row for `tables.format_rows` each: over all recordings with the published figures
    beside, and over those without and with errors in what was done, whose published figures are not
    known here (None). `accepted` are false acceptances, of `shown`. The rows of the learned fusion
    are over all recordings: with the settings that ship, and with people left out.
    """
    rows: list[dict[str, Any]] = []
    for row in ROWS:
        result = evaluate_recordings(procedure, recordings, row.settings)
        found = result["streams"][ASD.name]["recordings"]
        erroneous = {name: r for name, r in found.items() if r["contains_errors"]}
        rest = {name: r for name, r in found.items() if name not in erroneous}
        told: dict[str, Any] = {"row": row.name, "table": row.source}
        told["T"] = None if row.settings.decoder == "naive" else row.settings.threshold
        told["floor"] = row.settings.confidence
        for kind, part in (("all", found), ("no errors", rest), ("errors", erroneous)):
            published = row.published if kind == "all" else (None, None, None)
            rows.append(_row(told, kind, part.values(), published))
    return rows + _learned_rows(procedure, recordings)


def _learned_rows(
    procedure: Procedure, recordings: Mapping[str, LabelledPredictions]
) -> list[dict[str, Any]]:
    weights = default_weights("detections")
    shipped = LEARNED.defaults(weights)
    bar = default_bar("detections", RISK)
    rows = []
    for name, settings, choices in (
        ("seen", shipped, [dataclasses.replace(shipped, install=t) for t in INSTALL]),
        ("right", LEARNED.with_bar(shipped, bar), [LEARNED.with_bar(shipped, b) for b in BARS]),
    ):
        candidates = [settings, *(one for one in choices if one != settings)]
        judged: list[dict[str, dict[str, Any]]] = [{} for _ in candidates]
        for recording, r in recordings.items():
            r = dataclasses.replace(
                r, scores=scores.from_predictions(r.detections, None, procedure)
            )
            found = LEARNED.decode_each(procedure, r, candidates, weights)
            for events, by_name in zip(found, judged, strict=True):
                steps = metrics.scored(reported(events), r.with_errors)
                by_name[recording] = {
                    **metrics.score_recording(r.truth, steps, procedure.fps),
                    "wrong": wrong_parts.score_recording(r.frames, r.states, steps, procedure.fps),
                }
        used, limit = (settings.install, 1.0) if name == "seen" else (bar, RISK)
        told = {"row": f"learned ({name})", "table": "ours", "T": used, "floor": None}
        none = (None, None, None)
        rows.append(_row(told, "all", judged[0].values(), none))
        others = left_out(judged, limit)
        rows.append(_row({**told, "T": None}, "left out", others, none))
    return rows


def worth(found: Judged, limit: float) -> tuple[bool, float]:
    """What settings are chosen by: first whether they accept no larger a share than `limit`."""
    whole = metrics.summarise(found)
    wrong = wrong_parts.summarise(one["wrong"] for one in found.values())
    share = 0.0 if wrong is None else wrong["accepted"] / max(1, wrong["shown"])
    seconds = 60.0 if whole["delay_s"] is None else whole["delay_s"]
    value = ((whole["f1"] or 0) + (whole["pos"] or 0)) / 2 - SECOND * seconds - ACCEPTED * share
    return share <= limit, value


def left_out(candidates: Sequence[Judged], limit: float) -> list[dict[str, Any]]:
    """Returns recordings as judged by settings that were chosen without them, two people's a time.

    Recordings are named PERSON_…; each row is the mean over the times that its recording was left
    out. Of fewer than three people there are none.
    """
    people = sorted({name.split("_")[0] for name in candidates[0]})
    rows: dict[str, list[Mapping[str, Any]]] = {}
    for pair in itertools.combinations(people, 2):
        own = [name for name in candidates[0] if name.split("_")[0] in pair]
        others = [{n: d for n, d in one.items() if n not in own} for one in candidates]
        if not others[0]:
            return []
        rated = [worth(one, limit) for one in others]
        best = candidates[rated.index(max(rated))]
        for name in own:
            rows.setdefault(name, []).append(best[name])
    return [_mean(times) for times in rows.values()]


def _mean(times: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One recording's figures over the times that it was judged."""
    mean: dict[str, Any] = {}
    for key in headline.values(times[0]):
        known = [one[key] for one in times if one[key] is not None]
        mean[key] = float(np.mean(known)) if known else None
    wrong = [one["wrong"] for one in times if one["wrong"] is not None]
    keys = ("accepted", "shown")
    mean["wrong"] = {k: float(np.mean([w[k] for w in wrong])) for k in keys} if wrong else None
    return mean


def _row(
    told: Mapping[str, Any],
    kind: str,
    part: Collection[Mapping[str, Any]],
    published: tuple[float | None, float | None, float | None],
) -> dict[str, Any]:
    ours = headline.over_recordings(part, headline.exact_mean) if part else {}
    wrong = [r["wrong"] for r in part if r["wrong"] is not None]
    return {
        **told,
        "of": kind,
        "recordings": len(part),
        "POS": ours.get("pos"),
        "F1": ours.get("f1"),
        "delay": ours.get("delay_s"),
        "POS published": published[0],
        "F1 published": published[1],
        "delay published": published[2],
        "accepted": sum(w["accepted"] for w in wrong),
        "shown": sum(w["shown"] for w in wrong),
    }
