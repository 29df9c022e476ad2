"""Does input starve the training step? Every stage's data wait, and the cores loaders need.

    python benchmarks/data_wait.py [--config=meccano] [--steps=4] [--seconds=5]
        [--tflops=125] [--size=PIXELS] [--config.FIELD=value …]

Runs the training loop itself with every stage's own models, loss, optimiser and pipeline on clip
shards of 224x224 pictures (smooth ones whose files are as large as those of photographs).

Batches are not the config's, unless the command line names them: CUT makes them small (`finetune`
1 clip, `temporal` 16), as a step of configs/meccano.py would take a CPU up to minutes. So what is
measured is the wait of cut batches on this machine, and the table says what each row was cut from.
Loading and step both grow with the batch, which leaves their ratio about as it is, but at the full
batch nobody looked. An accelerator's step is shorter: the last three columns are for that.
Evaluation is left out, and loading is by two threads of the training process
(`--config.data.workers` for more processes).

Columns: the field that sets the batch, as measured; frames (for `temporal` embeddings) a step;
seconds a step and the share of it that the loop waited for data, both as the loop logs them,
without the first step, which compiles; frames that the pipeline alone serves a second of one core;
frames/s of an accelerator that sustains `tflops` TFLOP/s in this step (125 is 40 % of an A100's
bfloat16 peak), by the FLOPs of the lowered step; and the cores that its loaders need.
"""

import argparse
import contextlib
import dataclasses
import statistics
import struct
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import jax
import stage_loops
from tensorboardX.proto.event_pb2 import Event

from stormpsr_jax.stages import config_flag
from stormpsr_jax.stages.context import Context
from stormpsr_jax.training import loop
from stormpsr_jax.training.definition import Definition
from stormpsr_jax.training.sharding import batch_sharding, make_mesh, put

CUT = {
    "pretrain.n_per_state": 1,
    "temporal.batch": 16,
    "finetune.batch": 1,
    "detector.batch": 8,
}


def rates(counts: Iterator[int], seconds: float) -> tuple[float, float]:
    """What an iterator counts, per second of wall-clock and of CPU time of this process.

    Its first count, for which threads start, is left out; it is closed at the end.
    """
    next(counts)
    wall, cpu, count = time.perf_counter(), time.process_time(), 0
    while time.perf_counter() - wall < seconds:
        count += next(counts)
    result = count / (time.perf_counter() - wall), count / (time.process_time() - cpu)
    counts.close()
    return result


def frames_of(batches) -> Iterator[int]:
    """Yields the frames of each batch of a pipeline, and closes it."""
    try:
        for batch in batches:
            yield stage_loops.num_frames(batch)
    finally:
        batches.close()


def logged(folder: Path) -> dict[str, list[float]]:
    """What a stage has logged for TensorBoard: {name: a value a step}."""
    found: dict[str, list[float]] = {}
    content, at = next((folder / "tensorboard").iterdir()).read_bytes(), 0
    while at < len(content):  # TFRecord: length, its checksum, data, their checksum
        (length,) = struct.unpack_from("<Q", content, at)
        for value in Event.FromString(content[at + 12 : at + 12 + length]).summary.value:
            found.setdefault(value.tag, []).append(value.simple_value)
        at += length + 16
    return found


def frames_and_flops(definition: Definition, mesh: jax.sharding.Mesh) -> tuple[int, float]:
    """Frames and FLOPs of a step, the latter counted before the compiler optimises."""
    batches = definition.data(0)
    batch = put(next(batches), batch_sharding(mesh))
    batches.close()
    params, batch_stats = definition.init()
    gradient = jax.jit(jax.value_and_grad(definition.loss_fn, has_aux=True))
    lowered = gradient.lower(params, batch_stats, batch, jax.random.key(0))
    return stage_loops.num_frames(batch), lowered.cost_analysis()["flops"]


def row(
    context: Context, stage: str, batch: str, definition: Definition, args: argparse.Namespace
) -> str:
    """One row of the table; `batch` says which batch it is."""
    frames, flops = frames_and_flops(definition, context.mesh)
    # Of one core, as this process does nothing else.
    _, rate = rates(frames_of(definition.data(0)), args.seconds)
    folder = context.workdir / "loop" / stage
    loop.train(
        folder,
        dataclasses.replace(definition, evaluate=None, best="", evaluate_start=False),
        config=context.config[stage],
        mesh=context.mesh,
        rng=context.key(stage),
    )
    timings = logged(folder)
    seconds = statistics.median(1 / rate for rate in timings["steps_per_second"][1:])
    wait = statistics.mean(timings["data_wait_share"][1:])
    wanted = args.tflops * 1e12 / flops * frames
    return (
        f"| {stage} | {batch} | {frames} | {seconds:.2f} | {wait:.2%} | {rate:,.0f} "
        f"| {wanted:,.0f} | {wanted / rate:.1f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    config_flag.add_config(parser, "meccano")
    add, names = parser.add_argument, lambda text: text.split(",")
    add("--steps", type=int, default=4, help="of each stage")
    add("--seconds", type=float, default=5, help="for which each pipeline is measured alone")
    add("--tflops", type=float, default=125, help="TFLOP/s of the assumed accelerator")
    add("--stages", type=names, default=stage_loops.STAGES, help="trained stages")
    add("--size", type=int, help="picture height and width; otherwise the config's")
    args = config_flag.parse(parser, None)
    config = args.config
    changed = [word.partition("=")[0].removeprefix("--config.") for word in sys.argv[1:]]
    if "data.workers" not in changed:
        config.data.workers = 0
    batches = {}
    for name, value in CUT.items():
        stage, field = name.split(".")
        full = config[stage][field]
        if name not in changed:
            config[stage][field] = min(value, full)
        cut = f", cut from {full}" if config[stage][field] < full else ", as configured"
        batches[stage] = f"{field} {config[stage][field]}{cut}"
    cad = min(config.pretrain.cad_per_state, config.pretrain.n_per_state)
    config.pretrain.cad_per_state = cad
    for stage in stage_loops.STAGES:
        config[stage].update(steps=args.steps, log_every=1, checkpoint_every=10**9)
    with tempfile.TemporaryDirectory() as name, contextlib.redirect_stdout(sys.stderr):
        context = Context(config, Path(name), make_mesh(config.mesh.data, config.mesh.fsdp))
        stage_loops.make_folders(context, args.size)
        definitions = stage_loops.definitions(context, args.stages)
        table = [row(context, s, batches[s], definitions[s], args) for s in args.stages]
    print(
        "| stage | batch | frames a step | s a step | data wait | frames/s a loader core "
        f"| frames/s at {args.tflops:g} TFLOP/s | loader cores for that |\n"
        "|---|---|---|---|---|---|---|---|\n" + "\n".join(table)
    )


if __name__ == "__main__":
    main()
