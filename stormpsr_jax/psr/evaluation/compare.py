"""Two systems on the same recordings: differences with paired bootstrap confidence intervals."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from stormpsr_jax.base import memory
from stormpsr_jax.psr.evaluation.analysis import Rows, both_found
from stormpsr_jax.psr.scoring import headline

# Figures of wrong parts that `compare_runs` gives as a share of another one.
SHARES = {
    "accepted": "shown",
    "found": "shown",
    "right_called_wrong": "right_installations",
}


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
        MemoryError: no memory for so many samples.
    """
    _check(samples, level, seed)
    _check_alike(a, b)
    if streams is None:
        pairs = [(stream, stream) for stream in a["streams"] if stream in b["streams"]]
        if not pairs:
            raise ValueError("there is no stream that both have; --streams=asd,storm names two")
    else:
        pairs = [streams]
    rows = []
    for first, second in pairs:
        values = _values(_recordings(a, first), _recordings(b, second), a["fps"])
        name = first if first == second else f"{second} − {first}"
        for metric, (of_a, of_b) in values.items():
            rows.append(
                {"stream": name, "metric": metric, **_row(of_a, of_b, samples, level, seed)}
            )
    return rows


def compare_runs(
    pairs: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]],
    streams: tuple[str, str],
    *,
    samples: int = 10000,
    level: float = 0.95,
    seed: int = 0,
) -> Rows:
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
    _check(samples, level, seed)
    if not pairs:
        raise ValueError("there are no runs to compare")
    runs = []
    for a, b in pairs:
        _check_alike(a, b)
        of_a, of_b = _recordings(a, streams[0]), _recordings(b, streams[1])
        values = _values(of_a, of_b, a["fps"])
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


def _check(samples: int, level: float, seed: int) -> None:
    if samples < 1:
        raise ValueError(f"--samples={samples} is not a positive number")
    if not 0 < level < 1:
        raise ValueError(f"--level={level} is not between 0 and 1")
    if seed < 0:
        raise ValueError(f"--seed={seed} is not a whole number from 0 up")


def _check_alike(a: Mapping[str, Any], b: Mapping[str, Any]) -> None:
    for key in ("protocol", "fps"):
        if a[key] != b[key]:
            raise ValueError(f"{key} differs: {a[key]} and {b[key]}; compare like with like")


def _recordings(result: Mapping[str, Any], stream: str) -> Mapping[str, Any]:
    if stream not in result["streams"]:
        have = ", ".join(result["streams"])
        raise ValueError(f"stream {stream!r} is not in the results, which have {have}")
    return result["streams"][stream]["recordings"]


def _values(
    a: Mapping[str, Any], b: Mapping[str, Any], fps: float
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """By metric the values (R,) of both systems, NaN where undefined."""
    if set(a) != set(b):
        lone = ", ".join(sorted(set(a) ^ set(b)))
        raise ValueError(f"the results do not have the same recordings; only one has {lone}")
    names = sorted(a)
    values = {}
    for figure in headline.means([*a.values(), *b.values()]):
        x, y = (np.array([r[name][figure.key] for name in names], np.float64) for r in (a, b))
        values[figure.key] = x, y
    for name in names:
        if a[name]["truth"] != b[name]["truth"]:
            raise ValueError(f"the labels of recording {name} differ between the results")
    pairs = both_found(a, b, fps)
    common = [np.mean(pairs[name], axis=0) if pairs[name] else [np.nan] * 2 for name in names]
    table = np.array(common, np.float64).reshape(-1, 2)
    values["common_delay_s"] = (table[:, 0], table[:, 1])
    for figure in headline.WRONG:
        if figure.better:
            wrong = ([r[name].get("wrong") or {} for name in names] for r in (a, b))
            x, y = (np.array([one.get(figure.key) for one in r], np.float64) for r in wrong)
            values[f"wrong.{figure.key}"] = x, y
    return values


def _row(
    a: np.ndarray, b: np.ndarray, samples: int, level: float, seed: int
) -> dict[str, float | int | None]:
    defined = ~(np.isnan(a) | np.isnan(b))
    a, b = a[defined], b[defined]
    if not len(a):
        return dict.fromkeys(("a", "b", "difference", "low", "high")) | {"recordings": 0}
    memory.check_fits(24 * samples * len(a), f"--samples={samples}")
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
