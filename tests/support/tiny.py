"""The smallest config on which every stage of a run works, and how a test runs it."""

import sys

from stormpsr_jax.configs import synthetic_full
from stormpsr_jax.stages import config_flag, order
from stormpsr_jax.stages.run import run_of
from stormpsr_jax.training.devices import make_mesh
from tests.support.processes import environment

TRAINED = ("pretrain", "temporal", "finetune", "detector")
# Pictures of 32 pixels at one frame a second, a few steps; every batch divides by 8 devices. With
# all that is optional: end-to-end training, renders of incorrect parts, heads of conditions.
TINY = {
    "stages": order.NAMES,
    "init_from": "",
    "detector.init_from": "",
    "fuse.steps": 150,
    "data.synthetic.recordings": (3, 2, 2),
    "data.synthetic.size": 32,
    "data.synthetic.fps": 1.0,
    "data.synthetic.cad_per_state": 3,
    "data.synthetic.cad_wrong": 3,
    "data.synthetic.error_recordings": 0,
    "window.frames": 16,
    "encoder.width": 16,
    "encoder.depth": 1,
    "encoder.num_heads": 2,
    "encoder.stem": (8,),
    "encoder.hidden": 16,
    "temporal_model.depth": 1,
    "temporal_model.num_heads": 2,
    "temporal_model.dim_head": 8,
    "temporal_model.mlp_dim": 32,
    "detector.width": 8,
    "detector.depth": 1,
    "pretrain.n_per_state": 1,
    "pretrain.cad_per_state": 1,
    "pretrain.any_frames": 6,  # beside two pictures of each of 21 states
    "temporal.batch": 16,
    "temporal.delta": 4.0,
    "temporal.sigma": 2.0,
    "temporal.state_loss": 1.0,
    "finetune.batch": 8,
    "finetune.batch_norm": "train",
    "detector.batch": 16,
    "detector.unboxed_share": 0.0,
    "detector.cad": 0.4,
    "detector.cad_wrong": 0.5,
    "detector.part_loss": 1.0,
    # Adam takes whole steps along gradients that are nothing but rounding: at a high rate, losses
    # on other devices drift apart by more than 1e-5 within twelve steps.
    "detector.optimizer.lr": 3e-4,
    **{f"{stage}.steps": 12 for stage in TRAINED},
    # Of two evaluations a tie would decide; one of them is enough for what stands on the stage.
    **{f"{stage}.eval_every": 12 if stage == "pretrain" else 6 for stage in TRAINED},
    "checkpoint_every": 3,
    "log_every": 2,
}


def tiny(**changes):
    config = synthetic_full.get_config()
    config.update_from_flattened_dict({**TINY, **changes})
    return config


def opened(config, workdir, mesh=None):
    """What the stages of a config work in, and the stages by name."""
    values = config_flag.typed(config)
    return run_of(values, workdir, mesh), order.stages(values)


def tiny_run(workdir, **changes):
    """What the stages of a tiny run on one device work in, and the stages by name."""
    return opened(tiny(**changes), workdir, make_mesh(1, 1))


def flags_of(fields):
    return [f"--config.{field}={value}" for field, value in dict(fields).items()]


def command(workdir, changes=(), devices=1, **variables):
    """The command line of a tiny run in its own process, and its environment."""
    words = [sys.executable, "-m", "stormpsr_jax.main", "--config=configs/synthetic_full.py"]
    words += flags_of({**TINY, **dict(changes)})
    return [*words, f"--workdir={workdir}"], environment(devices, **variables)
