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

import contextlib
import dataclasses
import statistics
import struct
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import jax
import stage_loops
from absl import app, flags, logging
from flag_of_config import Config
from made_up import rates
from tensorboardX.proto.event_pb2 import Event

from stormpsr_jax.stages.context import Context
from stormpsr_jax.training import loop
from stormpsr_jax.training.loop import Definition
from stormpsr_jax.training.sharding import make_mesh, put_batch

_CONFIG = Config("meccano")
_STEPS = flags.DEFINE_integer("steps", 4, "Steps of each stage.")
_SECONDS = flags.DEFINE_float("seconds", 5, "For which each pipeline is measured alone.")
_TFLOPS = flags.DEFINE_float("tflops", 125, "TFLOP/s of the assumed accelerator.")
_STAGES = flags.DEFINE_list("stages", list(stage_loops.STAGES), "Trained stages.")
_SIZE = flags.DEFINE_integer("size", None, "Picture height and width; default: the config's.")
CUT = {
    "pretrain.n_per_state": 1,
    "temporal.batch": 16,
    "finetune.batch": 1,
    "detector.batch": 8,
}


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
    batch = put_batch(next(batches), mesh)
    batches.close()
    params, batch_stats = definition.init()
    gradient = jax.jit(jax.value_and_grad(definition.loss_fn, has_aux=True))
    lowered = gradient.lower(params, batch_stats, batch, jax.random.key(0))
    return stage_loops.num_frames(batch), lowered.cost_analysis()["flops"]


def row(context: Context, stage: str, batch: str, definition: Definition) -> str:
    """One row of the table; `batch` says which batch it is."""
    frames, flops = frames_and_flops(definition, context.mesh)
    # Of one core, as this process does nothing else.
    _, rate = rates(frames_of(definition.data(0)), _SECONDS.value)
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
    wanted = _TFLOPS.value * 1e12 / flops * frames
    return (
        f"| {stage} | {batch} | {frames} | {seconds:.2f} | {wait:.2%} | {rate:,.0f} "
        f"| {wanted:,.0f} | {wanted / rate:.1f} |"
    )


def main(argv: list[str]) -> None:
    logging.set_verbosity(logging.WARNING)
    if len(argv) > 1:
        sys.exit(f"error: unknown argument {argv[1]!r}")
    config = _CONFIG.value
    changed = _CONFIG.changed
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
        config[stage].update(steps=_STEPS.value, log_every=1, checkpoint_every=10**9)
    with tempfile.TemporaryDirectory() as name, contextlib.redirect_stdout(sys.stderr):
        context = Context(config, Path(name), make_mesh(config.mesh.data, config.mesh.fsdp))
        stage_loops.make_folders(context, _SIZE.value)
        definitions = stage_loops.definitions(context, _STAGES.value)
        table = [row(context, s, batches[s], definitions[s]) for s in _STAGES.value]
    print(
        "| stage | batch | frames a step | s a step | data wait | frames/s a loader core "
        f"| frames/s at {_TFLOPS.value:g} TFLOP/s | loader cores for that |\n"
        "|---|---|---|---|---|---|---|---|\n" + "\n".join(table)
    )


if __name__ == "__main__":
    app.run(main, flags_parser=_CONFIG.parse_flags)
