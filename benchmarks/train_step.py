"""Speed and memory of every stage's training step on 1 to 8 devices.

    python benchmarks/train_step.py [--config=synthetic_full] [--devices=1,2,4,8] [--steps=5]
        [--stages=pretrain,temporal,finetune,detector] [--size=PIXELS] [--matmul=4096]
        [--config.FIELD=value …]

The step is the training loop's own, with each stage's own model, loss, optimiser, sharding and
pipeline, on made-up pictures. Batches are the config's, and global: `--config.temporal.batch=32`
changes one, and every batch must divide by the number of devices (the one of `pretrain` comes from
n_states · (n_per_state + cad_per_state) + any_frames; `--config.pretrain.any_frames=28` makes it
112 pictures in configs/synthetic_full.py). `--config.mesh.fsdp=-1` shards the parameters as well.

Columns: pictures, or for `temporal` embeddings, a second; FLOPs of the step by the compiler's cost
analysis, what is recomputed (encoder.remat) included; their share of the peak, which is the fastest
of several products of two float32 matrices (`matmul` rows and columns; large enough, they keep the
device busy) on all cores in the same process; and by the compiler's memory analysis, for one
device, the temporary memory and that of arguments and results (the state, which is updated in
place, and the batch). The fastest of `steps` steps counts; 0 steps compile only, so that a step too
large for this machine can be looked at. On CPU the devices are virtual and share the cores: more of
them make no step faster, but show the overhead and the memory.
"""

import argparse
import contextlib
import functools
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from stormpsr_jax.stages import config_flag


def matmul_peak(size: int, runs: int = 5) -> float:
    """FLOP/s of the fastest of several float32 products of square matrices."""
    import jax
    import jax.numpy as jnp

    a = jnp.full((size, size), 0.5, jnp.float32)
    product = jax.jit(jnp.matmul)
    jax.block_until_ready(product(a, a))
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        jax.block_until_ready(product(a, a))
        times.append(time.perf_counter() - start)
    return 2 * size**3 / min(times)


def compiled(context, stage: str, definition):
    """A stage's step on the devices of a mesh: (compiled, state, sums, batch)."""
    import jax
    import numpy as np

    from stormpsr_jax.training import sharding
    from stormpsr_jax.training.step import jit_step, new_state

    mesh, loss_fn, rng = context.mesh, definition.loss_fn, context.key(f"{stage}/steps")
    params, batch_stats = definition.init()
    optimizer = definition.optimizer(params)
    create = functools.partial(new_state, optimizer)
    start = params, batch_stats, jax.random.key_data(rng)
    shardings = sharding.state_shardings(jax.eval_shape(create, *start), mesh)
    state = jax.jit(create, out_shardings=shardings)(*start)
    data = definition.data(0)
    batch = sharding.put(next(data), sharding.batch_sharding(mesh))
    data.close()
    metrics = jax.eval_shape(loss_fn, params, batch_stats, batch, rng)[1][0]
    names = ("count", "loss", "grad_norm", *metrics)
    sums = {name: jax.device_put(np.float32(0), sharding.replicated(mesh)) for name in names}
    step = jit_step(loss_fn, optimizer, shardings, mesh).lower(state, sums, batch).compile()
    return step, state, sums, batch


def timed(context, stage: str, definition, steps: int):
    """A stage's step: (compiled, batch, seconds of each of some steps)."""
    import jax

    step, state, sums, batch = compiled(context, stage, definition)
    times = []
    for _ in range(steps and steps + 1):  # the first warms up
        begun = time.perf_counter()
        state, sums, _ = jax.block_until_ready(step(state, sums, batch))
        times.append(time.perf_counter() - begun)
    return step, batch, times[1:]


def measure(context, stage: str, definition, peak: float, steps: int) -> str:
    """One row of the table."""
    from stage_loops import num_frames

    step, batch, times = timed(context, stage, definition, steps)
    frames, devices = num_frames(batch), context.mesh.size
    flops = step.cost_analysis()["flops"] * devices
    memory = step.memory_analysis()
    held = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    rate = share = "–"
    if times:
        rate, share = f"{frames / min(times):,.0f}", f"{flops / min(times) / peak:.0%}"
    return (
        f"| {stage} | {devices} | {frames:,} | {rate} | {flops / 1e9:,.1f} | {share} "
        f"| {memory.temp_size_in_bytes / 2**20:,.0f} | {held / 2**20:,.0f} |"
    )


def rows(args: argparse.Namespace) -> None:
    import stage_loops

    from stormpsr_jax.stages.context import Context
    from stormpsr_jax.training.sharding import make_mesh

    config, devices = args.config, args.here
    peak = matmul_peak(args.matmul)
    print(f"{devices} devices: matmul peak {peak / 1e9:.0f} GFLOP/s", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory() as name:
        context = Context(config, Path(name), make_mesh(config.mesh.data, config.mesh.fsdp))
        stage_loops.make_folders(context, args.size)
        with contextlib.redirect_stdout(sys.stderr):  # the table alone goes to stdout
            definitions = stage_loops.definitions(context, args.stages)
        for stage in args.stages:
            try:
                with contextlib.redirect_stdout(sys.stderr):
                    row = measure(context, stage, definitions[stage], peak, args.steps)
                print(row, flush=True)
            except ValueError as error:  # a batch that the devices cannot share evenly
                print(f"{stage} on {devices} devices: {error}", file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    config_flag.add_config(parser, "synthetic_full")
    add, names = parser.add_argument, lambda text: text.split(",")
    add("--devices", type=names, default=("1", "2", "4", "8"), help="numbers of devices")
    stages = ("pretrain", "temporal", "finetune", "detector")
    add("--stages", type=names, default=stages, help="trained stages")
    add("--steps", type=int, default=5, help="steps that are timed; 0 compiles only")
    add("--size", type=int, help="picture height and width; otherwise the config's")
    add("--here", type=int, help="measure in this process, on this many devices")
    add("--matmul", type=int, default=4096, help="rows and columns of the matrices of the peak")
    args = config_flag.parse(parser, None)
    if args.here:
        rows(args)
        return
    print(
        "| stage | devices | frames a step | frames/s | GFLOP a step | share of peak "
        "| temporary MiB a device | state and batch, MiB a device |"
    )
    print("|---|---|---|---|---|---|---|---|", flush=True)
    for devices in args.devices:  # their number is fixed once JAX has started
        flag = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
        words = [sys.executable, __file__, *sys.argv[1:], f"--here={devices}"]
        env = {**os.environ, "XLA_FLAGS": flag}
        subprocess.run(words, env=env, check=True)


if __name__ == "__main__":
    main()
