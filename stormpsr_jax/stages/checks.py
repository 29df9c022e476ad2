"""All that is wrong with a run, before anything is computed: config, data, devices, weights."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable

import jax
import numpy as np

from stormpsr_jax.base import installed
from stormpsr_jax.data.features import MARKER
from stormpsr_jax.stages import fields, networks, picture_checks, pretrain, provenance
from stormpsr_jax.stages.context import WITHOUT_PICTURES, Context
from stormpsr_jax.training import sinks
from stormpsr_jax.weights import parameters

STAGES = (
    "data",
    "general",
    "pretrain",
    "embed",
    "temporal",
    "finetune",
    "detector",
    "predict",
    "fuse",
    "evaluate",
)


def find_mistakes(context: Context) -> list[str]:
    """Returns all that is wrong with a run, each with its remedy.

    Where stage `data` has not rendered the data yet, what depends on them is left to a second call.
    """
    out_of_range = fields.find_mistakes(context.config)
    mistakes = out_of_range + _stages(context) + _init_from(context)
    mistakes += sinks.find_mistakes(tuple(context.config.metrics_to))
    to_render = "data" in context.config.stages and not context.has_data
    if out_of_range:  # all other checks count on numbers in their ranges
        return mistakes + ([] if to_render else _folder(context))
    mistakes += _window(context)
    if to_render:
        return mistakes + _rendering(context)
    for check in (_folder, _splits):  # nothing of what follows makes sense without these
        found = check(context)
        if found:
            return mistakes + found
    mistakes += picture_checks.find_mistakes(context)
    for check in (_recordings, _batches):
        mistakes += _collect(lambda check=check: check(context))
    if not mistakes:
        mistakes = _collect(lambda: _networks(context))
    return list(dict.fromkeys(mistakes))


def _collect(check: Callable[[], list[str]]) -> list[str]:
    """The mistakes that a check returns, or the one that it comes upon."""
    try:
        return check()
    except ValueError as error:
        return str(error).splitlines()


# --- The config alone -----------------------------------------------------------------------------


def _stages(context: Context) -> list[str]:
    stages, mistakes = context.config.stages, []
    unknown = [stage for stage in stages if stage not in STAGES]
    if unknown or not stages:
        return [f"stages names {unknown}; known are {', '.join(STAGES)}"]
    if list(stages) != sorted(set(stages), key=STAGES.index):
        right = ", ".join(sorted(set(stages), key=STAGES.index))
        return [f"stages {', '.join(stages)} are out of order, or given twice; write {right}"]
    if "predict" in stages and not provenance.stages_before(context, "predict"):
        mistakes.append(
            "stages has 'predict', but neither 'detector' nor 'temporal', whose networks it takes"
        )
    networks_there = provenance.stages_before(context, "predict")
    if "fuse" in stages and not ("detector" in networks_there and len(networks_there) > 1):
        mistakes.append(
            "stages has 'fuse', which fuses what 'detector' and 'temporal' say; add both, or leave "
            "it out"
        )
    for stage in stages:
        for before in provenance.stages_before(context, stage):
            if before not in stages and not (context.workdir / before / provenance.DONE).exists():
                mistakes.append(
                    f"stage {stage!r} takes the result of {before!r}, which is not in stages and "
                    f"was not run in {context.workdir} before; add it to --config.stages"
                )
    for name in stages:
        section = context.config.get(name)
        if name in provenance.TRAINED and section.optimizer.schedule == "restarts":
            if section.optimizer.restart_steps < 1:
                mistakes.append(
                    f"--config.{name}.optimizer.schedule=restarts: set .restart_steps to the steps "
                    "of one period"
                )
    data = context.config.data
    if bool(data.cad_mean) != bool(data.cad_std):
        mistakes.append(
            f"--config.data.cad_mean={data.cad_mean}, .cad_std={data.cad_std}: give both, or '()' "
            "for both, which takes those of the folder"
        )
    evaluate = context.config.evaluate
    if "evaluate" in stages and evaluate.threshold and evaluate.choose != "paper":
        mistakes.append(
            f"--config.evaluate.threshold={evaluate.threshold}: with evaluate.choose="
            f"{evaluate.choose!r} thresholds are chosen; set that to 'paper', or this to 0"
        )
    detector = context.config.detector
    if "detector" in stages and detector.cad_wrong and not detector.cad:
        mistakes.append(
            "--config.detector.cad=0.0: detector.cad_wrong is a share of the CAD renders; give "
            "some of these, or set both to 0"
        )
    if "detector" in stages and detector.pose_loss and not detector.cad:
        mistakes.append(
            f"--config.detector.pose_loss={detector.pose_loss}: how the product lies is learnt "
            "from CAD renders alone; give detector.cad, or set it to 0"
        )
    if "detector" in stages and detector.anywhere and not detector.part_loss:
        mistakes.append(
            "--config.detector.part_loss=0.0: it alone learns from detector.anywhere; give it a "
            "weight, or set anywhere to 0"
        )
    shares = (detector.background, detector.anywhere, detector.cad)
    if "detector" in stages and max(shares) <= 1 < sum(shares):
        mistakes.append(
            "--config.detector.background={}, .anywhere={}, .cad={}: are shares of a batch, and "
            "{:g} is more than all of it".format(*shares, sum(shares))
        )
    if "evaluate" in stages and "predict" in stages:
        missing = {"val", "test"} - set(context.config.predict.splits)
        if missing:
            mistakes.append(
                f"predict.splits lacks {', '.join(sorted(missing))}: stage 'evaluate' chooses "
                "thresholds on val and scores test"
            )
    return mistakes


def _init_from(context: Context) -> list[str]:
    config = context.config
    if "pretrain" not in config.stages or not config.init_from:
        return []
    if os.path.isfile(path := pretrain.packaged_or_path(config.init_from)):
        return []
    return [
        f"--config.init_from={path}: no such file; give the backbone's weights as published, or "
        "of `python -m stormpsr_jax.weights import`, or '' to train it from random weights"
    ]


def _window(context: Context) -> list[str]:
    window = context.config.window
    if window.frames % window.stride:
        return [f"window.frames={window.frames} is not a multiple of window.stride={window.stride}"]
    if (seen := context.config.temporal_model.seen) > context.num_frames:
        return [
            f"--config.temporal_model.seen={seen} is more than the {context.num_frames} frames of "
            "a clip (window.frames / window.stride + 1); 0 sees all"
        ]
    return []


def _rendering(context: Context) -> list[str]:
    """What would come out wrong of stage `data`."""
    mistakes = []
    config = context.config.data.synthetic
    for module in ("trimesh", "embreex"):
        if importlib.util.find_spec(module) is None:
            mistakes.append(
                f"stage 'data' renders pictures and needs {module!r}: "
                f"{installed.extra('synthetic')}"
            )
    if config.timelines and config.pace != 1:
        mistakes.append(
            f"--config.data.synthetic.pace={config.pace} is for made-up timelines; those of "
            "data.synthetic.timelines have .time_scale: set pace to 1"
        )
    if config.timelines and config.rehearsals:
        mistakes.append(
            f"--config.data.synthetic.rehearsals={config.rehearsals} are made up, and "
            "data.synthetic.timelines are played: set rehearsals to 0"
        )
    if not config.objects.train and not config.timelines:
        needed = picture_checks.needed_splits(context)
        mistakes += [
            f"--config.data.synthetic.recordings.{split}=0: the stages need at least one"
            for split in needed
            if split in config.recordings and not config.recordings[split]
        ]
        if picture_checks.needs_plain(context) and not config.cad_per_state:
            mistakes.append(
                "--config.data.synthetic.cad_per_state=0: pretrain.cad_per_state and detector.cad "
                "need clean renders; set them to 0 too"
            )
        if picture_checks.needs_wrong(context) and not config.cad_wrong:
            mistakes.append(
                "--config.data.synthetic.cad_wrong=0: detector.cad_wrong needs renders of parts "
                "that sit wrong; set it to 0 too"
            )
    sizes = {}
    for section in ("encoder", "detector"):
        size = context.config[section].image_size or config.size
        sizes[section] = (size, size)
        if size > config.size:
            mistakes.append(
                f"--config.{section}.image_size={size}: stage 'data' renders pictures of "
                f"{config.size}; raise --config.data.synthetic.size, or lower this"
            )
    return mistakes + picture_checks.sizes(context, **sizes) + _batch_sizes(context)


# --- The data folder ------------------------------------------------------------------------------


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
    mistakes = _collect(lambda: context.procedure and [])
    if mistakes:
        return mistakes
    if context.ready_made:
        pictures = [s for s in context.config.stages if s not in WITHOUT_PICTURES]
        if pictures:
            mistakes.append(
                f"{which} holds embeddings, and {', '.join(pictures)} in config.stages cannot run "
                f"without pictures; set it to {WITHOUT_PICTURES}, as configs/embeddings.py does"
            )
        step, stride = context.frame_step, context.config.window.stride
        if stride % step:
            mistakes.append(
                f"window.stride={stride}, but {folder} has embeddings of every {step}-th frame: "
                f"set window.stride to a multiple of {step} (and window.frames to one of "
                "window.stride), or prepare them at a smaller stride"
            )
    return mistakes


def _splits(context: Context) -> list[str]:
    """Splits that are missing or cannot be opened; opens all that the stages need."""
    mistakes = []
    if "general" in context.config.stages:
        return mistakes
    for split in picture_checks.needed_splits(context):
        mistakes += _collect(lambda split=split: context.source(split) and [])
    mistakes += picture_checks.detector_splits(context)
    if picture_checks.needs_cad(context):
        if not context.has_cad:
            mistakes.append(
                f"{context.cad_dir}: has no split 'cad' of clean renders, which "
                "pretrain.cad_per_state and detector.cad ask for; make some with data_prep.cad or "
                "data_prep.industreal_cad and give --config.data.cad_dir, or set both to 0"
            )
        else:
            if pretrain.takes_renders(context.config) and "pretrain" in context.config.stages:
                mistakes += _collect(lambda: context.cad_source() and [])
            if context.config.detector.cad and "detector" in context.config.stages:
                mistakes += _collect(lambda: context.detector_cad_source() and [])
    for stage, splits in (("fuse", ("val",)), ("evaluate", ("val", "test"))):
        for split in splits if stage in context.config.stages else ():
            folder = context.data_dir / "labels" / split
            if not folder.is_dir():
                mistakes.append(f"{folder}: no label files; run the data_prep command again")
    return list(dict.fromkeys(mistakes))


def _recordings(context: Context) -> list[str]:
    """What the labels do not give, and windows longer than any recording."""
    config, stages, mistakes = context.config, context.config.stages, []
    if "pretrain" in stages and config.pretrain.steps:
        train, val = context.source("train"), context.source("val")
        cad = context.cad_source() if pretrain.takes_renders(config) else None
        mistakes += _collect(lambda: pretrain.key_frame_sampler(context, train, cad) and [])
        window = pretrain.key_frame_window(context, val)
        rows = (val, context.procedure, window, config.pretrain.initial_state)
        if not pretrain.validation.key_frame_rows(*rows):
            mistakes.append(
                "split 'val' has no key frame, by which the encoder is judged: no completion in it "
                "reaches a catalogued state; check the procedure's states against the labels"
            )
    if "temporal" in stages or "finetune" in stages:
        source = context.source("train")
        longest = max((r.num_frames for r in source.recordings.values()), default=0)
        if longest <= context.window.frames:
            mistakes.append(
                f"window.frames={config.window.frames}, but the longest recording of split 'train' "
                f"has {longest * source.frame_step} frames, so no window lies within one; lower "
                "window.frames"
            )
    return mistakes


# --- Devices and networks -------------------------------------------------------------------------


def _batches(context: Context) -> list[str]:
    mistakes = _batch_sizes(context)
    if "pretrain" in context.config.stages and context.config.pretrain.steps:
        cad = context.cad_source() if pretrain.takes_renders(context.config) else None
        sampler = pretrain.key_frame_sampler(context, context.source("train"), cad)
        mistakes += _batch_size(
            context, "pretrain", sampler.batch_size, "n_per_state, .cad_per_state or .any_frames"
        )
    return mistakes


def _batch_sizes(context: Context) -> list[str]:
    """The batches that the config alone determines."""
    config, mistakes = context.config, []
    for stage in ("temporal", "finetune", "detector"):
        if stage in config.stages:
            mistakes += _batch_size(context, stage, config[stage].batch, "batch")
    if "general" in config.stages:
        pictures = config.general.objects * config.general.states * config.general.views
        mistakes += _batch_size(context, "general", pictures, "objects, .states or .views")
    return mistakes


def _batch_size(context: Context, stage: str, batch: int, fields: str) -> list[str]:
    mistakes = []
    devices, processes = context.mesh.size, jax.process_count()
    if batch % devices or batch % processes:
        mistakes.append(
            f"stage {stage!r} has batches of {batch}, which {devices} devices of {processes} "
            f"processes cannot share evenly; change --config.{stage}.{fields}, or --config.mesh"
        )
    parts = context.config.encoder.microbatches
    pictures = batch * context.num_frames if stage == "finetune" else batch
    if stage in ("general", "pretrain", "finetune") and pictures % parts:
        mistakes.append(
            f"stage {stage!r} encodes {pictures} pictures at once, which cannot be cut into "
            f"encoder.microbatches={parts} equal parts; change one of them"
        )
    return mistakes


def _networks(context: Context) -> list[str]:
    """Networks that cannot be built, and weights to start from that do not fit."""
    config, stages, mistakes = context.config, context.config.stages, []
    if "general" in stages or context.ready_made or not picture_checks.needed_splits(context):
        return mistakes
    size = context.source(picture_checks.needed_splits(context)[0]).image_size
    if "pretrain" in stages:
        mistakes += _collect(lambda: _encoder(context, size))
    if "temporal" in stages:
        model = networks.temporal_encoder(context)
        shape = (1, context.num_frames, config.encoder.hidden)
        mistakes += _collect(
            lambda: jax.eval_shape(model.init, jax.random.key(0), np.zeros(shape)) and []
        )
    return mistakes


def _encoder(context: Context, size: tuple[int, int]) -> list[str]:
    model = networks.spatial_encoder(context)
    images = jax.ShapeDtypeStruct((2, *size, 3), np.float32)
    fresh = jax.eval_shape(
        lambda key, x: model.init(key, x, train=False), jax.random.key(0), images
    )
    if context.config.init_from:
        path = pretrain.packaged_or_path(context.config.init_from)
        parameters.initialise_from(path, fresh["params"], fresh.get("batch_stats", {}), size)
    return []
