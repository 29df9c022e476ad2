"""The encoder that `--config=synthetic` starts from: trained on renders of many random objects.

python -m stormpsr_jax.main --config=general_encoder --workdir=runs/general_encoder

Its object seeds start where those of a run end, so it never saw a product of a run.
"""

from ml_collections import ConfigDict

from stormpsr_jax.configs import synthetic_full


def get_config() -> ConfigDict:
    """Returns the locked configuration."""
    c = synthetic_full.get_config()
    c.stages = ("data", "general")
    c.init_from = ""
    c.data.synthetic.seed = 1_000_000_000
    c.data.synthetic.objects.train = 480
    c.data.synthetic.objects.val = 30
    c.data.synthetic.frames_per_object = 96
    c.augment.occluders = 0.0
    c.pretrain.state_loss = 0.0
    c.general.steps = 3_000
    c.general.eval_every = 500
    c.general.optimizer.lr = 2e-3
    c.general.optimizer.warmup_steps = 200
    return c
