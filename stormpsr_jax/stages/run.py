"""Runs the stages of a config: mistakes first, then what is not made yet or depends on a change."""

import contextlib
import functools
import os
import shutil
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import jax
from ml_collections import ConfigDict

from stormpsr_jax.base import files, installed, interruption, memory
from stormpsr_jax.base.errors import raise_all, tell
from stormpsr_jax.stages import checks, order, provenance, remaking
from stormpsr_jax.stages.context import Context
from stormpsr_jax.stages.stage import Stage
from stormpsr_jax.training import hosts
from stormpsr_jax.training.sharding import make_mesh

NVIDIA, TPU = Path("/dev/nvidia0"), Path("/dev/accel0")  # devices of this machine


def run(
    config: ConfigDict,
    workdir: Path,
    profile_steps: tuple[int, int] | None = None,
    remake: str = "",
    others: Sequence[Path] = (),
    on_start: Callable[[], None] = lambda: None,
    claims: Path | None = None,
    keep: Sequence[str] = (),
) -> None:
    """Runs the stages of a config in a working directory.

    Args:
        profile_steps: steps (first, last) of every trained stage to record a profile of.
        remake: what becomes of trained weights that depend on a change: "anew" throws them away,
            "continue" trains on from them where nothing but data has changed, "" asks.
        others: work folders whose finished stages are taken over where they are the very same.
        on_start: called once no mistake was found, before anything is computed.
        claims: folder of locks that runs with stages in common share: each is made by one of them,
            and taken over by those that have its work folder among `others`.
        keep: stages that stay though other sources of the package made them; "all".

    Raises:
        ValueError: all mistakes that can be found before anything is computed; a change after which
            weights would be trained again, without `remake`; whatever a stage says about its input.
        SystemExit: after SIGTERM or Ctrl-C; see `interruption`. With the same status as after
            SIGTERM where other runs are making all stages that could be next.
    """
    memory.keep_freed()
    raise_all([f"--from={other}: no such work folder" for other in others if not other.is_dir()])
    known = ["all", *(stage.name for stage in order.STAGES)]
    raise_all([f"--keep={name}: no such stage" for name in keep if name not in known])
    hosts.check_agreement(
        {k: v for k, v in provenance.flat_config(config).items() if not k.endswith(".workers")}
    )
    hosts.here()  # together, for the first time: process 0 alone opens data below
    workdir.mkdir(parents=True, exist_ok=True)
    _keep_compiled()
    with hosts.claimed(workdir):
        mesh = make_mesh(fsdp=config.mesh.fsdp)
        opened = functools.partial(Context, config, workdir, mesh, profile_steps, keep=keep)
        context = opened()
        hosts.on_process_0(lambda: _check(context, remake))
        if mesh.size > 1:
            _say(f"mesh {dict(mesh.shape)} over {jax.process_count()} processes")
        if any(s.is_given(context) and s.name in config.stages for s in order.STAGES):
            _say(f"data: {config.data.dir} is trained on as it is, data.synthetic is not used")
        if context.extra is not None:
            _say(str(context.extra))
        on_start()
        left = list(order.chosen(context))
        while left:
            stopped = f"stopped before {left[0].name}; run the same command again"
            interruption.end_if_asked(stopped)
            if interruption.all_stop():
                interruption.end(stopped)
            for stage in _ready(context, left):
                if (made := _run_stage(context, stage, remake, others, claims)) is not None:
                    break
            else:
                interruption.end(stopped)
            left.remove(stage)
            if made and stage.makes_data:
                context = opened()  # with what is new
                hosts.on_process_0(functools.partial(_check_data, context))
        interruption.end_if_asked("all stages are done")


def _keep_compiled() -> None:
    """Has JAX keep compiled programs for later runs of this user, unless it was told where."""
    if not jax.config.jax_compilation_cache_dir:
        cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        folder = os.path.join(cache, "stormpsr_jax", "compiled")
        jax.config.update("jax_compilation_cache_dir", folder)


def _check_data(context: Context) -> None:
    raise_all(checks.find_errors(context))


def _check(context: Context, remake: str) -> None:
    _check_data(context)
    remaking.check(context, order.chosen(context), remake)
    for text in unused_devices({device.platform for device in jax.local_devices()}):
        tell("warning", text)
    config = context.config.to_json_best_effort(indent=2)
    files.write_text(context.workdir / "config.json", config + "\n")


def unused_devices(platforms: Collection[str]) -> list[str]:
    """Says which kinds of devices are here that JAX lacks the package for; JAX_PLATFORMS rules."""
    if os.environ.get("JAX_PLATFORMS"):
        return []
    gpu = shutil.which("nvidia-smi") is not None or NVIDIA.exists()
    kinds = (("an NVIDIA GPU", "gpu", "cuda", gpu), ("a TPU", "tpu", "tpu", TPU.exists()))
    return [
        f"this machine has {name}, which JAX does not see, so everything runs on the CPU, many "
        f"times slower; {installed.extra(extra)} (JAX_PLATFORMS=cpu if the CPU is meant)"
        for name, platform, extra, is_there in kinds
        if is_there and platform not in platforms
    ]


def _ready(context: Context, left: Sequence[Stage]) -> list[Stage]:
    """The stages, of those that are left, that none of the others comes before."""
    if left[0].makes_data:
        return [left[0]]
    return [stage for stage in left if not {*left}.intersection(stage.after(context))]


def _run_stage(
    context: Context, stage: Stage, remake: str, others: Sequence[Path], claims: Path | None
) -> bool | None:
    """Makes a stage, unless all is there; returns whether it did, None if another run does."""
    with contextlib.ExitStack() as held:
        if claims is not None:
            claim = functools.partial(remaking.claim, context, stage, claims, held)
            if not hosts.on_process_0(claim):
                return None
        return _make(context, stage, remake, others)


def _make(context: Context, stage: Stage, remake: str, others: Sequence[Path]) -> bool:
    if done := hosts.on_process_0(lambda: remaking.prepare(context, stage, remake, others)):
        _say(f"{stage.name}: done before")
    else:
        start = time.monotonic()
        _say(f"{stage.name} …")
        facts = stage.make(remaking.prepared(context, stage))
        hosts.wait_for_all(f"{stage.name} run")
        hosts.on_process_0(lambda: remaking.finish(context, stage, facts))
        _say(f"{stage.name}: {time.monotonic() - start:.0f} s")
    if stage.show and jax.process_index() == 0:
        stage.show(context)
    return not done


def _say(text: str) -> None:
    if jax.process_index() == 0:
        print(text, flush=True)
