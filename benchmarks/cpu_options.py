"""What the options of XLA for CPUs bring: training steps, and encoding, with and without them.

    python benchmarks/cpu_options.py [--stages=pretrain,temporal,detector,encode] [--steps=12]
        [--size=PIXELS] [--config=synthetic] [--config.FIELD=value …]

The options are those of `base/devices.py`. The two programs of a stage are compiled in one process
and take turns, on made-up pictures; `encode` is the config's encoder on 160 pictures. Columns: the
temporary memory of the program, by the compiler's analysis; seconds of the processor and of the
clock that a step takes, medians, after one that warms up; and their ratios, with / without.
"""

import argparse
import contextlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import jax
import numpy as np
import stage_loops
from train_step import compiled

from stormpsr_jax.base import devices
from stormpsr_jax.serving import functions
from stormpsr_jax.stages import config_flag, networks
from stormpsr_jax.stages.context import Context
from stormpsr_jax.training.sharding import make_mesh

ENCODED = 160  # pictures


def training(context: Context, stage: str) -> tuple[Callable[[], object], float]:
    """One step of a stage, as a function, and the MiB that it takes."""
    definition = stage_loops.definitions(context, [stage])[stage]
    step, *held, batch = compiled(context, stage, definition)

    def once() -> None:
        held[:] = jax.block_until_ready(step(*held, batch))[:2]

    return once, step.memory_analysis().temp_size_in_bytes / 2**20


def encoding(context: Context) -> tuple[Callable[[], object], float]:
    """As `training`, of the encoder; its memory is not known."""
    functions._jitted.cache_clear()  # else both sides were the same program
    weights = stage_loops.definitions(context, ["pretrain"])["pretrain"].init()
    source = context.source("train")
    encode = networks.frame_encoder(context, *weights, source)
    name = next(iter(source.recordings))
    images = np.repeat(source.frames(name, [0]), ENCODED, axis=0)
    return lambda: encode(images), float("nan")


def row(context: Context, stage: str, steps: int) -> str:
    """A row of the table."""
    sides, memory = {}, {}
    for side in ("with", "without"):
        none = mock.patch.dict(devices._OPTIONS, cpu={})
        with none if side == "without" else contextlib.nullcontext():
            made = encoding(context) if stage == "encode" else training(context, stage)
            sides[side], memory[side] = made
            sides[side]()  # compiles, or warms up
    taken: dict[str, list[tuple[float, float]]] = {side: [] for side in sides}
    for _ in range(steps):
        for side, once in sides.items():
            processor, clock = time.process_time(), time.perf_counter()
            once()
            taken[side].append((time.process_time() - processor, time.perf_counter() - clock))
    cells = []
    for which in (0, 1):
        a, b = (statistics.median(t[which] for t in taken[side]) for side in sides)
        cells.append(f"{a:.3f} | {b:.3f} | {a / b:.2f}")
    mib = " | ".join("–" if np.isnan(m) else f"{m:,.0f}" for m in memory.values())
    return f"| {stage} | {mib} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    config_flag.add_config(parser, "synthetic")
    stages = ["pretrain", "temporal", "detector", "encode"]
    parser.add_argument("--stages", type=lambda text: text.split(","), default=stages)
    parser.add_argument("--steps", type=int, default=12, help="steps of each side")
    parser.add_argument("--size", type=int, help="picture height and width; default: the config's")
    args = config_flag.parse(parser, None)
    if jax.default_backend() != "cpu":
        sys.exit("error: there are no such options for a device that is no CPU")
    with tempfile.TemporaryDirectory() as name:
        context = Context(args.config, Path(name), make_mesh(1, 1))
        stage_loops.make_folders(context, args.size)
        print("| stage | MiB with | without | processor, s with | without | ratio ", end="")
        print("| clock, s with | without | ratio |")
        print("|---|---|---|---|---|---|---|---|---|")
        for stage in args.stages:
            with contextlib.redirect_stdout(sys.stderr):
                text = row(context, stage, args.steps)
            print(text, flush=True)


if __name__ == "__main__":
    main()
