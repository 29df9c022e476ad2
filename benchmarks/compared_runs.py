"""Two systems over several runs, such as seeds, with bootstrap intervals."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from stormpsr_jax.psr import analysis

# Figures of wrong parts that are given as a share of another one.
SHARES = {"accepted": "shown", "found": "shown", "right_called_wrong": "right_installations"}


def compare_runs(
    pairs: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]],
    streams: tuple[str, str],
    *,
    samples: int = 10000,
    level: float = 0.95,
    seed: int = 0,
) -> analysis.Rows:
    """Compares two systems over several runs, such as seeds, recording by recording.

    Runs are drawn with replacement, then recordings of each drawn one, the same for both systems.
    All recordings weigh the same. So the interval holds what comes of other runs and of other
    recordings; that of few runs is somewhat too narrow, and that of one run leaves runs out.

    Args:
        pairs: by run, contents of two metrics.json of the same recordings.
        streams: of the first and of the second of each pair.
        samples, level, seed: as for `compare`.

    Returns:
        A row per metric as of `compare`, with the number of runs. Wrong parts accepted and found,
        and right ones called wrong, are shares of all such parts of all recordings.

    Raises:
        ValueError: as for `compare`, or there is no pair.
    """
    if not pairs:
        raise ValueError("there are no runs to compare")
    runs = []
    for a, b in pairs:
        values = analysis.values(a, b, streams)
        of_a = a["streams"][streams[0]]["recordings"]
        wholes = {}
        for key, of in SHARES.items():
            wholes[f"wrong.{key}"] = np.array(
                [(of_a[name].get("wrong") or {}).get(of) for name in sorted(of_a)], np.float64
            )
        runs.append({key: _sums(*pair, wholes.get(key)) for key, pair in values.items()})
    name = streams[0] if streams[0] == streams[1] else f"{streams[1]} − {streams[0]}"
    return [
        {"stream": name, "metric": metric}
        | _row_of_runs([run[metric] for run in runs], samples, level, seed)
        for metric in runs[0]
    ]


def _sums(a: np.ndarray, b: np.ndarray, wholes: np.ndarray | None) -> np.ndarray:
    """(3, R) of each recording: what it adds to the sums of a and of b, and what these are of."""
    wholes = np.ones(len(a)) if wholes is None else wholes
    defined = ~(np.isnan(a) | np.isnan(b) | np.isnan(wholes))
    return np.where(defined, np.stack([a, b, wholes]), 0.0)


def _row_of_runs(
    runs: Sequence[np.ndarray], samples: int, level: float, seed: int
) -> dict[str, float | int | None]:
    a, b, whole = sum(sums.sum(axis=1) for sums in runs).tolist()
    counts = {
        "recordings": sum(int((sums[2] > 0).sum()) for sums in runs),
        "runs": sum(bool(sums[2].any()) for sums in runs),
    }
    if not whole:
        return dict.fromkeys(("a", "b", "difference", "low", "high")) | counts
    rng = np.random.default_rng(seed)
    drawn = np.zeros((samples, 3))
    for _ in runs:
        chosen = rng.integers(0, len(runs), samples)
        for i, sums in enumerate(runs):
            here = np.flatnonzero(chosen == i)
            rows = rng.integers(0, sums.shape[1], (len(here), sums.shape[1]))
            drawn[here] += sums[:, rows].sum(axis=2).T
    drawn = drawn[drawn[:, 2] > 0]
    differences = (drawn[:, 1] - drawn[:, 0]) / drawn[:, 2]
    low, high = np.quantile(differences, [(1 - level) / 2, (1 + level) / 2]).tolist()
    return {
        "a": a / whole,
        "b": b / whole,
        "difference": (b - a) / whole,
        "low": low,
        "high": high,
        **counts,
    }
