"""The synthetic assembly with time to learn: more recordings, longer training.

python -m stormpsr_jax.main --config=configs/synthetic_full.py --workdir=runs/synthetic_full

On 2 CPU cores: measured once, 75 minutes with other work on the machine. Test split, seed 0,
POS / F1 / delay: ASD only .821 / .914 / 7.3 s, temporal only .883 / .904 / 3.4 s, fused .851 / .893
/ 4.3 s.
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

    c.finetune.steps = 60

    c.detector.steps = 1_500
    c.detector.eval_every = 250
    c.detector.checkpoint_every = 250
    return c
