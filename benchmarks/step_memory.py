"""What a step needs of a device's memory, by the compiler for it, without having it.

Part of `cost.py --memory`: after pip install 'jax[cuda12]' for a100 and h100, 'jax[tpu]' for v5e
(libtpu compiles on any Linux host). GiB are arguments, results, temporaries and code, without what
is updated in place. `finetune` is compiled for 1 and 3 clips, which says what fits at any number;
other stages for the config's batch. XLA for CPU merges what remat recomputes with what it was
computed from, so its figures are of no use here.
"""

import itertools
import math
import os
import tempfile
from pathlib import Path

os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # no cloud to ask for the machine's TPU
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "")
    + " --xla_gpu_autotune_level=0 --xla_gpu_enable_triton_gemm=false"  # both need the GPU itself
)

import jax
import numpy as np
import stage_loops
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh

from stormpsr_jax.experiments.runs import changed
from stormpsr_jax.training.devices import AXES

# GiB of a device; a GPU's is what its driver reports, XLA takes 75 % of it unless
# XLA_PYTHON_CLIENT_MEM_FRACTION says otherwise.
CAPACITY = {"a100": (39.4, 79.3), "h100": (79.1,), "v5e": (15.75,)}
# The properties of the SXM cards with 80 GB, as XLA's GPU compiler wants them described
# (stream_executor.GpuTargetConfigProto; XLA has such files for many cards).
GPU = """
gpu_device_info {{
  threads_per_block_limit: 1024  threads_per_warp: 32  threads_per_core_limit: 2048
  shared_memory_per_block: 49152  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535  block_dim_limit_z: 65535  thread_dim_limit_x: 1024
  thread_dim_limit_y: 1024  thread_dim_limit_z: 64  registers_per_core_limit: 65536
  registers_per_block_limit: 65536  {own}
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 8 }}
device_description_str: "{name}"
"""
GPUS = {
    "a100": GPU.format(
        name="NVIDIA A100-SXM4-80GB",
        own="shared_memory_per_core: 167936  shared_memory_per_block_optin: 166912  "
        "core_count: 108  fpus_per_core: 64  memory_bandwidth: 2039040000000  "
        "l2_cache_size: 41943040  clock_rate_ghz: 1.41  device_memory_size: 85100068864  "
        "cuda_compute_capability { major: 8 }",
    ),
    "h100": GPU.format(
        name="NVIDIA H100 80GB HBM3",
        own="shared_memory_per_core: 233472  shared_memory_per_block_optin: 232448  "
        "core_count: 132  fpus_per_core: 128  memory_bandwidth: 3352320000000  "
        "l2_cache_size: 52428800  clock_rate_ghz: 1.98  device_memory_size: 84942979072  "
        "cuda_compute_capability { major: 9 }",
    ),
}
SIZES = {"S": (384, 6), "B": (768, 12)}  # width, heads of ViT-S/16 and ViT-B/16


def make_mesh(target: str, data: int, fsdp: int) -> Mesh:
    """That of `training.devices.make_mesh`, of devices that need not be there."""
    count = data * fsdp
    if target in GPUS:
        described = {"target_config": GPUS[target], "topology": f"1x1x{max(count, 8)}"}
        topology = topologies.get_topology_desc(target, "cuda", **described)
    else:
        topology = topologies.get_topology_desc("v5e:4x4", "tpu")
    devices = np.array(topology.devices[:count]).reshape(data, fsdp)
    return Mesh(devices, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def device_gib(compiled: jax.stages.Compiled) -> float:
    """GiB that one device needs."""
    memory = compiled.memory_analysis()
    total = (
        memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        - memory.alias_size_in_bytes
        + memory.temp_size_in_bytes
        + memory.generated_code_size_in_bytes
    )
    return total / 2**30


def table(config, target: str, args) -> None:
    """Prints what one device needs for a step of each stage, and how many clips fit."""
    capacity = CAPACITY[target]
    head = ["stage", "ViT", "remat", "rows", "GiB", "each further row"]
    head += [f"rows in {gib:g} GiB" for gib in capacity]
    print(f"| {' | '.join(head)} |\n{'|---' * len(head)}|", flush=True)
    for size, remat in itertools.product(args.sizes, args.remat):
        with tempfile.TemporaryDirectory() as folder:
            width, num_heads = SIZES[size]
            sizes = {"encoder.width": width, "encoder.num_heads": num_heads, "finetune.batch": 1}
            fields = sizes | {"encoder.remat": remat, "attention": args.attention}
            mesh = make_mesh(target, 1, 1)
            sized = changed(config, fields)
            run, stages = stage_loops.opened(sized, Path(folder), mesh, recordings=1)
            for stage, definition in stage_loops.definitions(run, stages, args.stages).items():
                rows = len(next(iter(stage_loops.first_batch(definition).values())))
                each = (1, 3) if stage == "finetune" else (rows,)
                lowered = [stage_loops.lower(definition, mesh, n) for n in each]
                gib = [device_gib(step.compile()) for step in lowered]
                row = [stage, f"{size}/16", remat, str(each[0]), f"{gib[0]:.2f}"]
                if stage == "finetune":
                    more = (gib[1] - gib[0]) / 2
                    fit = [max(0, 1 + math.floor((room - gib[0]) / more)) for room in capacity]
                    row += [f"{more:.2f}", *map(str, fit)]
                else:
                    row += ["–"] * (1 + len(capacity))
                print(f"| {' | '.join(row)} |", flush=True)
