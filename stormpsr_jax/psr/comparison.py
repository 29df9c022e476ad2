"""Two systems on the same recordings: differences with paired bootstrap confidence intervals."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from stormpsr_jax.psr import headline
from stormpsr_jax.psr.analysis import Rows, matching

SAMPLES = 10000


def compare(
    a: Mapping[str, Any],
    b: Mapping[str, Any],
    streams: tuple[str, str] | None = None,
) -> Rows:
    """Compares two results, recording by recording.

    The recordings are drawn with replacement, the same for both systems; the interval holds the
    central 95 % of the differences of the means so found (percentile bootstrap, seed 0).

    Args:
        a, b: contents of two metrics.json of the same recordings.
        streams: of a and of b; None compares every stream that both have with itself.

    Returns:
        A row per stream and metric: means of a and b over the recordings where both are defined,
        their difference b − a with its interval, and the number of those recordings. The metrics
        are the headline figures that are means, common_delay_s, the delay on the steps that both
        recognised, and of wrong parts (`headline.WRONG`) what a stream makes better or worse.

    Raises:
        ValueError: other recordings, labels or protocols in a than in b, or an absent stream.
    """
    of_b = headline.streams(b)
    pairs = [(stream, stream) for stream in headline.streams(a) if stream in of_b]
    if streams is not None:
        pairs = [streams]
    elif not pairs:
        raise ValueError("there is no stream that both have; --streams=asd,storm names two")
    return [
        {
            "stream": pair[0] if pair[0] == pair[1] else f"{pair[1]} − {pair[0]}",
            "metric": metric,
            **_row(*of_both),
        }
        for pair in pairs
        for metric, of_both in values(a, b, pair).items()
    ]


def values(
    a: Mapping[str, Any], b: Mapping[str, Any], streams: tuple[str, str]
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Returns by metric the values (R,) of both systems, NaN where undefined; as `compare`."""
    for key in ("protocol", "fps"):
        if a[key] != b[key]:
            raise ValueError(f"{key} differs: {a[key]} and {b[key]}; compare like with like")
    entries = []
    for stream, known in zip(streams, map(headline.streams, (a, b)), strict=True):
        if stream not in known:
            have = ", ".join(known)
            raise ValueError(f"stream {stream!r} is not in the results, which have {have}")
        entries.append(known[stream]["recordings"])
    fps, (a, b) = a["fps"], entries
    if set(a) != set(b):
        lone = ", ".join(sorted(set(a) ^ set(b)))
        raise ValueError(f"the results do not have the same recordings; only one has {lone}")
    names = sorted(a)
    for name in names:
        if a[name]["truth"] != b[name]["truth"]:
            raise ValueError(f"the labels of recording {name} differ between the results")
    found = {}
    for figure in headline.means([*a.values(), *b.values()]):
        x, y = (np.array([r[name][figure.key] for name in names], np.float64) for r in (a, b))
        found[figure.key] = x, y
    common = np.full((len(names), 2), np.nan)
    for row, name in zip(common, names, strict=True):
        of_a, of_b = (
            {(step, t): (p - t) / fps for step, t, p in matching(r[name]).correct} for r in (a, b)
        )
        if both := sorted(of_a.keys() & of_b):
            row[:] = np.mean([(of_a[key], of_b[key]) for key in both], axis=0)
    found["common_delay_s"] = common[:, 0], common[:, 1]
    for figure in headline.WRONG:
        if figure.better:
            wrong = ([r[name].get("wrong") or {} for name in names] for r in (a, b))
            x, y = (np.array([one.get(figure.key) for one in r], np.float64) for r in wrong)
            found[f"wrong.{figure.key}"] = x, y
    return found


def _row(a: np.ndarray, b: np.ndarray) -> dict[str, float | int | None]:
    defined = ~(np.isnan(a) | np.isnan(b))
    a, b = a[defined], b[defined]
    if not len(a):
        return dict.fromkeys(("a", "b", "difference", "low", "high")) | {"recordings": 0}
    drawn = np.random.default_rng(0).integers(0, len(a), (SAMPLES, len(a)))
    means = (b - a)[drawn].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975]).tolist()
    return {
        "a": float(a.mean()),
        "b": float(b.mean()),
        "difference": float((b - a).mean()),
        "low": low,
        "high": high,
        "recordings": len(a),
    }
