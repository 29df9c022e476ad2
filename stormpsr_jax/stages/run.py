"""Runs the stages of a config: mistakes first, then what is not made yet or depends on a change."""

import functools
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import msgspec
from ml_collections import ConfigDict

from stormpsr_jax.base import files, interruption, memory
from stormpsr_jax.base.errors import raise_all
from stormpsr_jax.configs.default import Config
from stormpsr_jax.stages import checks, config_flag, order, remaking, sharing
from stormpsr_jax.stages.data import Data
from stormpsr_jax.stages.rendering import Rendering
from stormpsr_jax.stages.stage import Run, Stage
from stormpsr_jax.training import hosts
from stormpsr_jax.training.sharding import make_mesh


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
        shared: folder of results that several runs share; see `sharing`.
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
    raise_all(checks.find_errors(config, run, stages))


def _check(config: Config, run: Run, stages: Sequence[Stage], remake: bool) -> None:
    _refuse(config, run, stages)
    remaking.check(run, stages, remake)
    content = json.dumps(msgspec.to_builtins(config), indent=2)
    files.write_text(run.workdir / "config.json", content + "\n")


def _make(run: Run, stage: Stage, remake: bool, shared: Path | None) -> bool:
    """Makes a stage, unless all is there; returns whether its results are new to this run."""
    taken = False
    if shared is not None:
        taken = hosts.on_process_0(lambda: sharing.take(run, stage, shared))
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
        hosts.on_process_0(lambda: sharing.give(run, stage, shared))
    if jax.process_index() == 0:
        stage.show(run)
    return taken or not done


def _say(text: str) -> None:
    if jax.process_index() == 0:
        print(text, flush=True)
