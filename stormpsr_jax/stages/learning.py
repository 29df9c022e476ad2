"""What stages that train have in common: the fields they read, and what has to fit."""

from __future__ import annotations

from collections.abc import Callable

import jax

from stormpsr_jax.data.clips import ClipSource
from stormpsr_jax.networks import backbones
from stormpsr_jax.stages.context import Context
from stormpsr_jax.stages.stage import SPLITS

PICTURES = ("dtype", "data.mean", "data.std")
TRAINING = ("seed", *PICTURES)
# What pictures are augmented by: boxes and poses would not follow a shift, and limbs are painted on
# the renders of pre-training alone.
LOOKS = ("augment.brightness", "augment.contrast", "augment.saturation", "augment.blur_sigma")
AUGMENTED = (*LOOKS, "augment.shift")
CAD = ("data.cad_mean", "data.cad_std")
ENCODER = ("encoder", "pretrain.state_loss")  # with its weight 0, the encoder has no state head


def batch_mistakes(
    context: Context, name: str, rows: int, fields: str = "batch", pictures: int = 0
) -> list[str]:
    """Says whether devices cannot share the batches of a stage, or microbatches not cut them.

    Args:
        context: of the run.
        name: of the stage.
        rows: of a batch.
        fields: of the stage's section that say how many.
        pictures: that the encoder sees at once; 0 if it is not trained.
    """
    mistakes = []
    devices, processes = context.devices.size, jax.process_count()
    if rows % devices or rows % processes:
        mistakes.append(
            f"stage {name!r} has batches of {rows}, which {devices} devices of {processes} "
            f"processes cannot share evenly; change --config.{name}.{fields}, or --config.mesh"
        )
    parts = context.config.encoder.microbatches
    if pictures % parts:
        mistakes.append(
            f"stage {name!r} encodes {pictures} pictures at once, which cannot be cut into "
            f"encoder.microbatches={parts} equal parts; change one of them"
        )
    return mistakes


def patch_mistakes(
    context: Context, source: Callable[[Context, str], ClipSource] = Context.clip_source
) -> list[str]:
    """Says whether the encoder cannot divide the pictures of a source."""
    divisor = backbones.build(context.config.encoder).divisor
    return division_mistakes(context, "encoder", source, divisor, "the encoder needs")


def division_mistakes(
    context: Context,
    section: str,
    source: Callable[[Context, str], ClipSource],
    divisor: int,
    who: str,
) -> list[str]:
    """Says whether a number of pixels does not divide the pictures that a network looks at.

    Args:
        context: of the run.
        section: of the config, the network's.
        source: of its pictures; where they are not rendered yet, the config says their size.
        divisor: the number of pixels.
        who: needs it.
    """
    if context.has_data:
        size = source(context, SPLITS[0]).image_size
    else:
        side = context.config[section].image_size or context.config.data.synthetic.size
        size = side, side
    if not (size[0] % divisor or size[1] % divisor):
        return []
    other = ", or change --config.encoder.backbone or its fields" if section == "encoder" else ""
    return [
        f"pictures of {size[0]}x{size[1]} (HxW) do not divide by {divisor}, as {who}; the next "
        f"sizes that fit are {max(size[0] // divisor, 1) * divisor} and "
        f"{-(-size[0] // divisor) * divisor}: set --config.{section}.image_size, or make the data "
        f"folder again with --size{other}"
    ]


def render_mistakes(
    context: Context, section: str, source: Callable[[Context, str], ClipSource]
) -> list[str]:
    """Says whether clean renders have another size than the pictures of recordings.

    Args:
        context: of the run.
        section: of the config, the network's that looks at both.
        source: of its pictures.
    """
    real, cad = source(context, SPLITS[0]).image_size, source(context, "cad").image_size
    if cad == real:
        return []
    return [
        f"{context.cad_dir}: the CAD pictures are {cad} pixels (H, W), "
        f"those of the recordings {real}; render them anew with --size, or "
        f"set --config.{section}.image_size to what both can be made of"
    ]


def window_mistakes(context: Context) -> list[str]:
    """Says whether a window is longer than any recording that clips are drawn from."""
    source = context.source(SPLITS[0])
    longest = max((r.num_frames for r in source.recordings.values()), default=0)
    if longest > context.window.frames:
        return []
    return [
        f"window.frames={context.config.window.frames}, but the longest recording of split 'train' "
        f"has {longest * source.frame_step} frames, so no window lies within one; lower "
        "window.frames"
    ]
