import dataclasses
from pathlib import Path

import flax.linen as nn
import grain
import jax
import jax.numpy as jnp
import numpy as np
import optax

from stormpsr_jax.data import pipelines
from stormpsr_jax.training import loop
from stormpsr_jax.training.checkpoint import load_best
from stormpsr_jax.training.devices import make_mesh
from stormpsr_jax.training.step import Definition

FEATURES, CLASSES, BATCH, STEPS = 16, 4, 16, 24


class Net(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        x = nn.relu(nn.Dense(128)(x))
        x = nn.BatchNorm(use_running_average=not train)(nn.Dense(128)(x))
        x = nn.Dropout(0.1, deterministic=not train)(x)
        return nn.Dense(CLASSES)(x)


def example(index, rng):
    label = index % CLASSES
    x = np.eye(FEATURES, dtype=np.float32)[label] + rng.normal(0, 0.5, FEATURES)
    return {"x": x.astype(np.float32), "label": np.int32(label)}


def make_data(step):
    """The batches of the steps after `step`."""
    dataset = grain.MapDataset.range(512).seed(3).shuffle().random_map(example).repeat(None)
    return pipelines.batches(dataset.batch(BATCH, drop_remainder=True), 0, 1)(step)


def loss_fn(params, batch_stats, batch, rng):
    variables = {"params": params, "batch_stats": batch_stats}
    logits, updated = Net().apply(
        variables, batch["x"], True, mutable="batch_stats", rngs={"dropout": rng}
    )
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"]).mean()
    accuracy = (logits.argmax(-1) == batch["label"]).mean()
    return loss, ({"accuracy": accuracy}, updated["batch_stats"])


def init():
    variables = Net().init(jax.random.key(1), jnp.zeros((2, FEATURES)), False)
    return variables["params"], variables["batch_stats"]


def evaluate(params, batch_stats):
    rng = np.random.default_rng(0)
    x, y = zip(*(example(i, rng).values() for i in range(64)), strict=True)
    logits = Net().apply({"params": params, "batch_stats": batch_stats}, np.stack(x), False)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, np.stack(y))
    return {"score": -float(losses.mean())}


DEFINITION = Definition(
    init=init,
    loss_fn=loss_fn,
    data=make_data,
    optimizer=lambda params: optax.sgd(0.01, momentum=0.9),
    schedule=optax.constant_schedule(0.01),
    evaluate=evaluate,
    best="score",
)


def run(workdir, *, steps=STEPS, profile_steps=None, **changes):
    """Trains DEFINITION with changes of its fields; returns the facts."""
    return loop.train(
        Path(workdir),
        dataclasses.replace(DEFINITION, **changes),
        steps=steps,
        eval_every=8,
        mesh=make_mesh(),
        rng=jax.random.key(7),
        log_every=5,
        checkpoint_every=4,
        profile_steps=profile_steps,
    )


def acting(act):
    """Data that calls `act(step)` before the batch of each step, and gives what it returns."""

    def data(step):
        for batch in make_data(step):
            step += 1
            yield act(step, batch) or batch

    return data


def steps_saved(workdir):
    return sorted(int(p.name) for p in (workdir / "checkpoints").iterdir() if p.name.isdigit())


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def assert_same(workdir, undisturbed):
    """The run there ended as the undisturbed one did, to the last bit."""
    reference, facts = undisturbed
    same(load_best(workdir), load_best(reference))
    assert (workdir / "metrics.jsonl").read_text() == (reference / "metrics.jsonl").read_text()
    assert run(workdir) == facts
