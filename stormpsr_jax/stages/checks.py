"""What is wrong with a run, before anything is computed: config, data, networks, batches."""

from collections.abc import Callable, Iterable, Iterator, Sequence

from msgspec.structs import asdict

from stormpsr_jax.base import results
from stormpsr_jax.base.errors import gathering
from stormpsr_jax.configs.default import Config
from stormpsr_jax.data import folder as data_folder
from stormpsr_jax.networks import backbones
from stormpsr_jax.stages import order, remaking
from stormpsr_jax.stages.data import CAD, LABEL_FILES
from stormpsr_jax.stages.rendering import Rendering
from stormpsr_jax.stages.stage import Run, Stage


def find_errors(config: Config, run: Run, stages: Sequence[Stage]) -> list[str]:
    """Returns what is wrong with a run, each with its remedy, all of a kind at once.

    Where its data are not rendered yet, what depends on them is left to a second call.
    """
    renders = any(isinstance(stage, Rendering) for stage in stages) and not run.data.is_there
    folder, splits = ((), ()) if renders else ((_folder,), (_splits,))
    for group in (_fields, *folder, _stages_before, _extra, *splits, _stages):
        if found := _collected(group, config, run, stages):
            return found
    return []


def _collected(check: Callable[..., Iterable[str]], *arguments: object) -> list[str]:
    """The mistakes that a check finds, with those that it comes upon."""
    found: list[str] = []
    with gathering(found):
        found.extend(check(*arguments))
    return list(dict.fromkeys(found))


def _fields(config: Config, run: Run, _: Sequence[Stage]) -> Iterator[str]:
    # A config does not know the names of backbones, as it is read without JAX.
    backbone = f"--config.encoder.backbone={config.encoder.backbone!r}"
    yield from (f"{backbone}: {what}" for what in backbones.find_errors(asdict(config.encoder)))
    unknown = [name for name in config.stages if name not in order.NAMES]
    right = [name for name in order.NAMES if name in config.stages]
    if unknown or not right:
        yield f"stages names {unknown}; known are {', '.join(order.NAMES)}"
    elif list(config.stages) != right:
        given = ", ".join(config.stages)
        yield f"stages {given} are out of order, or given twice; write {', '.join(right)}"
    if config.embed.files and (unused := {"pretrain", "finetune"}.intersection(config.stages)):
        yield (
            f"--config.embed.files={config.embed.files}: nothing is encoded; leave "
            f"{' and '.join(sorted(unused))} out of config.stages"
        )


def _stages_before(config: Config, run: Run, stages: Sequence[Stage]) -> Iterator[str]:
    for stage in stages:
        for before in stage.after:
            done = results.of_results(run.workdir / before.name) is not None
            if before not in stages and not done:
                yield (
                    f"stage {stage.name!r} takes the result of {before.name!r}, which is not in "
                    f"stages and was not run in {run.workdir} before; add it to --config.stages"
                )
    window = config.window
    if window.frames % window.stride:
        yield f"window.frames={window.frames} is not a multiple of window.stride={window.stride}"


def _folder(config: Config, run: Run, _: Sequence[Stage]) -> Iterable[str]:
    data_folder.read_settings(run.data.directory)  # ValueError if these cannot be read
    run.data.procedure  # noqa: B018
    return ()


def _extra(config: Config, run: Run, _: Sequence[Stage]) -> Iterator[str]:
    """What real recordings do not share with those that they join, or stand in place of."""
    synthetic, extra = config.data.synthetic, run.data.extra
    if extra is None or (not run.data.is_there and synthetic.product_seed >= 0):
        return
    which = f"--config.data.extra={extra.directory}"
    if config.data.detector_dir:
        yield f"{which}: goes with pictures of one size; leave out data.detector_dir"
        return
    size, fps = (synthetic.size, synthetic.size), synthetic.fps
    if run.data.is_there:
        own = data_folder.read_settings(run.data.directory)
        size, fps = own.image_size, own.fps
    real = data_folder.read_settings(extra.directory)
    if (real.image_size != size and not config.encoder.image_size) or real.fps != fps:
        yield (
            f"{which}: does not go with the other recordings: it has pictures of {real.image_size} "
            f"pixels (HxW), {real.fps:g} a second, they {size}, {fps:g} a second; make one again "
            "with another --size or --fps (of renders: data.synthetic.size and .fps)"
        )


def _splits(config: Config, run: Run, stages: Sequence[Stage]) -> Iterator[str]:
    """Splits that are missing or cannot be opened; opens all that the stages read."""
    reads = [read for stage in stages for read in stage.reads(run)]
    unread = set[str]()
    pairs = {(read.source, split) for read in reads for split in read.splits}
    for source, split in sorted(pairs, key=lambda pair: (pair[1] == CAD, str(pair[1]))):
        try:
            source(run.data, split)
        except ValueError as error:
            unread.add(split)
            yield from str(error).splitlines()
    for split in dict.fromkeys(
        s for read in reads if LABEL_FILES in read.parts for s in read.splits
    ):
        folder = run.data.label_files(split)
        if split not in unread and not folder.is_dir():
            yield f"{folder}: is gone; the data_prep command that made it writes it again"


def _stages(config: Config, run: Run, stages: Sequence[Stage]) -> Iterator[str]:
    for stage in stages:
        found = [] if _passed(run, stage) else _collected(stage.check, run)
        yield from found
        told = run.data.is_there or config.procedure  # what the product is
        if isinstance(stage, Rendering) and (found or not told):
            return


def _passed(run: Run, stage: Stage) -> bool:
    """Whether weights are there that were trained from just this; a check traces for seconds."""
    record = results.found(run.workdir / stage.name)
    if not stage.trains or record is None or results.damage(run.workdir, record):
        return False
    try:
        return remaking.is_made(run, stage)
    except OSError:  # a file that the config names is gone, which the check says better
        return False
