"""Memory of the end-to-end fine-tuning step on accelerators, compiled for them without having them.

    pip install 'jax[tpu]'       # --target=v5e, v5p, v6e (libtpu compiles on any Linux host), or
    pip install 'jax[cuda12]'    # --target=a100
    python benchmarks/accelerator_memory.py [--target=a100] [--sizes=S,B] [--remat=none,dots,full]
        [--microbatches=1,13] [--dtypes=bfloat16] [--fsdp=1]

Every row is stage `finetune` of configs/meccano.py as it ships (ViT/16, clips of 65 pictures of
224 x 224, the temporal transformer, gradient, clipping, SGD with momentum, donated state), with the
fields of its columns changed. The step is compiled for one clip and for several clips a device, and
the compiler's memory analysis of both gives what a device needs at any number of clips, as it grows
by the same amount with each: arguments + results + temporaries + code − what is updated in place.
With --fsdp=N it is compiled for N devices, and what is said is for one of them.

XLA for CPU merges what remat recomputes with what it was computed from, so its figures are of no
use here; the compilers for TPU and GPU leave remat as it is. Without the GPU its matrix products
are not tuned: they are cuBLAS calls with default workspaces.
"""

import argparse
import itertools
import math
import os
import sys
import tempfile
from pathlib import Path
from unittest import mock

os.environ["JAX_PLATFORMS"] = "cpu"  # what runs here; the targets are only compiled for
os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # no cloud to ask for the machine's TPU
os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")  # several compilations at a time
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "")
    + " --xla_gpu_autotune_level=0 --xla_gpu_enable_triton_gemm=false"  # both need the GPU itself
)

sys.path.append(str(Path(__file__).parents[1]))  # where the configs are

import jax
import jax.numpy as jnp
import numpy as np
import stage_loops
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh

from configs import meccano
from stormpsr_jax.stages import finetune
from stormpsr_jax.stages.context import Context
from stormpsr_jax.training import loop
from stormpsr_jax.training.sharding import AXES, state_shardings

# GiB of a device; a GPU's is what its driver reports, XLA takes 75 % of it unless
# XLA_PYTHON_CLIENT_MEM_FRACTION says otherwise.
CAPACITY = {"a100": (39.4, 79.3), "v5e": (15.75,), "v6e": (31.25,), "v5p": (95.0,)}
TOPOLOGY = {"v5e": "v5e:4x4", "v6e": "v6e:4x4", "v5p": "v5p:2x2x4"}
# The properties of the SXM4 card with 80 GB, as XLA's GPU compiler wants them described
# (stream_executor.GpuTargetConfigProto; XLA has such files for many cards).
A100 = """
gpu_device_info {
  threads_per_block_limit: 1024  threads_per_warp: 32  threads_per_core_limit: 2048
  shared_memory_per_block: 49152  shared_memory_per_core: 167936
  shared_memory_per_block_optin: 166912  core_count: 108  fpus_per_core: 64
  block_dim_limit_x: 2147483647  block_dim_limit_y: 65535  block_dim_limit_z: 65535
  thread_dim_limit_x: 1024  thread_dim_limit_y: 1024  thread_dim_limit_z: 64
  registers_per_core_limit: 65536  registers_per_block_limit: 65536
  memory_bandwidth: 2039040000000  l2_cache_size: 41943040  clock_rate_ghz: 1.41
  device_memory_size: 85100068864  cuda_compute_capability { major: 8 }
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 8 }
device_description_str: "NVIDIA A100-SXM4-80GB"
"""
SIZES = {"S": (384, 6), "B": (768, 12)}  # width, heads of ViT-S/16 and ViT-B/16


def make_mesh(target: str, data: int, fsdp: int) -> Mesh:
    """The mesh of `training.sharding.make_mesh`, of devices that need not be there."""
    count = data * fsdp
    if target == "a100":
        described = {"target_config": A100, "topology": f"1x1x{max(count, 8)}"}
        topology = topologies.get_topology_desc("a100", "cuda", **described)
    else:
        topology = topologies.get_topology_desc(TOPOLOGY[target], "tpu")
    devices = np.array(topology.devices[:count]).reshape(data, fsdp)
    return Mesh(devices, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def lower(arguments: dict, mesh: Mesh, rows: int | None = None) -> jax.stages.Lowered:
    """A stage's step, as the training loop jits it, lowered for a mesh.

    Args:
      arguments: of `loop.train` (`stage_loops.loop_arguments`).
      mesh: may be of devices that are not there.
      rows: B of the global batch; None is that of the pipeline.
    """
    abstract = lambda tree: jax.tree.map(  # noqa: E731
        lambda a: jax.ShapeDtypeStruct(np.shape(a), a.dtype), tree
    )
    params, batch_stats = abstract(arguments["init"]())
    batch = {
        name: jax.ShapeDtypeStruct((rows or len(array), *array.shape[1:]), array.dtype)
        for name, array in next(arguments["data"](0)).items()
    }
    optimizer, loss_fn, rng = arguments["optimizer"](params), arguments["loss_fn"], arguments["rng"]
    state = jax.eval_shape(
        lambda *start: loop.new_state(optimizer, *start),
        params,
        batch_stats,
        abstract(jax.random.key_data(rng)),
    )
    _, (metrics, _) = jax.eval_shape(loss_fn, params, batch_stats, batch, rng)
    zero = jax.ShapeDtypeStruct((), jnp.float32)
    sums = dict.fromkeys(("count", "loss", "grad_norm", *metrics), zero)
    step = loop.jit_step(loss_fn, optimizer, state_shardings(state, mesh), mesh)
    return step.lower(state, sums, batch)


def device_gib(lowered: jax.stages.Lowered) -> float:
    """GiB that one device needs."""
    found = lowered.compile().memory_analysis()
    total = (
        found.argument_size_in_bytes
        + found.output_size_in_bytes
        - found.alias_size_in_bytes
        + found.temp_size_in_bytes
        + found.generated_code_size_in_bytes
    )
    return total / 2**30


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    split = lambda text: text.split(",")  # noqa: E731
    parser.add_argument("--target", default="a100", choices=CAPACITY)
    parser.add_argument("--sizes", type=split, default=["S", "B"])
    parser.add_argument("--remat", type=split, default=["none", "dots", "full"])
    parser.add_argument("--microbatches", type=split, default=["1", "13"])
    parser.add_argument("--dtypes", type=split, default=["bfloat16"])
    parser.add_argument("--fsdp", type=int, default=1)
    parser.add_argument(
        "--clips", type=int, nargs=2, default=[1, 3], help="Compiled for, a device."
    )
    args = parser.parse_args()
    capacity = CAPACITY[args.target]
    print(
        f"GiB on one {args.target} device\n\n| ViT | activations | remat | microbatches | fsdp "
        "| 1 clip | each further clip | "
        + " | ".join(f"clips in {gib:g} GiB" for gib in capacity)
        + " |\n"
        + "|---" * (7 + len(capacity))
        + "|",
        flush=True,
    )
    for size in args.sizes:
        with tempfile.TemporaryDirectory() as folder:
            config = meccano.get_config()
            config.encoder.width, config.encoder.num_heads = SIZES[size]
            config.finetune.batch, config.data.workers = 1, 0
            context = Context(config, Path(folder), make_mesh(args.target, 1, args.fsdp))
            stage_loops.make_data(context.data_dir, context.procedure, 224, recordings=1)
            stage_loops.loop_arguments(context)  # leaves the weights that the stage starts from
            for dtype, remat, parts in itertools.product(
                args.dtypes, args.remat, args.microbatches
            ):
                config.dtype, config.encoder.remat = dtype, remat
                config.encoder.microbatches = int(parts)
                with mock.patch.object(loop, "train") as train:
                    finetune.run(context)
                few, many = args.clips
                less, more = (
                    device_gib(lower(train.call_args.kwargs, context.mesh, clips * args.fsdp))
                    for clips in args.clips
                )
                each = (more - less) / (many - few)
                fit = [max(0, few + math.floor((gib - less) / each)) for gib in capacity]
                print(
                    f"| {size}/16 | {dtype} | {remat} | {parts} | {args.fsdp} "
                    f"| {less - (few - 1) * each:.2f} | {each:.2f} | "
                    + " | ".join(str(clips) for clips in fit)
                    + " |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
