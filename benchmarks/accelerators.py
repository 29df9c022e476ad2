"""Training steps on accelerators: compiled for them without having them, or measured on them.

    pip install 'jax[tpu]'       # --target=v5e, v5p, v6e (libtpu compiles on any Linux host), or
    pip install 'jax[cuda12]'    # --target=a100 or h100
    python benchmarks/accelerators.py [--target=a100] [--config=meccano] [--stages=finetune]
        [--sizes=S,B] [--remat=none,dots,full] [--attention=auto] [--microbatches=1,13]
        [--dtypes=bfloat16] [--devices=1] [--fsdp=1] [--clips 1 3]
    python benchmarks/accelerators.py --lower [--config=meccano] [--stages=finetune]
    python benchmarks/accelerators.py --measure [--config=meccano] [--stages=finetune,pretrain]

With --lower every stage is only lowered for CUDA and for TPU, with the batch of the config, which
needs neither package: what no device of that kind can do is an error then. With --measure the
config's steps run on all devices of this machine, and steps/s and their share of the peak (MFU, by
base/devices.py) are said; nothing else is computed.

Every row is a stage of the config as it ships (ViT/16 on 224 x 224 pictures, clips of 65,
the detector on 640 x 640; gradient, clipping, optimiser, donated state) with the fields of its
columns changed. Of no effect on `temporal` and `detector`, which have no ViT, are --sizes, --remat
and --microbatches: give one value of each. What is said is for one of --devices times --fsdp
devices.

`finetune` is compiled for --clips a device, other stages for the config's batch. Two numbers of
clips give what a device needs at any number, as it grows by the same amount with each; one is
enough for the other columns, which are of the first:

* GiB: arguments + results + temporaries + code − what is updated in place, by the compiler's
  memory analysis;
* state: parameters and what the optimiser keeps, whole, however many devices share it;
* GFLOP: of one device, with what remat computes twice, and GB moved, both counted in the compiled
  program (`roofline.py`);
* ms: that its kernels take at least, one after the other, each at the device's peak or at the full
  speed of its memory (base/devices.py), whichever takes longer;
* of peak: the share of it that GFLOP in that time are, without what is computed twice: with remat
  none and XLA's attention. No step can do better while its kernels stay what they are.

XLA for CPU merges what remat recomputes with what it was computed from, so its figures are of no
use here; the compilers for TPU and GPU leave remat as it is. Without the GPU its matrix products
are not tuned: they are cuBLAS calls with default workspaces.
"""

import argparse
import functools
import importlib
import itertools
import math
import os
import sys
import tempfile
import time
from pathlib import Path

if "--measure" not in sys.argv:
    os.environ["JAX_PLATFORMS"] = "cpu"  # what runs here; the targets are only compiled for
os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # no cloud to ask for the machine's TPU
os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")  # several compilations at a time
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "")
    + " --xla_gpu_autotune_level=0 --xla_gpu_enable_triton_gemm=false"  # both need the GPU itself
)

import jax
import jax.numpy as jnp
import numpy as np
import optax
import roofline
import stage_loops
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh

from stormpsr_jax.base import devices
from stormpsr_jax.networks.architectures import cost_of
from stormpsr_jax.stages.context import Context
from stormpsr_jax.training import sharding, step
from stormpsr_jax.training.definition import Definition
from stormpsr_jax.training.sharding import AXES, state_shardings
from stormpsr_jax.training.sharding import make_mesh as training_mesh

# GiB of a device; a GPU's is what its driver reports, XLA takes 75 % of it unless
# XLA_PYTHON_CLIENT_MEM_FRACTION says otherwise.
CAPACITY = {"a100": (39.4, 79.3), "h100": (79.1,), "v5e": (15.75,), "v6e": (31.25,), "v5p": (95.0,)}
TOPOLOGY = {"v5e": "v5e:4x4", "v6e": "v6e:4x4", "v5p": "v5p:2x2x4"}
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
    """The mesh of `training.sharding.make_mesh`, of devices that need not be there."""
    count = data * fsdp
    if target in GPUS:
        described = {"target_config": GPUS[target], "topology": f"1x1x{max(count, 8)}"}
        topology = topologies.get_topology_desc(target, "cuda", **described)
    else:
        topology = topologies.get_topology_desc(TOPOLOGY[target], "tpu")
    devices = np.array(topology.devices[:count]).reshape(data, fsdp)
    return Mesh(devices, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def abstract_state(definition: Definition) -> tuple[step.TrainState, optax.GradientTransformation]:
    """Shapes of a stage's train state, and its optimiser."""
    abstract = lambda tree: jax.tree.map(  # noqa: E731
        lambda a: jax.ShapeDtypeStruct(np.shape(a), a.dtype), tree
    )
    params, batch_stats = abstract(definition.init())
    optimizer = definition.optimizer(params)
    start = params, batch_stats, abstract(jax.random.key_data(jax.random.key(0)))
    return jax.eval_shape(lambda *start: step.new_state(optimizer, *start), *start), optimizer


def state_bytes(state: step.TrainState) -> int:
    """Bytes of parameters and optimiser state."""
    arrays = jax.tree.leaves((state.params, state.opt_state))
    return sum(math.prod(a.shape) * a.dtype.itemsize for a in arrays)


def first_batch(definition: Definition) -> dict[str, np.ndarray]:
    """The first one of the config's size."""
    data = definition.data(0)
    batch = next(data)
    data.close()
    return batch


def batch_rows(definition: Definition) -> int:
    """B of the config's batch."""
    return len(next(iter(first_batch(definition).values())))


def trace(
    definition: Definition, mesh: Mesh, batch: dict[str, np.ndarray], rows: int | None = None
) -> jax.stages.Traced:
    """A stage's step, as the training loop jits it, traced for a mesh.

    Args:
        definition: of the stage.
        mesh: may be of devices that are not there.
        batch: one of the pipeline's.
        rows: B of the global batch; None is that of `batch`.
    """
    batch = {
        name: jax.ShapeDtypeStruct((rows or len(array), *array.shape[1:]), array.dtype)
        for name, array in batch.items()
    }
    state, optimizer = abstract_state(definition)
    loss_fn, weights = definition.loss_fn, (state.params, state.batch_stats)
    _, (metrics, _) = jax.eval_shape(loss_fn, *weights, batch, jax.random.key(0))
    zero = jax.ShapeDtypeStruct((), jnp.float32)
    sums = dict.fromkeys(("count", "loss", "grad_norm", *metrics), zero)
    jitted = step.jit_step(loss_fn, optimizer, state_shardings(state, mesh), mesh)
    return jitted.trace(state, sums, batch)


def lower(definition: Definition, mesh: Mesh, rows: int | None = None) -> jax.stages.Lowered:
    """A stage's step lowered for a mesh of devices that need not be there; `rows` as in `trace`."""
    return trace(definition, mesh, first_batch(definition), rows).lower()


def device_gib(compiled: jax.stages.Compiled) -> float:
    """GiB that one device needs."""
    found = compiled.memory_analysis()
    total = (
        found.argument_size_in_bytes
        + found.output_size_in_bytes
        - found.alias_size_in_bytes
        + found.temp_size_in_bytes
        + found.generated_code_size_in_bytes
    )
    return total / 2**30


def timed(context: Context, stage: str, definition: Definition, steps: int) -> list[float]:
    """Seconds of each of some steps of a stage, on the devices that are there."""
    mesh, rng = context.mesh, context.key(f"{stage}/steps")
    params, batch_stats = definition.init()
    optimizer = definition.optimizer(params)
    create = functools.partial(step.new_state, optimizer)
    start = params, batch_stats, jax.random.key_data(rng)
    shardings = state_shardings(jax.eval_shape(create, *start), mesh)
    state = jax.jit(create, out_shardings=shardings)(*start)
    batch = sharding.put(first_batch(definition), sharding.batch_sharding(mesh))
    metrics = jax.eval_shape(definition.loss_fn, params, batch_stats, batch, rng)[1][0]
    names = ("count", "loss", "grad_norm", *metrics)
    sums = {name: jax.device_put(np.float32(0), sharding.replicated(mesh)) for name in names}
    jitted = step.jit_step(definition.loss_fn, optimizer, shardings, mesh)
    take, times = jitted.lower(state, sums, batch).compile(), []
    for _ in range(steps + 1):  # the first warms up
        begun = time.perf_counter()
        state, sums, _ = jax.block_until_ready(take(state, sums, batch))
        times.append(time.perf_counter() - begun)
    return times[1:]


def model_flops(context: Context, stage: str, rows: int) -> float:
    """FLOPs of a step with `rows` rows, nothing of which is computed twice."""
    config = context.config
    config.encoder.microbatches, config.encoder.remat, config.attention = 1, "none", "xla"
    definition, mesh = stage_loops.build(context, stage), context.mesh
    return cost_of(trace(definition, mesh, first_batch(definition), rows).jaxpr).operations


def columns(
    definition: Definition, mesh: Mesh, rows: list[int], capacity: tuple[float, ...], model: float
) -> list[str]:
    """What the table says about a step.

    Args:
        definition: of the stage.
        mesh: of devices that need not be there.
        rows: B of one device; a second one gives what each further row needs.
        capacity: GiB of a device.
        model: FLOPs of a step of the first of `rows` on all devices, by `model_flops`.
    """
    steps = [lower(definition, mesh, count * mesh.size).compile() for count in rows]
    gib = [device_gib(step) for step in steps]
    further = ["–"] * (1 + len(capacity))
    if len(rows) > 1:
        each = (gib[1] - gib[0]) / (rows[1] - rows[0])
        fit = [max(0, rows[0] + math.floor((size - gib[0]) / each)) for size in capacity]
        further = [f"{each:.2f}", *map(str, fit)]
    state, _ = abstract_state(definition)
    found, kind = roofline.kernels(steps[0].as_text()), mesh.devices.flat[0].device_kind
    peak = devices.peak_flops(kind, "bfloat16")
    seconds = roofline.seconds(found, peak, devices.of_kind(roofline.BANDWIDTHS, kind))
    return [
        *(str(rows[0]), f"{gib[0]:.2f}", *further, f"{state_bytes(state) / 1e9:.2f}"),
        f"{sum(k.times * k.flops for k in found) / 1e9:,.0f}",
        f"{sum(k.times * k.bytes for k in found) / 1e9:,.1f}",
        *(f"{1e3 * seconds:.1f}", f"{model / mesh.size / peak / seconds:.1%}"),
    ]


def measure(config, stages: list[str], steps: int = 20) -> None:
    """Runs each stage's step on the devices that are there, and prints rates and shares."""
    mesh = training_mesh(config.mesh.data, config.mesh.fsdp)
    kind = mesh.devices.flat[0].device_kind
    peak = devices.peak_flops(kind, config.dtype)
    print(f"{mesh.size} × {kind}\n\n| stage | rows | ms a step | steps/s | rows/s | MFU |")
    print("|---|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        context = Context(config, Path(folder), mesh)
        stage_loops.make_folders(context, recordings=1)
        for stage, definition in stage_loops.definitions(context, stages).items():
            seconds = min(timed(context, stage, definition, steps))
            rows = batch_rows(definition)
            copy = Context(config.copy_and_resolve_references(), Path(folder), mesh)
            share = peak and model_flops(copy, stage, rows) / seconds / peak / mesh.size
            print(
                f"| {stage} | {rows} | {1e3 * seconds:.1f} | {1 / seconds:.2f} "
                f"| {rows / seconds:,.1f} | {f'{share:.1%}' if share else '–'} |",
                flush=True,
            )


def lower_all(config, stages: list[str]) -> None:
    """Prints a row for each stage that can be lowered for both platforms, or fails."""
    print("| stage | rows | lowered for | MB of StableHLO |\n|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        context = Context(config, Path(folder), training_mesh(1, 1))
        stage_loops.make_folders(context, recordings=1)
        definitions = stage_loops.definitions(context)
        for stage in stages:
            batch = first_batch(definitions[stage])
            rows = len(next(iter(batch.values())))
            traced = trace(definitions[stage], context.mesh, batch)
            for platform in ("cuda", "tpu"):
                size = len(traced.lower(lowering_platforms=(platform,)).as_text()) / 1e6
                print(f"| {stage} | {rows} | {platform} | {size:.1f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    split = lambda text: text.split(",")  # noqa: E731
    parser.add_argument("--target", default="a100", choices=CAPACITY)
    parser.add_argument("--config", default="meccano", choices=("meccano", "industreal"))
    parser.add_argument("--lower", action="store_true", help="Only lower, for CUDA and for TPU.")
    parser.add_argument("--measure", action="store_true", help="On this machine's devices.")
    parser.add_argument("--stages", type=split, default=["finetune"])
    parser.add_argument("--sizes", type=split, default=["S", "B"])
    parser.add_argument("--remat", type=split, default=["none", "dots", "full"])
    parser.add_argument("--microbatches", type=split, default=["1", "13"])
    parser.add_argument("--attention", default="auto", choices=("auto", "xla", "cudnn"))
    parser.add_argument("--dtypes", type=split, default=["bfloat16"])
    parser.add_argument("--devices", type=int, default=1, help="That share the batch.")
    parser.add_argument("--fsdp", type=int, default=1, help="That share the state, times those.")
    parser.add_argument(
        "--clips", type=int, nargs="+", default=[1, 3], help="A device, one number or two."
    )
    args = parser.parse_args()
    if len(args.clips) > 2:
        parser.error(f"--clips takes one number or two, not {len(args.clips)}")
    shipped = importlib.import_module(f"stormpsr_jax.configs.{args.config}").get_config
    if args.lower or args.measure:
        config = shipped()
        config.data.workers = 0
        (lower_all if args.lower else measure)(config, args.stages)
        return
    capacity = CAPACITY[args.target]
    head = ["stage", "ViT", "activations", "remat", "microbatches", "devices", "fsdp"]
    head += ["rows a device", "GiB", "each further row"]
    head += [*(f"rows in {gib:g} GiB" for gib in capacity), "state, GB", "GFLOP", "GB moved"]
    head += ["ms", "of peak"]
    print(f"One {args.target} device\n\n| {' | '.join(head)} |\n{'|---' * len(head)}|", flush=True)
    for size in args.sizes:
        with tempfile.TemporaryDirectory() as folder:
            config = shipped()
            config.encoder.width, config.encoder.num_heads = SIZES[size]
            config.finetune.batch, config.data.workers = 1, 0
            context = Context(config, Path(folder), make_mesh(args.target, args.devices, args.fsdp))
            stage_loops.make_folders(context, recordings=1)
            stage_loops.definitions(context)  # leaves the weights that `finetune` starts from
            for stage, *fields in itertools.product(
                args.stages, args.dtypes, args.remat, args.microbatches
            ):
                rows = args.clips
                if stage != "finetune":
                    rows = [batch_rows(stage_loops.build(context, stage)) // context.mesh.size]
                config.dtype = fields[0]
                model = model_flops(context, stage, rows[0] * context.mesh.size)
                config.attention, config.encoder.remat = args.attention, fields[1]
                config.encoder.microbatches = int(fields[2])
                definition, mesh = stage_loops.build(context, stage), context.mesh
                row = [stage, f"{size}/16", *fields, str(args.devices), str(args.fsdp)]
                row += columns(definition, mesh, rows, capacity, model)
                print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
