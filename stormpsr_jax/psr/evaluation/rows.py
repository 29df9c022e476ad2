"""The rows of the published tables that detections alone give: `evaluate rows`.

The detections that IndustReal publishes (`ASD_results_IndustRealplusSynthetic_test.zip`) and its
step labels are all they need: no picture and no training.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from stormpsr_jax.psr.evaluation.scoring import evaluate_recordings
from stormpsr_jax.psr.files.recordings import LabelledPredictions
from stormpsr_jax.psr.procedure import Procedure
from stormpsr_jax.psr.scoring import headline
from stormpsr_jax.psr.streams.rules import Settings
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


def table(
    procedure: Procedure, recordings: Mapping[str, LabelledPredictions]
) -> list[dict[str, Any]]:
    """Decodes and scores the recordings, IndustReal's, as each row says, by protocol `paper`.

    Returns a row for `tables.format_rows` each: over all recordings with the published figures
    beside, and over those without and with errors in what was done, whose published figures are not
    known here (None). `accepted` are false acceptances, of `shown`.
    """
    rows: list[dict[str, Any]] = []
    for row in ROWS:
        result = evaluate_recordings(procedure, recordings, row.settings)
        found = result["streams"][ASD.name]["recordings"]
        erroneous = {name: r for name, r in found.items() if r["contains_errors"]}
        rest = {name: r for name, r in found.items() if name not in erroneous}
        for kind, part in (("all", found), ("no errors", rest), ("errors", erroneous)):
            rows.append(_row(row, kind, part))
    return rows


def _row(row: Row, kind: str, part: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    ours = headline.over_recordings(part.values(), headline.exact_mean)
    published = row.published if kind == "all" else (None, None, None)
    wrong = [r["wrong"] for r in part.values() if r["wrong"] is not None]
    return {
        "row": row.name,
        "table": row.source,
        "T": None if row.settings.decoder == "naive" else row.settings.threshold,
        "floor": row.settings.confidence,
        "of": kind,
        "recordings": len(part),
        "POS": ours["pos"],
        "F1": ours["f1"],
        "delay": ours["delay_s"],
        "POS published": published[0],
        "F1 published": published[1],
        "delay published": published[2],
        "accepted": sum(w["accepted"] for w in wrong),
        "shown": sum(w["shown"] for w in wrong),
    }
