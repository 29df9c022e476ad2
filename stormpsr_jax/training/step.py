"""One training step as a pure function, and how it is compiled for a mesh, alone or several times.

Steps that run one after another in a dispatch give what they give alone, to the last bit: the
program is the same for any number of them.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from stormpsr_jax.training import choices, sharding


@flax.struct.dataclass
class TrainState:
    """All that a step changes; `rng` is the raw data of the stage's key and stays as it is."""

    step: jax.Array
    params: Any
    opt_state: Any
    batch_stats: Any
    rng: jax.Array


Params = Mapping[str, Any]  # a nested dict of arrays
Batch = dict[str, jax.Array]
Loss = tuple[jax.Array, tuple[dict[str, jax.Array], Params]]  # and metrics, batch_stats
LossFn = Callable[[Params, Params, Batch, jax.Array], Loss]
Step = Callable[[TrainState, dict, Batch], tuple[TrainState, dict, jax.Array]]


def make_step(loss_fn: LossFn, optimizer: optax.GradientTransformation) -> Step:
    """Returns the pure step (state, sums, batch) -> (state, sums, loss).

    `sums` accumulates "count", "loss", "grad_norm" and the metrics of `loss_fn` between log rows.
    They are plain scalars, which a checkpoint keeps; a collection of clu.metrics would need a
    class for the names of each stage. The loss is NaN also where only the gradient is not finite.
    """

    def step(state: TrainState, sums: dict, batch: Batch) -> tuple[TrainState, dict, jax.Array]:
        rng = jax.random.fold_in(jax.random.wrap_key_data(state.rng), state.step)
        gradient = jax.value_and_grad(loss_fn, has_aux=True)
        (loss, (metrics, batch_stats)), grads = gradient(
            state.params, state.batch_stats, batch, rng
        )
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        grad_norm = optax.tree.get(opt_state, "grad_norm", optax.global_norm(updates))
        state = dataclasses.replace(
            state,
            step=state.step + 1,
            params=optax.apply_updates(state.params, updates),
            opt_state=opt_state,
            batch_stats=batch_stats,
        )
        row = {"count": 1.0, "loss": loss, "grad_norm": grad_norm, **metrics}
        sums = {name: sums[name] + jnp.asarray(row[name], jnp.float32) for name in sums}
        return state, sums, jnp.where(jnp.isfinite(grad_norm), loss, jnp.nan)

    return step


def new_state(
    optimizer: optax.GradientTransformation, params: Params, batch_stats: Params, rng: jax.Array
) -> TrainState:
    """Returns the state before the first step; `rng` is the raw data of the stage's key."""
    return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params), batch_stats, rng)


def jit_step(
    loss_fn: LossFn, optimizer: optax.GradientTransformation, shardings: Any, mesh: Mesh
) -> jax.stages.Wrapped:
    """Returns the jitted step of `make_step`, its state donated and laid out as `shardings`.

    Parameters that are split over fsdp are gathered before anything is computed with them, and all
    activations stay split by the batch.
    """
    step = _on_mesh(loss_fn, optimizer, mesh)
    return _jit(step, shardings, mesh, sharding.batch_sharding(mesh))


def jit_steps(
    loss_fn: LossFn, optimizer: optax.GradientTransformation, shardings: Any, mesh: Mesh
) -> jax.stages.Wrapped:
    """Returns jitted steps (state, sums, held, batches, count) -> (state, sums, losses (n,)).

    As `jit_step`, for the first `count` of n batches, whose arrays are (n, B, …). `held` are arrays
    that are in every batch besides. How many steps are taken is no part of the program, so there
    is one for all numbers.
    """
    step = _on_mesh(loss_fn, optimizer, mesh)
    whole = sharding.replicated(mesh)

    def steps(
        state: TrainState, sums: dict, held: Batch, batches: Batch, count: jax.Array
    ) -> tuple[TrainState, dict, jax.Array]:
        def one(i: jax.Array, carry: tuple) -> tuple:
            state, sums, losses = carry
            batch = {name: jax.lax.dynamic_index_in_dim(a, i, 0, False) for name, a in all_of}
            state, sums, loss = step(state, sums, held | batch)
            return state, sums, losses.at[i].set(loss)

        all_of = batches.items()
        n = len(next(iter(batches.values())))
        return jax.lax.fori_loop(0, count, one, (state, sums, jnp.zeros(n)))

    return _jit(steps, shardings, mesh, whole, sharding.batch_sharding(mesh, axis=1), whole)


def _jit(step: Callable, shardings: Any, mesh: Mesh, *of_inputs: Any) -> jax.stages.Wrapped:
    whole = sharding.replicated(mesh)
    return jax.jit(
        step,
        in_shardings=(shardings, whole, *of_inputs),
        out_shardings=(shardings, whole, whole),
        donate_argnums=(0, 1),
        compiler_options=choices.compiler_options(mesh.devices.flat[0]),
    )


def _on_mesh(loss_fn: LossFn, optimizer: optax.GradientTransformation, mesh: Mesh) -> Step:
    whole = sharding.replicated(mesh)

    def with_whole_params(params: Params, *rest: Any) -> Loss:
        # Without this, XLA computes each part of a gradient on the device that holds this part of
        # the parameter, and sends the whole batch's activations there, several times per layer.
        return loss_fn(jax.lax.with_sharding_constraint(params, whole), *rest)

    pure = make_step(with_whole_params, optimizer)

    def step(*args: Any) -> tuple[TrainState, dict, jax.Array]:
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):  # for networks/layers.py
            return pure(*args)

    return step
