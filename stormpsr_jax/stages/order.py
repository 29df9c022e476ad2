"""The stages that there are, in the order in which a run makes them."""

from __future__ import annotations

from ml_collections import ConfigDict

from stormpsr_jax.stages import (
    data,
    detector,
    embed,
    evaluate,
    finetune,
    fuse,
    general,
    predict,
    pretrain,
    product_gate,
    temporal,
)
from stormpsr_jax.stages.stage import Stage

STAGES = (
    data.STAGE,
    general.STAGE,
    pretrain.STAGE,
    embed.STAGE,
    temporal.STAGE,
    finetune.STAGE,
    detector.STAGE,
    predict.STAGE,
    product_gate.STAGE,
    fuse.STAGE,
    evaluate.STAGE,
)


def names() -> tuple[str, ...]:
    """Their names, which config.stages may have."""
    return tuple(stage.name for stage in STAGES)


def named(name: str) -> Stage:
    """The stage of a name; StopIteration if there is none."""
    return next(stage for stage in STAGES if stage.name == name)


def chosen(config: ConfigDict) -> tuple[Stage, ...]:
    """The stages that a config names, in their order."""
    return tuple(stage for stage in STAGES if stage.name in config.stages)
