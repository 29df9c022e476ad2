"""What detectors start from: a network that finds products and how they lie, whatever they are.

python -m stormpsr_jax.main --config=general_detector --workdir=runs/general_detector

It is trained on renders of random objects, whose seeds start where those of a run end, so that it
never saw a product of a run.
"""

from ml_collections import ConfigDict

from stormpsr_jax.configs import general_encoder


def get_config() -> ConfigDict:
    """Returns the locked configuration."""
    c = general_encoder.get_config()
    c.stages = ("data", "general_detector")
    c.detector.init_from = ""
    c.data.synthetic.objects.train = 960
    c.data.synthetic.frames_per_object = 64
    c.data.synthetic.objects.turn = 0.9  # about as far as in recordings
    c.general_detector.steps = 4_000
    c.general_detector.optimizer.lr = 3e-3
    c.general_detector.optimizer.warmup_steps = 200
    return c
