"""Losses of both training stages. Dimension letters: N images, D features, B clips, K components.

All arithmetic is float32, whatever the dtype of the arguments. What `pretrain.loss` names has the
arguments and the result of `supcon`, what `temporal.loss` names those of `multilabel_bce`.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from stormpsr_jax.base import user_code
from stormpsr_jax.base.errors import one_line

Of = Callable[[jax.Array, jax.Array], jax.Array]


def find(
    field: str, name: str, x: tuple[int, ...], labels: tuple[int, ...], result: tuple[int, ...]
) -> Of:
    """The loss that a field of the config names, by a function of this file or an import path.

    ValueError names the field, if there is none, or arrays of these shapes do not give the result.
    """
    place, home = f"--config.{field}", "" if ":" in name else f"{__name__}:"
    function = user_code.named(f"{home}{name}", place)
    arguments = jax.ShapeDtypeStruct(x, jnp.float32), jax.ShapeDtypeStruct(labels, jnp.int32)
    try:
        gives = jax.eval_shape(function, *arguments).shape
    except Exception as error:  # of a user's function, nearly anything
        gives = (str(error).strip() or type(error).__name__).splitlines()[0]
    if gives != result:
        what = f"{place}={name}: gives {gives} of arrays {x} and {labels}, and not {result}"
        raise ValueError(one_line(what, 400))
    return function


def supcon(z: jax.Array, labels: jax.Array, temperature: float = 0.07) -> jax.Array:
    """Supervised contrastive loss, L_out of Khosla et al. 2020, Eq. 2.

    For each anchor i: minus the mean, over its positives p (same label, p != i), of
    log softmax over all a != i of z_i . z_a / temperature, taken at p.

    Two kinds of rows have no positives, and they are treated differently:
    * a label >= 0 that occurs once adds 0 and stays in the mean, as in the released code;
    * a label < 0 marks an image that belongs to no class (hard background, error state). It is a
      negative for every anchor, an anchor of nothing, and not counted in the mean, so that adding
      such images does not shrink the loss and gradient of the others.

    `z` (N, D) has rows of length 1 (not checked), `labels` (N,) are integers; the temperature is
    the paper's. Returns a float32 scalar, 0 if there is no label >= 0.
    """
    z = z.astype(jnp.float32)
    # Divided by 0.07, an error of 1e-3 (TF32, or bfloat16 passes on a TPU) would be visible.
    logits = jnp.matmul(z, z.T, precision=jax.lax.Precision.HIGHEST) / temperature
    others = ~jnp.eye(len(z), dtype=bool)
    log_denominator = jax.nn.logsumexp(logits, axis=1, where=others)
    in_class = labels >= 0
    positives = (labels[:, None] == labels[None, :]) & others & in_class[:, None]
    num_positives = positives.sum(axis=1)
    mean_positive = jnp.where(positives, logits, 0).sum(axis=1) / jnp.maximum(num_positives, 1)
    per_anchor = jnp.where(num_positives > 0, log_denominator - mean_positive, 0)
    return per_anchor.sum() / jnp.maximum(in_class.sum(), 1)


def multilabel_bce(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Binary cross-entropy of each clip, averaged over its K components, without class weights.

    Logits (B, K), labels (B, K), 0 or 1 → (B,) float32, whose mean is the training loss.
    """
    x, y = logits.astype(jnp.float32), labels.astype(jnp.float32)
    # -y log p - (1 - y) log(1 - p), simplified so that no logit overflows.
    return jnp.mean(jax.nn.softplus(x) - x * y, axis=-1)


def condition_bce(
    logits: jax.Array, states: jax.Array, right_weight: jax.Array | None = None
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Binary cross-entropy of two logits a component: it is installed, it sits right if it is.

    Args:
        logits: (B, 2K), first all installed.
        states: (B, K) in {-1, 0, 1}; whether a component is right counts where it is installed.
        right_weight: (B,) of the rows in the second term; None is 1.

    Returns:
        The scalar loss, and the metrics "installed" and "right", its two terms: (weighted) means
        over components and rows, 0 where none counts.
    """
    installed, right = jnp.split(logits.astype(jnp.float32), 2, axis=-1)
    there = (states != 0).astype(jnp.float32)
    weight = there if right_weight is None else there * right_weight[:, None]
    bce = multilabel_bce(right[..., None], (states == 1)[..., None])
    total = weight.sum()
    terms = {
        "installed": multilabel_bce(installed, there).mean(),
        "right": (bce * weight).sum() / jnp.where(total > 0, total, 1),
    }
    return terms["installed"] + terms["right"], terms
