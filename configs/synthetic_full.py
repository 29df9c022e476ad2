"""The synthetic assembly with time to learn: twice the recordings, longer training.

python -m stormpsr_jax.main --config=configs/synthetic_full.py --workdir=runs/synthetic_full
"""

from configs import synthetic


def get_config():
    """Returns the locked configuration."""
    c = synthetic.get_config()
    c.data.synthetic.recordings.train = 80
    c.data.synthetic.recordings.val = 20

    c.pretrain.steps = 2_000
    c.pretrain.eval_every = 250
    c.pretrain.checkpoint_every = 250

    c.temporal.steps = 1_000
    c.temporal.eval_every = 100

    c.finetune.steps = 150
    c.finetune.eval_every = 50
    c.finetune.checkpoint_every = 50

    c.detector.steps = 2_000
    c.detector.eval_every = 250
    c.detector.checkpoint_every = 250
    return c
