"""The stages that there are, in the order in which a run makes them."""

import importlib

from stormpsr_jax.stages import (
    detector,
    embed,
    evaluate,
    finetune,
    fuse,
    predict,
    pretrain,
    temporal,
)
from stormpsr_jax.stages.context import Context
from stormpsr_jax.stages.stage import Stage

RENDERING = "data_prep.stage"  # the module of the stage that makes data, beside the core


def _rendering() -> tuple[Stage, ...]:
    try:
        return (importlib.import_module(RENDERING).STAGE,)
    except ModuleNotFoundError:
        return ()


STAGES = (
    *_rendering(),
    pretrain.STAGE,
    embed.STAGE,
    temporal.STAGE,
    finetune.STAGE,
    detector.STAGE,
    predict.STAGE,
    fuse.STAGE,
    evaluate.STAGE,
)


def names() -> tuple[str, ...]:
    """Their names, which config.stages may have."""
    return tuple(stage.name for stage in STAGES)


def missing() -> str:
    """Ends a message about unknown names: where the stage that makes data cannot be imported."""
    there = any(stage.makes_data for stage in STAGES)
    return "" if there else f" ({RENDERING}, which makes data, cannot be imported)"


def chosen(context: Context) -> tuple[Stage, ...]:
    """The stages that a run has, in their order."""
    return tuple(stage for stage in STAGES if stage.is_chosen(context))
