"""Two systems on the same recordings: differences with paired bootstrap confidence intervals."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from stormpsr_jax.psr import headline
from stormpsr_jax.psr.analysis import Rows, both_found


def compare(
    a: Mapping[str, Any],
    b: Mapping[str, Any],
    streams: tuple[str, str] | None = None,
    *,
    samples: int = 10000,
    level: float = 0.95,
    seed: int = 0,
) -> Rows:
    """Compares two results, recording by recording.

    The recordings are drawn with replacement, the same for both systems; the interval holds the
    central part of the differences of the means so found (percentile bootstrap).

    Args:
        a, b: contents of two metrics.json of the same recordings.
        streams: of a and of b; None compares every stream that both have with itself.
        samples: number of bootstrap samples.
        level: part of the samples inside the interval.
        seed: of the random draws.

    Returns:
        A row per stream and metric: means of a and b over the recordings where both are defined,
        their difference b − a with its interval, and the number of those recordings. The metrics
        are the headline figures that are means, common_delay_s, the delay on the steps that both
        recognised, and of wrong parts (`headline.WRONG`) what a stream makes better or worse.

    Raises:
        ValueError: other recordings, labels or protocols in a than in b, or an absent stream.
    """
    if samples < 1:
        raise ValueError(f"--samples={samples} is not a positive number")
    if not 0 < level < 1:
        raise ValueError(f"--level={level} is not between 0 and 1")
    for key in ("protocol", "fps"):
        if a[key] != b[key]:
            raise ValueError(f"{key} differs: {a[key]} and {b[key]}; compare like with like")
    if streams is None:
        pairs = [(stream, stream) for stream in a["streams"] if stream in b["streams"]]
        if not pairs:
            raise ValueError("there is no stream that both have; --streams=asd,storm names two")
    else:
        pairs = [streams]
    rows = []
    for first, second in pairs:
        for stream, result in ((first, a), (second, b)):
            if stream not in result["streams"]:
                have = ", ".join(result["streams"])
                raise ValueError(f"stream {stream!r} is not in the results, which have {have}")
        values = _values(
            a["streams"][first]["recordings"], b["streams"][second]["recordings"], a["fps"]
        )
        name = first if first == second else f"{second} − {first}"
        for metric, (of_a, of_b) in values.items():
            rows.append(
                {"stream": name, "metric": metric, **_row(of_a, of_b, samples, level, seed)}
            )
    return rows


def _values(
    a: Mapping[str, Any], b: Mapping[str, Any], fps: float
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """By metric the values (R,) of both systems, NaN where undefined."""
    if set(a) != set(b):
        lone = ", ".join(sorted(set(a) ^ set(b)))
        raise ValueError(f"the results do not have the same recordings; only one has {lone}")
    names = sorted(a)
    values = {
        figure.key: tuple(
            np.array([r[name][figure.key] for name in names], dtype=np.float64) for r in (a, b)
        )
        for figure in headline.MEANS
    }
    for name in names:
        if a[name]["truth"] != b[name]["truth"]:
            raise ValueError(f"the labels of recording {name} differ between the results")
    pairs = both_found(a, b, fps)
    common = [np.mean(pairs[name], axis=0) if pairs[name] else [np.nan] * 2 for name in names]
    table = np.array(common, np.float64).reshape(-1, 2)
    values["common_delay_s"] = (table[:, 0], table[:, 1])
    for figure in headline.WRONG:
        if figure.better:
            values[f"wrong.{figure.key}"] = tuple(
                np.array([(r[n].get("wrong") or {}).get(figure.key) for n in names], np.float64)
                for r in (a, b)
            )
    return values


def _row(
    a: np.ndarray, b: np.ndarray, samples: int, level: float, seed: int
) -> dict[str, float | int | None]:
    defined = ~(np.isnan(a) | np.isnan(b))
    a, b = a[defined], b[defined]
    if not len(a):
        return dict.fromkeys(("a", "b", "difference", "low", "high")) | {"recordings": 0}
    rng = np.random.default_rng(seed)
    drawn = rng.integers(0, len(a), (samples, len(a)))
    means = (b - a)[drawn].mean(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2]).tolist()
    return {
        "a": float(a.mean()),
        "b": float(b.mean()),
        "difference": float((b - a).mean()),
        "low": low,
        "high": high,
        "recordings": len(a),
    }
