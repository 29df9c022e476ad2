"""Alerts of incorrect installations against the labels: how many are true, how many are missing.

An alert is true if at its frame the component that it names is incorrect, or any one where it names
none. An incorrect installation (`wrong_parts`) is noticed if such an alert comes while it lasts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from stormpsr_jax.psr.scoring import wrong_parts

KEYS = ("alerts", "true", "shown", "noticed")


def score_recording(
    frames: np.ndarray, states: np.ndarray, alerts: Sequence[tuple[int, int | None]]
) -> dict[str, int]:
    """Counts the alerts of one recording.

    `frames` (M,) are ascending, `states` (M, K) the true ones, each from its frame on, and alerts
    are (frame, component that is named or None), without those that were taken back. Returns how
    many "alerts" there are, how many of them are "true", wrong installations "shown" and "noticed".
    """
    wrong = wrong_parts.spans(frames, states, -1)

    def meets(alert: tuple[int, int | None], span: tuple[int, int, float]) -> bool:
        (frame, named), (k, start, end) = alert, span
        return named in (None, k) and start <= frame < end

    return {
        "alerts": len(alerts),
        "true": sum(any(meets(alert, span) for span in wrong) for alert in alerts),
        "shown": len(wrong),
        "noticed": sum(any(meets(alert, span) for alert in alerts) for span in wrong),
    }


def summarise(recordings: Iterable[Mapping[str, int]]) -> dict[str, Any]:
    """Returns the sums, and "precision" and "recall"; None where there is nothing to go by."""
    known = list(recordings)
    total: dict[str, Any] = {key: sum(one[key] for one in known) for key in KEYS}
    for name, part, whole in (("precision", "true", "alerts"), ("recall", "noticed", "shown")):
        total[name] = total[part] / total[whole] if total[whole] else None
    return total
