"""The synthetic assembly: everything from nothing, on a laptop, in minutes.

python -m stormpsr_jax.main --config=synthetic --workdir=runs/synthetic

The short form of configs/synthetic_full.py: fewer recordings, fewer steps.
"""

from ml_collections import ConfigDict

from stormpsr_jax.configs import synthetic_full


def get_config() -> ConfigDict:
    """Returns the locked configuration."""
    c = synthetic_full.get_config()
    c.data.synthetic.error_recordings = 40
    c.data.synthetic.cad_wrong = 80
    c.pretrain.steps = 120
    c.pretrain.eval_every = 60
    c.pretrain.optimizer.warmup_steps = 20
    c.temporal.steps = 500
    c.temporal.eval_every = 100
    c.detector.init_from = "general_detector"
    c.detector.steps = 800
    c.detector.eval_every = 800
    c.fuse.steps = 0  # what is fitted on 12 such recordings is no better than what ships
    return c
