"""The synthetic assembly with time to learn: the recipe that the figures of the docs are of.

python -m stormpsr_jax.main --config=synthetic_full --workdir=runs/synthetic_full

The model that ships as `demo` is of a run of it. Hardware: 2 CPU cores.
"""

from ml_collections import ConfigDict

from stormpsr_jax.configs import default


def get_config() -> ConfigDict:
    """Returns the locked configuration."""
    c = default.get_config()
    learning = ("data", "pretrain", "embed", "temporal", "detector")
    c.stages = (*learning, "predict", "fuse", "evaluate")
    c.procedure = "synthetic"
    c.init_from = "general_encoder"  # ships with the package

    c.data.synthetic.cad_wrong = 300
    c.data.synthetic.error_recordings = 80
    c.data.synthetic.error_recordings_step = 4  # window.stride: more is never seen at once
    c.data.cad_mean = c.data.mean
    c.data.cad_std = c.data.std

    c.window.frames = 64
    c.window.stride = 4

    c.augment.blur_sigma = 1.0
    c.augment.saturation = 0.3
    c.augment.shift = 0.08
    c.augment.occluders = 0.8

    c.encoder.patch_size = 8
    c.encoder.width = 96
    c.encoder.depth = 3
    c.encoder.num_heads = 4
    c.encoder.stem = (24, 48)

    c.temporal_model.depth = 2
    c.temporal_model.num_heads = 4
    c.temporal_model.dim_head = 32
    c.temporal_model.mlp_dim = 256
    c.temporal_model.drop_positions = True
    c.temporal_model.baseline_depth = 2
    c.temporal_model.baseline_width = 256
    c.temporal_model.mlp_activation = "gelu"

    c.pretrain.steps = 240
    c.pretrain.n_per_state = 3
    c.pretrain.cad_per_state = 1
    c.pretrain.any_frames = 21
    c.pretrain.t_f = 10.0
    c.pretrain.initial_state = False
    c.pretrain.state_loss = 1.0
    c.pretrain.eval_every = 60
    c.pretrain.checkpoint_every = 100
    c.pretrain.optimizer.name = "adamw"
    c.pretrain.optimizer.lr = 3e-3
    c.pretrain.optimizer.weight_decay = 0.05
    c.pretrain.optimizer.warmup_steps = 50
    c.pretrain.optimizer.clip_norm = 1.0

    c.embed.every = 4  # window.stride

    c.temporal.steps = 900
    c.temporal.batch = 128
    c.temporal.delta = 20.0
    c.temporal.sigma = 11.0
    c.temporal.state_loss = 1.0
    c.temporal.best = "f1"
    c.temporal.eval_every = 75
    c.temporal.checkpoint_every = 100
    c.temporal.optimizer.name = "adamw"
    c.temporal.optimizer.lr = 2e-3
    c.temporal.optimizer.weight_decay = 0.05
    c.temporal.optimizer.warmup_steps = 40
    c.temporal.optimizer.clip_norm = 1.0

    c.finetune.steps = 40
    c.finetune.batch = 16
    c.finetune.encoder_lr_scale = 0.1
    c.finetune.batch_norm = "frozen"
    c.finetune.eval_every = 20
    c.finetune.checkpoint_every = 20
    c.finetune.log_every = 5
    c.finetune.optimizer.name = "adamw"
    c.finetune.optimizer.lr = 1e-4
    c.finetune.optimizer.warmup_steps = 10
    c.finetune.optimizer.clip_norm = 1.0

    c.detector.steps = 2_000
    c.detector.batch = 64
    c.detector.background = 0.2
    c.detector.unboxed_share = 0.2
    c.detector.cad = 0.4
    c.detector.cad_wrong = 0.8
    c.detector.part_loss = 3.0
    c.detector.pose_loss = 5.0
    c.detector.width = 32
    c.detector.depth = 0
    # Once, at the end: mAP is of boxed frames, and falls while half-hidden ones get better.
    c.detector.eval_every = 2_000
    c.detector.checkpoint_every = 100
    c.detector.optimizer.lr = 3e-3
    c.detector.optimizer.warmup_steps = 50
    return c
