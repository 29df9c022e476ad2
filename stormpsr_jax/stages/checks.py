"""All that is wrong with a run, before anything is computed: config, data, devices, weights."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import jax

from stormpsr_jax.data import folder
from stormpsr_jax.data.features import MARKER
from stormpsr_jax.networks.stored import MAX_CLIP
from stormpsr_jax.stages import fields, order, provenance
from stormpsr_jax.stages.context import CAD, Context
from stormpsr_jax.stages.stage import LABEL_FILES, Reads, Stage, collect
from stormpsr_jax.training import choices, sinks


def find_mistakes(context: Context) -> list[str]:
    """Returns all that is wrong with a run, each with its remedy.

    Where a stage has not made the data yet, what depends on them is left to a second call.
    """
    return list(dict.fromkeys(_mistakes(context, order.chosen(context.config))))


def find_doubts(context: Context) -> list[str]:
    """Returns what a run without mistakes will do, but perhaps not as its user expects.

    A sentence for each doubt. Where a stage has not made the data yet, there are none to be had.
    """
    if not context.has_data:
        return []
    return [text for stage in order.chosen(context.config) for text in stage.doubts(context)]


def _mistakes(context: Context, stages: Sequence[Stage]) -> list[str]:
    out_of_range = fields.find_mistakes(context.config)
    mistakes = out_of_range + (_order(context) or _config(context, stages))
    mistakes += sinks.find_mistakes(tuple(context.config.metrics_to))
    renderings = [] if context.has_data else [s.rendering for s in stages if s.rendering]
    if out_of_range:  # all other checks count on numbers in their ranges
        return mistakes + ([] if renderings else _folder(context))
    if context.mesh is not None:
        mistakes += collect(functools.partial(_attention, context, context.mesh.devices.flat[0]))
    mistakes += _window(context)
    if found := collect(functools.partial(_extra, context)):
        return mistakes + found  # all other checks open splits that it may be part of
    reads = [read for stage in stages for read in stage.reads(context)]
    for rendering in renderings:
        mistakes += rendering(context, reads)
    if not renderings and (found := _folder(context) or _splits(context, reads)):
        return mistakes + found  # nothing of what follows makes sense without these
    for stage in stages:
        mistakes += stage.size_mistakes(context)
    if not renderings:
        for stage in stages:
            mistakes += collect(functools.partial(stage.data_mistakes, context))
        if not mistakes:
            for stage in stages:
                mistakes += collect(functools.partial(stage.network_mistakes, context))
    return mistakes


def _order(context: Context) -> list[str]:
    chosen, known = context.config.stages, order.names()
    unknown = [name for name in chosen if name not in known]
    if unknown or not chosen:
        return [f"stages names {unknown}; known are {', '.join(known)}"]
    right = [name for name in known if name in chosen]
    if list(chosen) != right:
        return [
            f"stages {', '.join(chosen)} are out of order, or given twice; write {', '.join(right)}"
        ]
    return []


def _config(context: Context, stages: Sequence[Stage]) -> list[str]:
    mistakes = []
    for stage in stages:
        for before in stage.after(context):
            done = context.workdir / before.name / provenance.DONE
            if before not in stages and not done.exists():
                mistakes.append(
                    f"stage {stage.name!r} takes the result of {before.name!r}, which is not in "
                    f"stages and was not run in {context.workdir} before; add it to --config.stages"
                )
    for stage in stages:
        optimizer = context.config[stage.name].optimizer if stage.costly else None
        if optimizer and optimizer.schedule == "restarts" and optimizer.restart_steps < 1:
            mistakes.append(
                f"--config.{stage.name}.optimizer.schedule=restarts: set .restart_steps to the "
                "steps of one period"
            )
    data = context.config.data
    if bool(data.cad_mean) != bool(data.cad_std):
        mistakes.append(
            f"--config.data.cad_mean={data.cad_mean}, .cad_std={data.cad_std}: give both, or '()' "
            "for both, which takes those of the folder"
        )
    return mistakes + [text for stage in stages for text in stage.mistakes(context)]


def _extra(context: Context) -> list[str]:
    """ValueError if real recordings cannot be read, and what they do not go with."""
    if context.extra is None:
        return []
    which = f"--config.data.extra={context.config.data.extra}"
    if context.config.data.detector_dir:
        return [f"{which}: has pictures of one size; leave out data.detector_dir"]
    if context.ready_made:
        return [f"{which}: its pictures do not go with the embeddings in {context.data_dir}"]
    if not context.has_data or "data" in context.config.stages:
        return []  # stage `data` looks at what it will render, which may be other pictures
    own, real = (
        folder.read_settings(path, folder.ClipSettings, "dataset_info.json", "data_prep command")
        for path in (context.data_dir, context.extra.directory)
    )
    return [
        f"{which}: does not go with {context.data_dir}: it has {what.format(theirs)}, not {ours}; "
        f"make one of them again with another --{flag}"
        for flag, what, theirs, ours in (
            ("size", "pictures of {} pixels (HxW)", real.image_size, own.image_size),
            ("fps", "{} frames a second", real.fps, own.fps),
        )
        if theirs != ours and not (flag == "size" and context.config.encoder.image_size)
    ]


def _attention(context: Context, device: jax.Device) -> list[str]:
    """ValueError if the devices cannot compute attention as asked for."""
    choices.attention(context.config.attention, context.dtype, device)
    return []


def _window(context: Context) -> list[str]:
    window = context.config.window
    if window.frames % window.stride:
        return [f"window.frames={window.frames} is not a multiple of window.stride={window.stride}"]
    if context.num_frames > MAX_CLIP:
        return [
            f"window.frames={window.frames} and window.stride={window.stride} make clips of "
            f"{context.num_frames:,} frames, more than the {MAX_CLIP:,} that a model can have; "
            "raise window.stride, or lower window.frames"
        ]
    if (seen := context.config.temporal_model.context_frames) > context.num_frames:
        return [
            f"--config.temporal_model.context_frames={seen} is more than the "
            f"{context.num_frames} frames of a clip (window.frames / window.stride + 1); 0 sees all"
        ]
    return []


def _folder(context: Context) -> list[str]:
    folder = context.data_dir
    which = f"--config.data.dir={folder}" if context.config.data.dir else f"{folder}"
    if not folder.is_dir():
        return [
            f"{which}: no such folder; make one with a command of data_prep, or name another with "
            "--config.data.dir"
        ]
    if not context.has_data:
        return [
            f"{which}: is no finished data folder (neither dataset_info.json nor {MARKER} is in "
            "it); run the same data_prep command again, finished recordings are kept"
        ]
    mistakes = _opening(lambda: context.procedure)
    if context.ready_made and not mistakes:
        possible = tuple(stage.name for stage in order.STAGES if not stage.needs_pictures)
        pictures = [name for name in context.config.stages if name not in possible]
        if pictures:
            mistakes.append(
                f"{which} holds embeddings, and {', '.join(pictures)} in config.stages cannot run "
                f"without pictures; set it to {possible}, as configs/embeddings.py does"
            )
        step, stride = context.frame_step, context.config.window.stride
        if stride % step:
            mistakes.append(
                f"window.stride={stride}, but {folder} has embeddings of every {step}-th frame: "
                f"set window.stride to a multiple of {step} (and window.frames to one of "
                "window.stride), or prepare them at a smaller stride"
            )
    return mistakes


def _splits(context: Context, reads: Sequence[Reads]) -> list[str]:
    """Splits that are missing or cannot be opened; opens all that the stages read."""
    mistakes = []
    pairs = {(read.source, split) for read in reads for split in read.splits}
    for source, split in sorted(pairs, key=lambda pair: (pair[1] == CAD, str(pair[1]))):
        mistakes += _opening(functools.partial(source, context, split))
    for split in dict.fromkeys(
        s for read in reads if LABEL_FILES in read.parts for s in read.splits
    ):
        folder = context.folder(split) / "labels" / split
        if not folder.is_dir():
            mistakes.append(f"{folder}: no label files; run the data_prep command again")
    return mistakes


def _opening(what: Callable[[], object]) -> list[str]:
    """The mistake that opening something comes upon."""

    def check() -> list[str]:
        what()
        return []

    return collect(check)
