"""Memory and time of the SupCon loss and its gradient: the plain N × N matrix against blocks.

    python benchmarks/supcon.py [--memory_devices=64] [--devices=8] [--block=512]
        [--memory_batches=1024,8192,65536] [--batches=512,2048,8192] [--runs=5]

Memory is the compiler's count of temporary bytes on one device, from a compilation for
`memory_devices` virtual CPU devices; nothing that large is run. Time is the fastest of several
runs on `devices` virtual devices, which share this machine's cores. The plain loss gets the same
rows sharded over the same devices, and XLA decides how to compute it.
"""

import argparse
import functools
import os
import subprocess
import sys
import time

WIDTH = 128


def compiled(n: int, block: int, blockwise: bool):
    """Loss and gradient, compiled for all devices of this process."""
    import jax
    import jax.numpy as jnp

    from stormpsr_jax.training import losses
    from stormpsr_jax.training.sharding import batch_sharding, make_mesh

    mesh = make_mesh()
    rows = batch_sharding(mesh)
    loss = losses.supcon
    if blockwise:
        loss = functools.partial(losses.supcon_blockwise, mesh=mesh, block=block)
    step = jax.jit(jax.value_and_grad(loss), in_shardings=(rows, rows), out_shardings=(None, rows))
    z = jax.ShapeDtypeStruct((n, WIDTH), jnp.float32)
    return step.lower(z, jax.ShapeDtypeStruct((n,), jnp.int32)).compile(), rows


def temporary_mib(n: int, block: int, blockwise: bool) -> float:
    """MiB of temporary memory that one device needs."""
    executable, _ = compiled(n, block, blockwise)
    return executable.memory_analysis().temp_size_in_bytes / 2**20


def seconds(n: int, block: int, runs: int) -> tuple[float, float]:
    """The fastest of several runs, plain and blockwise taking turns."""
    import jax
    import numpy as np

    rng = np.random.default_rng(0)
    z = rng.normal(size=(n, WIDTH)).astype(np.float32)
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    labels = rng.integers(0, 22, n).astype(np.int32)
    times = {False: [], True: []}
    steps = {kind: compiled(n, block, kind) for kind in times}
    for _ in range(runs + 1):  # the first run warms up
        for kind, (step, rows) in steps.items():
            arguments = jax.device_put((z, labels), rows)
            start = time.perf_counter()
            jax.block_until_ready(step(*arguments))
            times[kind].append(time.perf_counter() - start)
    return min(times[False][1:]), min(times[True][1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--memory_devices", type=int, default=64)
    parser.add_argument("--devices", type=int, default=8, help="Devices for the times.")
    parser.add_argument("--block", type=int, default=512, help="Rows seen at a time.")
    batches = lambda text: [int(n) for n in text.split(",")]  # noqa: E731
    parser.add_argument("--memory_batches", type=batches, default=[1_024, 8_192, 65_536])
    parser.add_argument("--batches", type=batches, default=[512, 2_048, 8_192], help="Timed.")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--part", choices=("memory", "time"), help="Run one table only.")
    args = parser.parse_args()
    if args.part is None:  # the number of devices is fixed once JAX has started
        for part, devices in (("memory", args.memory_devices), ("time", args.devices)):
            flag = "--xla_force_host_platform_device_count"
            flag = f"{os.environ.get('XLA_FLAGS', '')} {flag}={devices}"
            words = [sys.executable, __file__, *sys.argv[1:], f"--part={part}"]
            env = {**os.environ, "XLA_FLAGS": flag, "JAX_PLATFORMS": "cpu"}
            subprocess.run(words, env=env, check=True)
        return
    if args.part == "memory":
        print(
            f"| batch | plain, MiB on each of {args.memory_devices} devices | blockwise | ratio |"
        )
        print("|---|---|---|---|")
        for n in args.memory_batches:
            plain, blocks = (temporary_mib(n, args.block, kind) for kind in (False, True))
            print(f"| {n:,} | {plain:.2f} | {blocks:.2f} | 1/{plain / blocks:.1f} |", flush=True)
        return
    print(f"\n| batch | plain, s on {args.devices} devices | blockwise, s | plain / blockwise |")
    print("|---|---|---|---|")
    for n in args.batches:
        plain, blocks = seconds(n, args.block, args.runs)
        print(f"| {n:,} | {plain:.3f} | {blocks:.3f} | {plain / blocks:.2f} |", flush=True)


if __name__ == "__main__":
    main()
