import numpy as np

from stormpsr_jax.serving.product_gate import Looks
from stormpsr_jax.serving.recogniser import Detected, Recognised


def looks(rng, count, centre=0.0, confidence=0.8):
    embeddings = rng.normal(centre, 1, (count, 6)) @ np.diag([3, 2, 1, 1, 0.5, 0.5])
    classes = 2 + (embeddings[:, 0] > centre)
    return Looks(np.full(count, confidence), classes, np.zeros(count, bool), embeddings)


def seen(classes, confidences, embeddings=None):
    """One detection a picture."""
    columns = np.asarray(classes)[:, None], np.asarray(confidences, float)[:, None]
    return Recognised(None, Detected(np.zeros((len(classes), 1, 4)), *columns), None, embeddings)
