"""The synthetic assembly with time to learn: more recordings, longer training.

python -m stormpsr_jax.main --config=synthetic_full --workdir=runs/synthetic_full

Hardware: 2 CPU cores. Time and result have not been measured with this version.
"""

from stormpsr_jax.configs import synthetic


def get_config():
    """Returns the locked configuration."""
    c = synthetic.get_config()
    c.data.synthetic.recordings.train = 60
    c.data.synthetic.recordings.val = 20

    c.pretrain.steps = 1_200
    c.pretrain.eval_every = 200
    c.pretrain.checkpoint_every = 200

    c.embed.views = 1

    c.temporal.steps = 800
    c.temporal.eval_every = 100

    c.detector.steps = 4_000
    c.detector.eval_every = 4_000
    c.detector.checkpoint_every = 250
    return c
