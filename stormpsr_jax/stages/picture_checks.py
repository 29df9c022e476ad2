"""What the stages need of the pictures in the data folders: splits, sizes, renders, boxes."""

from __future__ import annotations

import numpy as np

from stormpsr_jax.data.clips import ClipSource
from stormpsr_jax.models import backbones
from stormpsr_jax.stages import embed, provenance
from stormpsr_jax.stages.context import Context
from stormpsr_jax.stages.pretrain import takes_renders


def needed_splits(context: Context) -> list[str]:
    """The splits that the stages read, but 'cad'."""
    stages, needed = context.config.stages, set()
    if any(stage in stages for stage in (*provenance.TRAINED, "embed")):
        needed |= set(embed.SPLITS)
    if "predict" in stages:
        needed |= set(context.config.predict.splits)
    if "fuse" in stages:
        needed.add("val")
    if "evaluate" in stages:
        needed |= {"val", "test"}
    return sorted(needed)


def needs_cad(context: Context) -> bool:
    """Whether a stage takes clean renders."""
    stages, config = context.config.stages, context.config
    return bool(
        ("pretrain" in stages and takes_renders(config))
        or ("detector" in stages and config.detector.cad)
    )


def needs_plain(context: Context) -> bool:
    """Whether a stage takes renders on which all parts sit right."""
    stages, config = context.config.stages, context.config
    return bool(("pretrain" in stages and takes_renders(config)) or _detector_needs_plain(context))


def _detector_needs_plain(context: Context) -> bool:
    detector = context.config.detector
    return bool("detector" in context.config.stages and detector.cad and detector.cad_wrong < 1)


def needs_wrong(context: Context) -> bool:
    """Whether a stage takes renders of parts that sit wrong."""
    detector = context.config.detector
    return bool("detector" in context.config.stages and detector.cad and detector.cad_wrong)


def _detector_needs_poses(context: Context) -> bool:
    return "detector" in context.config.stages and context.config.detector.pose_loss > 0


def detector_splits(context: Context) -> list[str]:
    """Whether the detector's pictures are there, and of the very same frames."""
    config, mistakes = context.config, []
    if "detector" not in config.stages or context.ready_made:
        return mistakes
    given = bool(config.data.detector_dir)
    which = f"--config.data.detector_dir={context.detector_dir}"
    if given and not (context.detector_dir / "dataset_info.json").is_file():
        return [
            f"{which}: is no finished folder of clip shards; make it with the command that made "
            f"{context.data_dir}, with another --size and --out"
        ]
    for split in needed_splits(context):
        try:
            source, large = context.source(split), context.detector_source(split)
        except ValueError as error:
            mistakes += str(error).splitlines()
            continue
        if given and (what := _difference(source, large)):
            mistakes.append(
                f"{which}: split {split!r} has other {what} than {context.data_dir}; both have to "
                "be made of the same recordings, by the same command but for --size"
            )
    return mistakes


def _difference(source: ClipSource, large: ClipSource) -> str:
    """Says in what the same recordings in another size differ; '' if in nothing."""
    ranges = [
        {name: (r.first_frame, r.num_frames) for name, r in s.recordings.items()}
        for s in (source, large)
    ]
    if ranges[0].keys() != ranges[1].keys():
        return "recordings"
    if ranges[0] != ranges[1]:
        return "frames"
    if source.fps != large.fps:
        return "frames a second"
    framings = [(s.aspect, s.region) for s in (source, large)]
    return "" if framings[0] == framings[1] else "pictures (--aspect, --crop)"


def find_mistakes(context: Context) -> list[str]:
    """Sizes that do not fit each other, and boxes that are missing."""
    stages, mistakes = context.config.stages, []
    if context.ready_made or "general" in stages or not needed_splits(context):
        return mistakes
    split = needed_splits(context)[0]
    source, large = context.source(split), None
    if "detector" in stages:
        large = context.detector_source(split)
    mistakes += sizes(context, source.image_size, large and large.image_size)
    if needs_cad(context):
        pairs = []
        if "pretrain" in stages and takes_renders(context.config):
            pairs.append(("encoder", source, context.cad_source()))
        if "detector" in stages and context.config.detector.cad:
            pairs.append(("detector", large, context.detector_cad_source()))
        for section, real, cad in pairs:
            if cad.image_size != real.image_size:
                mistakes.append(
                    f"{context.cad_dir}: the CAD pictures are {cad.image_size} pixels (H, W), "
                    f"those of the recordings {real.image_size}; render them anew with --size, or "
                    f"set --config.{section}.image_size to what both can be made of"
                )
        if needs_wrong(context) and not any(
            (r.states == -1).any() for r in cad.recordings.values()
        ):
            mistakes.append(
                f"{context.cad_dir}: no render shows a part that sits wrong, which "
                "detector.cad_wrong asks for; render some with data_prep.cad --wrong=N, or set it "
                "to 0"
            )
        if _detector_needs_poses(context) and not any(
            np.isfinite(r.poses).any() for r in cad.recordings.values()
        ):
            mistakes.append(
                f"{context.cad_dir}: no render tells how the product lies in it, which "
                "detector.pose_loss asks for; a folder of an earlier version does not: make it "
                "again elsewhere, or set it to 0"
            )
        states = np.arange(1, context.procedure.num_states + 1)
        if _detector_needs_plain(context) and not any(
            np.isin(r.classes, states).any() for r in cad.recordings.values()
        ):
            mistakes.append(
                f"{context.cad_dir}: no render shows a state with all parts right and a box around "
                "it, which detector.cad asks for; render some with data_prep.cad --per_state=N, "
                "or set detector.cad_wrong to 1 or detector.cad to 0"
            )
    if "detector" in stages:
        for split in embed.SPLITS:
            recordings = context.detector_source(split).recordings.values()
            if not any((r.classes > 0).any() for r in recordings):
                mistakes.append(
                    f"split {split!r} has no box of a catalogued or error state, which the "
                    "detector needs; drop 'detector' from stages, or label boxes "
                    "(data_prep/README.md) and make the data folder again"
                )
            highest = max((int(r.classes.max(initial=0)) for r in recordings), default=0)
            if highest > context.procedure.error_class:
                mistakes.append(
                    f"{context.detector_dir}: its boxes have classes up to {highest}, the "
                    f"procedure only {context.procedure.error_class}: it was made with other "
                    "catalogued states; make it again"
                )
    return mistakes


def sizes(
    context: Context, encoder: tuple[int, int], detector: tuple[int, int] | None
) -> list[str]:
    """Whether the encoder and the detector can divide their pictures of (H, W)."""
    wanted = []
    if set(context.config.stages) & {"general", "pretrain", "embed", "finetune"}:
        divisor = backbones.build(context.config.encoder).divisor
        wanted.append((divisor, encoder, "the encoder needs", "encoder"))
    if "detector" in context.config.stages:
        wanted.append((4, detector, "the detector needs", "detector"))
    return [
        f"pictures of {size[0]}x{size[1]} (HxW) do not divide by {divisor}, as {what}; the next "
        f"sizes that fit are {max(size[0] // divisor, 1) * divisor} and "
        f"{-(-size[0] // divisor) * divisor}: set --config.{section}.image_size, or make the data "
        "folder again with --size"
        + (", or change --config.encoder.backbone or its fields" if section == "encoder" else "")
        for divisor, size, what, section in wanted
        if size[0] % divisor or size[1] % divisor
    ]
