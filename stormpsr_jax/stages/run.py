"""Runs the stages of a config: mistakes first, then what is not made yet or depends on a change."""

import functools
import os
import shutil
import time
from collections.abc import Callable, Collection
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
    remake: bool = False,
    on_start: Callable[[], None] = lambda: None,
) -> None:
    """Runs the stages of a config in a working directory.

    Args:
        profile_steps: steps (first, last) of every trained stage to record a profile of.
        remake: throws away trained weights that depend on a change, and what other code of the
            package has made; otherwise the former is an error, and the latter stays.
        on_start: called once no mistake was found, before anything is computed.

    Raises:
        ValueError: all mistakes that can be found before anything is computed; a change after which
            weights would be trained again, without `remake`; whatever a stage says about its input.
        SystemExit: after SIGTERM or Ctrl-C; see `interruption`.
    """
    memory.keep_freed()
    hosts.check_agreement(
        {k: v for k, v in provenance.flat_config(config).items() if not k.endswith(".workers")}
    )
    hosts.here()  # together, for the first time: process 0 alone opens data below
    workdir.mkdir(parents=True, exist_ok=True)
    _keep_compiled()
    with hosts.claimed(workdir):
        mesh = make_mesh(fsdp=config.mesh.fsdp)
        opened = functools.partial(Context, config, workdir, mesh, profile_steps)
        context = opened()
        hosts.on_process_0(lambda: _check(context, remake))
        if mesh.size > 1:
            _say(f"mesh {dict(mesh.shape)} over {jax.process_count()} processes")
        if any(s.is_given(context) and s.name in config.stages for s in order.STAGES):
            _say(f"data: {config.data.dir} is trained on as it is, data.synthetic is not used")
        if context.extra is not None:
            _say(str(context.extra))
        on_start()
        for stage in order.chosen(context):
            stopped = f"stopped before {stage.name}; run the same command again"
            interruption.end_if_asked(stopped)
            if interruption.all_stop():
                interruption.end(stopped)
            if _run_stage(context, stage, remake) and stage.makes_data:
                context = opened()  # with what is new
                hosts.on_process_0(functools.partial(_check_data, context))
        interruption.end_if_asked("all stages are done")


def _keep_compiled() -> None:
    """Has JAX keep compiled programs for later runs of this user, unless it was told where."""
    if not jax.config.values["jax_compilation_cache_dir"]:
        cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        folder = os.path.join(cache, "stormpsr_jax", "compiled")
        jax.config.update("jax_compilation_cache_dir", folder)


def _check_data(context: Context) -> None:
    raise_all(checks.find_errors(context))


def _check(context: Context, remake: bool) -> None:
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


def _run_stage(context: Context, stage: Stage, remake: bool) -> bool:
    """Makes a stage, unless all is there; returns whether it did."""
    if done := hosts.on_process_0(lambda: remaking.prepare(context, stage, remake)):
        _say(f"{stage.name}: done before")
    else:
        start = time.monotonic()
        _say(f"{stage.name} …")
        facts = stage.make(context)
        hosts.wait_for_all(f"{stage.name} run")
        hosts.on_process_0(lambda: remaking.finish(context, stage, facts))
        _say(f"{stage.name}: {time.monotonic() - start:.0f} s")
    if stage.show and jax.process_index() == 0:
        stage.show(context)
    return not done


def _say(text: str) -> None:
    if jax.process_index() == 0:
        print(text, flush=True)
