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
import numpy as np
import optax
from jax.sharding import Mesh

from stormpsr_jax.base import memory
from stormpsr_jax.data.pipelines import Batches
from stormpsr_jax.networks import architectures
from stormpsr_jax.training import devices


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
Stepped = tuple[TrainState, dict[str, jax.Array], jax.Array]  # state, sums, loss


def new_state(
    optimizer: optax.GradientTransformation, params: Params, batch_stats: Params, rng: jax.Array
) -> TrainState:
    """Returns the state before the first step; `rng` is the raw data of the stage's key."""
    return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params), batch_stats, rng)


def sum_names(loss_fn: LossFn, state: TrainState, batch: Batch) -> list[str]:
    """Returns the names of a step's sums; of state and batch, their shapes do."""
    weights = state.params, state.batch_stats
    _, (metrics, _) = jax.eval_shape(loss_fn, *weights, batch, jax.random.key(0))
    return ["count", "loss", "grad_norm", *metrics]


def jit_step(
    loss_fn: LossFn,
    optimizer: optax.GradientTransformation,
    shardings: Any,
    mesh: Mesh,
    *,
    several: bool = False,
) -> jax.stages.Wrapped:
    """Returns the jitted step (state, sums, batch) -> (state, sums, loss).

    The state is donated and laid out as `shardings`. Parameters that are split over fsdp are
    gathered before anything is computed with them, and all activations stay split by the batch.

    `sums` accumulates "count", "loss", "grad_norm" and the metrics of `loss_fn` between log rows.
    They are plain scalars, which a checkpoint keeps; a collection of clu.metrics would need a
    class for the names of each stage. The loss is NaN also where only the gradient is not finite.

    With `several`, it is (state, sums, held, batches, count) -> (state, sums, losses (n,)): steps
    for the first `count` of n batches, whose arrays are (n, B, …). `held` are arrays that are in
    every batch besides. How many steps are taken is no part of the program.
    """
    whole = devices.replicated(mesh)

    def with_whole_params(params: Params, *rest: Any) -> Loss:
        # Without this, XLA computes each part of a gradient on the device that holds this part of
        # the parameter, and sends the whole batch's activations there, several times per layer.
        return loss_fn(jax.lax.with_sharding_constraint(params, whole), *rest)

    def step(state: TrainState, sums: dict, batch: Batch) -> Stepped:
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):  # for networks/layers.py
            rng = jax.random.fold_in(jax.random.wrap_key_data(state.rng), state.step)
            gradient = jax.value_and_grad(with_whole_params, has_aux=True)
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

    def steps(
        state: TrainState, sums: dict, held: Batch, batches: Batch, count: jax.Array
    ) -> Stepped:
        def one(i: jax.Array, carry: Stepped) -> Stepped:
            state, sums, losses = carry
            batch = {
                name: jax.lax.dynamic_index_in_dim(a, i, 0, False) for name, a in batches.items()
            }
            state, sums, loss = step(state, sums, held | batch)
            return state, sums, losses.at[i].set(loss)

        n = len(next(iter(batches.values())))
        return jax.lax.fori_loop(0, count, one, (state, sums, jnp.zeros(n)))

    batch = devices.batch_sharding(mesh, axis=int(several))
    return jax.jit(
        steps if several else step,
        in_shardings=(shardings, whole, *((whole, batch, whole) if several else (batch,))),
        out_shardings=(shardings, whole, whole),
        donate_argnums=(0, 1),
        compiler_options=devices.compiler_options(mesh.devices.flat[0].platform, training=True),
    )


def compiled(
    step: jax.stages.Wrapped, mesh: Mesh, *arguments: Any
) -> tuple[jax.stages.Compiled, float]:
    """Compiles a step; also returns its multiplications and additions, see `metrics.Pace`.

    MemoryError: what it needs is not there. An accelerator refuses by itself what it has no room
    for; the system would give a CPU more than there is, and then end the process.
    """
    traced = step.trace(*arguments)
    program = traced.lower().compile()
    needs = program.memory_analysis()
    if needs is not None and mesh.devices.flat[0].platform == "cpu":
        memory.check_fits(needs.temp_size_in_bytes * len(mesh.local_devices), "a step")
    return program, architectures.cost_of(traced.jaxpr).operations


@dataclasses.dataclass(frozen=True)
class Definition:
    """What a stage trains, on which data, and how it is judged; `loop.train` does the rest.

    Attributes:
        init: () -> (params, batch_stats), scratch or init_from. Called unless the stage is done.
        loss_fn: (params, batch_stats, batch, rng) -> (loss, (scalar metrics, new batch_stats)).
        data: step -> endless iterator over what the steps after it take: dicts of this process's
            arrays (B_local, …), the same whenever and wherever it is asked for. It is closed at
            the end.
        optimizer: params -> optax transformation (see `make_optimizer`).
        schedule: step -> learning rate, for the log.
        evaluate: (params, batch_stats) on the mesh -> metrics; every eval_every steps and at the
            end. None: the last weights are the best.
        best: name of the metric of `evaluate` that is maximised; "" keeps the last weights.
        evaluate_start: also evaluate what `init` made, so that a stage which starts from trained
            weights never hands on worse ones.
        batch_field: field of the stage's config that sets the batch size, for error messages.
        unit: what a row of a batch is, for the log.
        steps_per_dispatch: steps that run one after another without the host. Of a number above 1
            the results are the same for any such number.
        held: arrays that every batch has besides its own, by field, the same on all processes. They
            are kept whole on each device. Called once.
    """

    init: Callable[[], tuple[Params, Params]]
    loss_fn: LossFn
    data: Batches
    optimizer: Callable[[Params], optax.GradientTransformation]
    schedule: optax.Schedule
    evaluate: Callable[[Params, Params], dict[str, float]] | None = None
    best: str = ""
    evaluate_start: bool = False
    batch_field: str = "batch"
    unit: str = "pictures"
    steps_per_dispatch: int = 1
    held: Callable[[], dict[str, np.ndarray]] | None = None

    @property
    def several(self) -> bool:
        """Whether its steps are compiled to run several in a dispatch, see `step.jit_step`."""
        return self.steps_per_dispatch > 1 or self.held is not None
