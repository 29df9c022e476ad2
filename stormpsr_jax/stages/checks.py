"""What is wrong with a run, before anything is computed: config, data, networks, batches."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from ml_collections import ConfigDict

from stormpsr_jax.base import results
from stormpsr_jax.base.errors import gathering
from stormpsr_jax.configs import default, fields
from stormpsr_jax.data import folder as data_folder
from stormpsr_jax.networks import backbones
from stormpsr_jax.stages import order, provenance, remaking
from stormpsr_jax.stages.context import CAD, Context
from stormpsr_jax.stages.stage import LABEL_FILES, Stage

FIELDS = dict(fields.flatten(default.described()))


def wrong_with(field: str, value: Any) -> list[str]:
    """Says what is wrong with the value of one field; an empty list if nothing is."""
    return fields.wrong_with(FIELDS[field], value)


def of_fields(config: ConfigDict) -> list[str]:
    """Returns a line for each field out of its range, and those of its backbone.

    Of the names of backbones a config does not know, as it is read without JAX.
    """
    errors = []
    for field, value in provenance.flat_config(config).items():
        errors += [f"--config.{field}={value!r}: {what}" for what in wrong_with(field, value)]
    backbone = f"--config.encoder.backbone={config.encoder.backbone!r}"
    return errors + [f"{backbone}: {what}" for what in backbones.find_errors(config.encoder)]


def find_errors(context: Context) -> list[str]:
    """Returns what is wrong with a run, each with its remedy, all of a kind at once.

    Where a stage has not made the data yet, what depends on them is left to a second call.
    """
    stages = order.chosen(context)
    renders = any(stage.makes_data for stage in stages) and not context.has_data
    folder, splits = ((), ()) if renders else ((_folder,), (_splits,))
    for group in (_fields, *folder, _config, _extra, *splits, _stages):
        if found := _collected(group, context, stages):
            return found
    return []


def _collected(check: Callable[..., Iterable[str]], *arguments: object) -> list[str]:
    """The mistakes that a check finds, with those that it comes upon."""
    found: list[str] = []
    with gathering(found):
        found.extend(check(*arguments))
    return list(dict.fromkeys(found))


def _fields(context: Context, _: Sequence[Stage]) -> Iterator[str]:
    config, known = context.config, order.names()
    yield from of_fields(config)
    unknown = [name for name in config.stages if name not in known]
    right = [name for name in known if name in config.stages]
    if unknown or not right:
        yield f"stages names {unknown}; known are {', '.join(known)}{order.missing()}"
    elif list(config.stages) != right:
        given = ", ".join(config.stages)
        yield f"stages {given} are out of order, or given twice; write {', '.join(right)}"


def _config(context: Context, stages: Sequence[Stage]) -> Iterator[str]:
    for stage in stages:
        for before in stage.after(context):
            done = provenance.of_results(context.workdir / before.name) is not None
            if before not in stages and not done:
                yield (
                    f"stage {stage.name!r} takes the result of {before.name!r}, which is not in "
                    f"stages and was not run in {context.workdir} before; add it to --config.stages"
                )
    window = context.config.window
    if window.frames % window.stride:
        yield f"window.frames={window.frames} is not a multiple of window.stride={window.stride}"


def _folder(context: Context, stages: Sequence[Stage]) -> Iterator[str]:
    folder = context.data_dir
    which = f"--config.data.dir={folder}" if context.config.data.dir else f"{folder}"
    if not folder.is_dir():
        yield (
            f"{which}: no such folder; make one with a command of data_prep, or name another with "
            "--config.data.dir"
        )
        return
    if (folder / "embeddings.json").is_file():
        yield (
            f"{which}: is a folder of embeddings, which is no longer read; give the data folder of "
            "the pictures, and --config.embed.files=DIR of RECORDING.npy"
        )
        return
    if not context.has_data:
        yield (
            f"{which}: is no finished data folder ({data_folder.MARKER} is not in it); run the "
            "same data_prep command again, finished recordings are kept"
        )
        return
    _ = context.procedure  # ValueError if it cannot be read


def _extra(context: Context, _: Sequence[Stage]) -> Iterator[str]:
    """What real recordings do not share with those that they join, or stand in place of."""
    config, extra = context.config, context.extra
    if extra is None or (not context.has_data and config.data.synthetic.product_seed >= 0):
        return
    which = f"--config.data.extra={extra.directory}"
    if config.data.detector_dir:
        yield f"{which}: goes with pictures of one size; leave out data.detector_dir"
        return
    synthetic = config.data.synthetic
    size, fps = (synthetic.size, synthetic.size), synthetic.fps
    if context.has_data:
        own = data_folder.read_settings(context.data_dir)
        size, fps = own.image_size, own.fps
    real = data_folder.read_settings(extra.directory)
    if (real.image_size != size and not config.encoder.image_size) or real.fps != fps:
        yield (
            f"{which}: does not go with the other recordings: it has pictures of {real.image_size} "
            f"pixels (HxW), {real.fps:g} a second, they {size}, {fps:g} a second; make one of them "
            "again with another --size or --fps (data.synthetic.size and .fps where they are "
            "rendered)"
        )


def _splits(context: Context, stages: Sequence[Stage]) -> Iterator[str]:
    """Splits that are missing or cannot be opened; opens all that the stages read."""
    reads = [read for stage in stages for read in stage.reads(context)]
    unread = set[str]()
    pairs = {(read.source, split) for read in reads for split in read.splits}
    for source, split in sorted(pairs, key=lambda pair: (pair[1] == CAD, str(pair[1]))):
        try:
            source(context, split)
        except ValueError as error:
            unread.add(split)
            yield from str(error).splitlines()
    for split in dict.fromkeys(
        s for read in reads if LABEL_FILES in read.parts for s in read.splits
    ):
        folder = context.folder(split) / "labels" / split
        if split not in unread and not folder.is_dir():
            yield f"{folder}: is gone; the data_prep command that made it writes it again"


def _stages(context: Context, stages: Sequence[Stage]) -> Iterator[str]:
    for stage in stages:
        found = [] if _passed(context, stage) else _collected(stage.check, context)
        yield from found
        told = context.has_data or context.config.procedure  # what the product is
        if stage.makes_data and (found or not told):
            return


def _passed(context: Context, stage: Stage) -> bool:
    """Whether weights are there that were trained from just this; a check traces for seconds."""
    record = provenance.read(context.workdir / stage.name)
    if not stage.costly or record is None or results.damage(context.workdir, record):
        return False
    try:
        return remaking.is_made(context, stage)
    except OSError:  # a file that the config names is gone, which the check says better
        return False
