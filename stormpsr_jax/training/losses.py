"""Losses of both training stages. Dimension letters: N images, D features, B clips, K components.

All arithmetic is float32, whatever the dtype of the arguments.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec


def supcon(z: jax.Array, labels: jax.Array, temperature: float = 0.07) -> jax.Array:
    """Supervised contrastive loss, L_out of Khosla et al. 2020, Eq. 2.

    For each anchor i: minus the mean, over its positives p (same label, p != i), of
    log softmax over all a != i of z_i . z_a / temperature, taken at p.

    Two kinds of rows have no positives, and they are treated differently:
    * a label >= 0 that occurs once adds 0 and stays in the mean, as in the released code;
    * a label < 0 marks an image that belongs to no class (hard background, error state). It is a
      negative for every anchor, an anchor of nothing, and not counted in the mean, so that adding
      such images does not shrink the loss and gradient of the others.

    Args:
        z: (N, D), rows of length 1 (not checked).
        labels: (N,) integers.
        temperature: 0.07 in the paper.

    Returns:
        The loss, a float32 scalar; 0 if there is no label >= 0.
    """
    z = z.astype(jnp.float32)
    logits = _matmul(z, z.T) / temperature
    others = ~jnp.eye(len(z), dtype=bool)
    log_denominator = jax.nn.logsumexp(logits, axis=1, where=others)
    in_class = labels >= 0
    positives = (labels[:, None] == labels[None, :]) & others & in_class[:, None]
    num_positives = positives.sum(axis=1)
    mean_positive = jnp.where(positives, logits, 0).sum(axis=1) / jnp.maximum(num_positives, 1)
    per_anchor = jnp.where(num_positives > 0, log_denominator - mean_positive, 0)
    return per_anchor.sum() / jnp.maximum(in_class.sum(), 1)


def supcon_blockwise(
    z: jax.Array,
    labels: jax.Array,
    temperature: float = 0.07,
    *,
    mesh: Mesh,
    block: int = 512,
) -> jax.Array:
    """`supcon` without its N × N matrix: the same loss and gradient, in blocks.

    The rows are shared out over all devices of the mesh. Each device keeps its own and sees those
    of the others pass by in a ring, `block` at a time; the backward pass goes round once more and
    computes the blocks anew. The memory for similarities is (N / devices) × block.

    Args:
        z: (N, D), rows of length 1 (not checked).
        labels: (N,) integers, as for `supcon`.
        temperature: 0.07 in the paper.
        mesh: the devices.
        block: rows that a device looks at at a time.

    Returns:
        The loss, a float32 scalar.
    """
    rows = -(-len(z) // mesh.size)  # of a device; then in whole blocks
    block = min(block, rows)
    rows = -(-rows // block) * block
    pad = rows * mesh.size - len(z)
    spec = PartitionSpec(mesh.axis_names)
    ring = _Ring(mesh.axis_names, mesh.size, len(z), block, float(temperature))
    # check_vma=False: the ring's carry starts the same everywhere and then differs by device.
    sums = jax.shard_map(
        functools.partial(_ring_supcon, ring),
        mesh=mesh,
        in_specs=(spec, spec),
        out_specs=spec,
        check_vma=False,
    )
    per_row = sums(
        jnp.pad(z.astype(jnp.float32), ((0, pad), (0, 0))),
        jnp.pad(labels, (0, pad), constant_values=-1),
    )
    return per_row.sum() / jnp.maximum((labels >= 0).sum(), 1)


class _Ring(NamedTuple):
    """What all devices of the ring know."""

    axes: tuple[str, ...]  # of the mesh
    size: int  # devices
    total: int  # N
    block: int
    temperature: float


class _Columns(NamedTuple):
    """Rows of z that pass a device by, with what their owner knows of them."""

    z: jax.Array  # (M, D)
    labels: jax.Array  # (M,)
    place: jax.Array  # (M,) in the global batch; from N on it is padding
    log_denominator: jax.Array  # (M,)
    weight: jax.Array  # (M,) factor of the row's loss; 0 for a row with a label below 0
    num_positives: jax.Array  # (M,) at least 1


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _ring_supcon(ring: _Ring, z: jax.Array, labels: jax.Array) -> jax.Array:
    """Loss of each of this device's rows, (M,)."""
    return _ring_forward(ring, z, labels)[0]


def _ring_forward(ring: _Ring, z: jax.Array, labels: jax.Array) -> tuple[jax.Array, _Columns]:
    rows = len(z)
    place = jax.lax.axis_index(ring.axes) * rows + jnp.arange(rows)
    nothing = jnp.zeros(rows, jnp.float32)
    mine = _Columns(z, labels, place, nothing, nothing, nothing)

    def add(carry: Any, columns: _Columns) -> Any:
        largest, denominator, positive, count = carry
        logits, positives, others = _similarities(ring, mine, columns)
        logits_or_less = jnp.where(others, logits, -jnp.inf)
        new = jnp.maximum(largest, logits_or_less.max(axis=1))
        shift = jnp.where(jnp.isfinite(new), new, 0.0)
        denominator = denominator * jnp.exp(largest - shift)
        denominator += jnp.exp(logits_or_less - shift[:, None]).sum(axis=1)
        positive += jnp.where(positives, logits, 0).sum(axis=1)
        return new, denominator, positive, count + positives.sum(axis=1)

    start = (jnp.full(rows, -jnp.inf), nothing, nothing, jnp.zeros(rows, jnp.int32))
    largest, denominator, positive, count = _go_round(ring, add, start, mine)
    log_denominator = largest + jnp.log(denominator)
    num_positives = jnp.maximum(count, 1)
    loss = jnp.where(count > 0, log_denominator - positive / num_positives, 0)
    weight = (count > 0).astype(jnp.float32)
    known = mine._replace(
        log_denominator=jnp.where(place < ring.total, log_denominator, 0),
        weight=weight,
        num_positives=num_positives.astype(jnp.float32),
    )
    return loss, known


def _ring_backward(ring: _Ring, known: _Columns, gradient: jax.Array) -> tuple[jax.Array, None]:
    # dL/dz_i = Σ_a (G_ia + G_ai) z_a / temperature, with G = dL/dlogits: as a device knows its own
    # rows' G_ia, and what G_ai needs comes by, nothing has to travel back.
    known = known._replace(weight=known.weight * gradient)

    def add(total_gradient: jax.Array, columns: _Columns) -> jax.Array:
        logits, positives, others = _similarities(ring, known, columns)

        def of_anchors(anchors: _Columns) -> jax.Array:
            softmax = jnp.where(others, jnp.exp(logits - anchors.log_denominator), 0)
            return anchors.weight * (softmax - positives / anchors.num_positives)

        both = of_anchors(jax.tree.map(lambda a: a[:, None], known)) + of_anchors(columns)
        return total_gradient + _matmul(both, columns.z) / ring.temperature

    gradient = _go_round(ring, add, jnp.zeros_like(known.z), known)
    return gradient, None


_ring_supcon.defvjp(_ring_forward, _ring_backward)


def _go_round(ring: _Ring, add: Callable[[Any, _Columns], Any], carry: Any, mine: _Columns) -> Any:
    """Folds `add` over all rows of the global batch, `block` at a time."""

    def look(carry: Any, columns: _Columns) -> Any:
        blocks = jax.tree.map(lambda a: a.reshape(-1, ring.block, *a.shape[1:]), columns)
        return jax.lax.scan(lambda c, b: (add(c, b), None), carry, blocks)[0]

    def turn(both: tuple[Any, _Columns], _: None) -> tuple[tuple[Any, _Columns], None]:
        carry, columns = both
        carry = look(carry, columns)
        to = [(device, (device + 1) % ring.size) for device in range(ring.size)]
        columns = jax.tree.map(lambda a: jax.lax.ppermute(a, ring.axes, to), columns)
        return (carry, columns), None

    if ring.size == 1:
        return look(carry, mine)
    return jax.lax.scan(turn, (carry, mine), length=ring.size)[0][0]


def _similarities(
    ring: _Ring, mine: _Columns, columns: _Columns
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Logits (M, M'), which of them are positives, and which count at all."""
    logits = _matmul(mine.z, columns.z.T) / ring.temperature
    others = (mine.place[:, None] != columns.place) & (columns.place < ring.total)
    positives = (mine.labels[:, None] == columns.labels) & (mine.labels >= 0)[:, None] & others
    return logits, positives, others


def _matmul(a: jax.Array, b: jax.Array) -> jax.Array:
    # Divided by 0.07, an error of 1e-3 (TF32, or bfloat16 passes on a TPU) would be visible.
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


def multilabel_bce(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Binary cross-entropy of each clip, averaged over its K components, without class weights.

    Args:
        logits: (B, K).
        labels: (B, K), 0 or 1.

    Returns:
        (B,) float32; its mean is the training loss.
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
