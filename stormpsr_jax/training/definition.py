"""What a stage trains: all that the training loop has to know of it."""

import dataclasses
from collections.abc import Callable

import numpy as np
import optax

from stormpsr_jax.data.pipelines import Batches
from stormpsr_jax.training.step import LossFn, Params


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
