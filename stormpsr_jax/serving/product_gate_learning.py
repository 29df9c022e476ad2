"""What is familiar to a model, learnt from training recordings, and the thresholds of it.

The threshold is what the best minute reaches in all but one in a hundred of the validation
recordings, in their own light and in others.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from stormpsr_jax.serving.product_gate import (
    BOTH,
    CLEAR,
    KEYS,
    SECONDS,
    Fits,
    Looks,
    Prototypes,
    Space,
    joined,
)

AXES = 32
TYPICAL = 0.9  # share of what is seen on validation recordings that is near enough
FALSE_ALARMS = 0.01
FEW = 10  # with so many validation recordings the threshold is half of what they reach
LEAST = 0.005  # threshold below which pictures of other products could not be told
# Of both networks, as a mean over a minute: what chance can reach on another product, and a good
# second in which they agree, which is enough however often validation recordings have it.
CHANCE, ENOUGH_OF_BOTH = 0.01, 0.02


def learn(training: Sequence[Looks], validation: Sequence[Looks], rate: float) -> Fits:
    """Learns what is familiar from training recordings, and the thresholds from validation ones.

    Args:
        training: what is said of some pictures of recordings.
        validation: of whole recordings, evenly thinned out.
        rate: pictures per second of these.

    Raises:
        ValueError: there is no picture of one of them.
    """
    if not training or not validation:
        raise ValueError("whether pictures fit is learnt from training and validation recordings")
    space = prototypes = None
    if training[0].embeddings is not None:
        trained = joined(training)
        space = space_of(np.asarray(trained.embeddings))
        prototypes = prototypes_of(trained)
        whole = joined(validation)
        distances = space.distances(np.asarray(whole.embeddings))
        space = dataclasses.replace(space, typical=typical_of(distances, whole))
    model = Fits({}, space, prototypes)
    thresholds = thresholds_of([(one, model) for one in validation], rate)
    return dataclasses.replace(model, thresholds=thresholds)


def thresholds_of(seen: Sequence[tuple[Looks, Fits]], rate: float) -> dict[str, float]:
    """The threshold of each key that recordings allow, each by a model that has not seen it."""
    found = {}
    for key in KEYS:
        if all(one.has(key, model) for one, model in seen):
            familiar = [one.familiar(key, model) for one, model in seen]
            if (threshold := threshold_of(key, familiar, rate)) >= LEAST:
                found[key] = threshold
    return found


def threshold_of(key: str, familiar: Sequence[np.ndarray], rate: float) -> float:
    """What the best minute of recordings reaches, each a row of how familiar its pictures are."""
    window = max(1, round(SECONDS * rate))
    rows = [values[np.isfinite(values)] for values in familiar]
    best = [float(_means(row, window).max()) for row in rows if len(row)]
    if not best or max(best) < LEAST:
        return 0.0
    threshold = float(np.quantile(best, FALSE_ALARMS)) * len(best) / (len(best) + FEW)
    return float(np.clip(threshold, CHANCE, ENOUGH_OF_BOTH)) if key == BOTH else threshold


def prototypes_of(training: Looks) -> Prototypes | None:
    """The mean embeddings of what the detector sees, weighted by how sure it is."""
    sure = np.where(training.initial, 0.0, training.confidences)
    classes = np.unique(training.classes[sure > CLEAR])
    if not len(classes):
        return None
    rows = np.asarray(training.embeddings, np.float64)
    means = []
    for one in classes:
        chosen = training.classes == one
        means.append(np.average(rows[chosen], axis=0, weights=sure[chosen]))
    lengths = np.linalg.norm(means, axis=1, keepdims=True)
    return Prototypes(classes, np.stack(means) / np.maximum(lengths, 1e-12))


def space_of(embeddings: np.ndarray) -> Space:
    """Where embeddings (N, D) lie, without a typical distance."""
    centred = np.asarray(embeddings, np.float64)
    mean = centred.mean(axis=0)
    centred = centred - mean
    count, width = centred.shape
    values, vectors = np.linalg.eigh(centred.T @ centred / count)
    values, vectors = np.maximum(values[::-1], 0), vectors[:, ::-1]
    kept = min(AXES, width - 1, max(count - 1, 1))
    # A direction in which nothing has moved yet is no endless distance.
    smallest = 1e-6 * max(float(values.mean()), 1e-12)
    rest = math.sqrt(max(float(values[kept:].mean()), smallest))
    return Space(mean, vectors[:, :kept].T, np.sqrt(np.maximum(values[:kept], smallest)), rest)


def typical_of(distances: np.ndarray, looks: Looks) -> float:
    """The distance up to which `TYPICAL` of what is seen lies; what hands hide need not be near."""
    weights = np.where(looks.initial, 0.0, looks.confidences) + 1e-9
    order = np.argsort(distances)
    total = np.cumsum(weights[order])
    return float(distances[order][np.searchsorted(total, TYPICAL * total[-1])])


def _means(values: np.ndarray, window: int) -> np.ndarray:
    """Means over all windows of so many values in a row, or over all values if there are fewer."""
    sums = np.cumsum([0.0, *values])
    window = min(window, len(values))
    return (sums[window:] - sums[:-window]) / window
