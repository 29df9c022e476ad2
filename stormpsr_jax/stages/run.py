"""Runs the stages of a config: mistakes first, then what is not made yet or depends on a change."""

import functools
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import msgspec
from ml_collections import ConfigDict
from msgspec.structs import asdict

from stormpsr_jax.base import files, interruption, memory, results
from stormpsr_jax.base.errors import gathering, raise_all
from stormpsr_jax.configs.default import Config
from stormpsr_jax.data import folder as data_folder
from stormpsr_jax.networks import backbones
from stormpsr_jax.stages import config_flag, order, remaking
from stormpsr_jax.stages.data import CAD, LABEL_FILES, Data
from stormpsr_jax.stages.rendering import Rendering
from stormpsr_jax.stages.stage import Run, Stage
from stormpsr_jax.training import hosts
from stormpsr_jax.training.devices import make_mesh


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


def _folder(config: Config, run: Run, _: Sequence[Stage]) -> Iterator[str]:
    folder = run.data.directory
    which = f"--config.data.dir={folder}" if config.data.dir else f"{folder}"
    if not folder.is_dir():
        yield (
            f"{which}: no such folder; make one with a command of data_prep, or name another with "
            "--config.data.dir"
        )
        return
    if not run.data.is_there:
        yield (
            f"{which}: is no finished data folder ({data_folder.MARKER} is not in it); run the "
            "same data_prep command again, finished recordings are kept"
        )
        return
    run.data.procedure  # noqa: B018  ValueError if it cannot be read


def _extra(config: Config, run: Run, _: Sequence[Stage]) -> Iterator[str]:
    """What real recordings do not share with those that they join, or stand in place of."""
    synthetic, extra = config.data.synthetic, run.data.extra
    if extra is None:
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
            f"pixels (HxW), {real.fps:g} a second, they {size}, {fps:g} a second; make one of them "
            "again with another --size or --fps (data.synthetic.size and .fps where they are "
            "rendered)"
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


def _place(run: Run, stage: Stage, shared: Path) -> Path | None:
    """Where its results are shared; None: they are not in a folder of their own."""
    outside = isinstance(stage, Rendering) and run.data.config.dir
    if outside or not all(pattern.startswith(f"{stage.name}/") for pattern in stage.results):
        return None
    return shared / f"{stage.name}-{results.of_json(stage.made_from(run))[:16]}"


def take(run: Run, stage: Stage, shared: Path) -> bool:
    """Leads WORKDIR/NAME to what another run has made, where this run has nothing of its own.

    Returns whether it did.
    """
    folder, place = run.workdir / stage.name, _place(run, stage, shared)
    if folder.is_symlink() and not folder.exists():
        folder.unlink()  # what it led to is gone
    if place is None or not place.is_dir() or folder.exists():
        return False
    folder.symlink_to(os.path.relpath(place, run.workdir), target_is_directory=True)
    return True


def give(run: Run, stage: Stage, shared: Path) -> None:
    """Moves what a run has made to where all find it."""
    folder, place = run.workdir / stage.name, _place(run, stage, shared)
    if place is None or folder.is_symlink():
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.exists() and results.found(place) == results.found(folder):
        files.remove(folder)
    else:
        part = place.with_name(f".{place.name}.{os.getpid()}")
        shutil.move(folder, part)
        files.remove(place)  # of other code of the package
        part.rename(place)
    take(run, stage, shared)


def run(
    config: ConfigDict,
    workdir: Path,
    profile_steps: tuple[int, int] | None = None,
    remake: bool = False,
    shared: Path | None = None,
    on_start: Callable[[], None] = lambda: None,
) -> None:
    """Runs the stages of a config in a working directory.

    Args:
        profile_steps: steps (first, last) of every trained stage to record a profile of.
        remake: throws away trained weights that depend on a change, and what other code of the
            package has made; otherwise the former is an error, and the latter stays.
        shared: folder of results that several runs share.
        on_start: called once no mistake was found, before anything is computed.

    Raises:
        ValueError: all mistakes that can be found before anything is computed; whatever `remaking`
            or a stage says about its input.
        SystemExit: after SIGTERM or Ctrl-C; see `interruption`.
    """
    memory.keep_freed()
    values = config_flag.typed(config)
    fields = config_flag.flat(config)
    hosts.check_agreement({k: v for k, v in fields.items() if not k.endswith(".workers")})
    hosts.here()  # together, for the first time: process 0 alone opens data below
    workdir.mkdir(parents=True, exist_ok=True)
    _keep_compiled()
    with hosts.claimed(workdir):
        mesh = make_mesh(fsdp=config.mesh.fsdp)
        opened = functools.partial(run_of, values, workdir, mesh, profile_steps, fields)
        made, every = opened(), order.stages(values)
        stages = chosen(every, values, made)
        hosts.on_process_0(lambda: _check(values, made, stages, remake))
        if mesh.size > 1:
            _say(f"mesh {dict(mesh.shape)} over {jax.process_count()} processes")
        if "data" in values.stages and every["data"] not in stages:
            _say(f"data: {values.data.dir} is trained on as it is, data.synthetic is not used")
        if made.data.extra is not None:
            _say(str(made.data.extra))
        on_start()
        for stage in stages:
            stopped = f"stopped before {stage.name}; run the same command again"
            interruption.end_if_asked(stopped)
            if interruption.all_stop():
                interruption.end(stopped)
            if _make(made, stage, remake, shared) and isinstance(stage, Rendering):
                made = opened()  # with what is new
                hosts.on_process_0(functools.partial(_refuse, values, made, stages))
        interruption.end_if_asked("all stages are done")


def run_of(
    config: Config,
    workdir: Path,
    mesh: jax.sharding.Mesh | None,
    profile_steps: tuple[int, int] | None = None,
    fields: Mapping[str, Any] | None = None,
) -> Run:
    """What the stages of a config work in; without a mesh, to look at what is there."""
    loaders = config.data.workers
    data = Data(
        config.data,
        workdir,
        config.procedure,
        config.encoder.image_size,
        config.detector.image_size,
        readers=1 if mesh is None else max(hosts.share(loaders), 1),
    )
    return Run(
        workdir,
        data,
        mesh,
        seed=config.seed,
        dtype=config.dtype,
        loaders=loaders,
        batch=config.predict.batch,
        log_every=config.log_every,
        checkpoint_every=config.checkpoint_every,
        profile_steps=profile_steps,
        fields=fields or {},
    )


def chosen(stages: Mapping[str, Stage], config: Config, run: Run) -> list[Stage]:
    """The stages that a run has, in order; it renders none where a finished folder is given."""
    return [
        stage
        for name, stage in stages.items()
        if name in config.stages and not (isinstance(stage, Rendering) and stage.is_given(run))
    ]


def _keep_compiled() -> None:
    """Has JAX keep compiled programs for later runs of this user, unless it was told where."""
    if not jax.config.values["jax_compilation_cache_dir"]:
        cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        folder = os.path.join(cache, "stormpsr_jax", "compiled")
        jax.config.update("jax_compilation_cache_dir", folder)


def _refuse(config: Config, run: Run, stages: Sequence[Stage]) -> None:
    raise_all(find_errors(config, run, stages))


def _check(config: Config, run: Run, stages: Sequence[Stage], remake: bool) -> None:
    _refuse(config, run, stages)
    remaking.check(run, stages, remake)
    content = json.dumps(msgspec.to_builtins(config), indent=2)
    files.write_text(run.workdir / "config.json", content + "\n")


def _make(run: Run, stage: Stage, remake: bool, shared: Path | None) -> bool:
    """Makes a stage, unless all is there; returns whether its results are new to this run."""
    taken = False
    if shared is not None:
        taken = hosts.on_process_0(lambda: take(run, stage, shared))
    if done := hosts.on_process_0(lambda: remaking.prepare(run, stage, remake)):
        _say(f"{stage.name}: done before")
    else:
        start = time.monotonic()
        _say(f"{stage.name} …")
        facts = stage.make(run)
        hosts.wait_for_all(f"{stage.name} run")
        hosts.on_process_0(lambda: remaking.finish(run, stage, facts))
        _say(f"{stage.name}: {time.monotonic() - start:.0f} s")
    if shared is not None:
        hosts.on_process_0(lambda: give(run, stage, shared))
    if jax.process_index() == 0:
        stage.show(run)
    return taken or not done


def _say(text: str) -> None:
    if jax.process_index() == 0:
        print(text, flush=True)
