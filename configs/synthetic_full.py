"""The synthetic assembly with time to learn: more recordings, longer training.

python -m stormpsr_jax.main --config=synthetic_full --workdir=runs/synthetic_full

Hardware: 2 CPU cores. Seed 0, 12 test recordings, before the detector read the picture upright:
stream `learned` has F1 .943, POS .900, 5.2 s of delay, and accepts 5 of 12 wrong parts. The model
that ships as `demo` is of that run. How long it takes on idle cores was not measured.
"""

from ml_collections import ConfigDict

from stormpsr_jax.configs import synthetic


def get_config() -> ConfigDict:
    """Returns the locked configuration."""
    c = synthetic.get_config()
    c.data.synthetic.recordings.train = 60
    c.data.synthetic.recordings.val = 20

    c.pretrain.steps = 1_200
    c.pretrain.eval_every = 200
    c.pretrain.checkpoint_every = 200

    c.embed.views = 1

    c.temporal.steps = 1_200
    c.temporal.eval_every = 100

    c.detector.steps = 4_000
    c.detector.eval_every = 4_000
    c.detector.checkpoint_every = 250
    return c
