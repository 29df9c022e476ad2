"""What stages that train have in common: the fields they read, and what has to fit."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from stormpsr_jax.data.clips import ClipSource
from stormpsr_jax.networks import architectures
from stormpsr_jax.stages.context import Context
from stormpsr_jax.stages.stage import SPLITS

PICTURES = ("dtype", "data.mean", "data.std")
TRAINING = ("seed", *PICTURES)
# What pictures are augmented by: boxes and poses would not follow a shift, and limbs are painted on
# the renders of pre-training alone.
LOOKS = ("augment.saturation", "augment.blur_sigma")
AUGMENTED = (*LOOKS, "augment.shift")
CAD = ("data.cad_mean", "data.cad_std")
ENCODER = ("encoder", "pretrain.state_loss")  # with its weight 0, the encoder has no state head


def batch_errors(context: Context, name: str, rows: int, fields: str = "batch") -> list[str]:
    """Says whether devices cannot share the batches of a stage; `fields`: those that say `rows`."""
    devices, processes = context.devices.size, jax.process_count()
    if rows % devices == rows % processes == 0:
        return []
    return [
        f"stage {name!r} has batches of {rows}, which {devices} devices of {processes} "
        f"processes cannot share evenly; change --config.{name}.{fields}, or --config.mesh"
    ]


def image_size(
    context: Context,
    section: str = "encoder",
    source: Callable[[Context, str], ClipSource] = Context.source,
) -> tuple[int, int]:
    """Pixels (H, W) of what a network trains on, whether it is rendered yet or not."""
    if context.has_data:
        return source(context, SPLITS[0]).image_size
    side = context.config[section].image_size or context.config.data.synthetic.size
    return side, side


def network_errors(section: str, module: nn.Module, shape: tuple[int, ...]) -> list[str]:
    """Says whether a network cannot be trained on a batch, or its model not be written at the end.

    Nothing is computed. `section` of the config describes it, `shape` is that of its input.
    """

    def step(key: jax.Array, x: jax.Array) -> Any:
        variables = module.init(key, x)
        rngs, mutable = {"dropout": key}, ["batch_stats"]
        return module.apply(variables, x, train=True, mutable=mutable, rngs=rngs)

    where = f"--config.{section}"
    try:
        architectures.check(module, where, shape)
        jax.eval_shape(step, jax.random.key(0), jax.ShapeDtypeStruct(shape, jnp.float32))
    except Exception as error:  # of fields that contradict each other, nearly anything
        what = (str(error).strip() or type(error).__name__).splitlines()[0].removeprefix(where)
        pictures = f"; see also {where}.image_size, and --size of the data" * (len(shape) == 4)
        return [f"{where}: {what.removeprefix(': ')}{pictures}"]
    return []


def window_errors(context: Context) -> list[str]:
    """Says whether windows would look at frames that are not encoded, or none lies in a recording.

    Of the latter all would repeat a first frame.
    """
    every, stride = context.config.embed.every, context.config.window.stride
    errors = []
    if stride % every:
        errors.append(
            f"--config.embed.every={every}: does not divide window.stride={stride}, so that "
            "windows would look at frames that are not encoded; set it to a divisor of it"
        )
    if context.has_data:
        source = context.source(SPLITS[0])
        longest = max((r.num_frames for r in source.recordings.values()), default=0)
        if longest <= context.window.frames:
            errors.append(
                f"window.frames={context.config.window.frames}, but the longest recording of split "
                f"'train' has {longest} frames, so no window lies within one; "
                "lower window.frames"
            )
    return errors
