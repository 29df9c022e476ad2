"""The synthetic assembly with the timelines of the 20 real MECCANO recordings.

python -m stormpsr_jax.main --config=synthetic_meccano --workdir=runs/meccano_toy \\
    --config.data.synthetic.timelines=LABELS

LABELS is the folder of MECCANO's PSR labels (train/, val/, test/, a folder a recording), as the
STORM-PSR authors ship it. Real order, real errors, 17 components; label times are divided by 12.
"""

from ml_collections import ConfigDict

from stormpsr_jax.configs import synthetic_full


def get_config() -> ConfigDict:
    """Returns the locked configuration."""
    c = synthetic_full.get_config()
    c.procedure = "meccano"
    c.data.synthetic.error_recordings = 0  # timelines are read, not made up
    c.data.synthetic.time_scale = 12.0
    c.data.synthetic.cad_per_state = 200
    return c
