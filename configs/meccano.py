"""MECCANO as in the paper: ViT-S/16 at 224, windows of 256 frames.

python -m data_prep.meccano is for the clip shards; then
python -m stormpsr_jax.main --config=meccano --config.data.dir=DIR \\
    --config.data.detector_dir=LARGE --workdir=runs/meccano

DIR has pictures of 224 pixels, LARGE of 640 for the detector, which starts from random weights.

docs/research.md has all commands from the downloads on, and says what is exactly the paper's.
--config=meccano:dry runs all of it once with two steps a stage and the smallest networks.
Needs: the MECCANO frames, the STORM-PSR labels, and the ImageNet ViT-S/16 weights of timm
(vit_small_patch16_224.augreg_in21k_ft_in1k) through `python -m stormpsr_jax.weights import`.
Hardware: GPUs; docs/scale.md says how many for how long, as computed. The full-size run
has not been measured.
"""

from ml_collections import ConfigDict

from stormpsr_jax.configs import default


def get_config(extra: str = "") -> ConfigDict:
    """Returns the locked configuration; see `default.paper`."""
    c = default.get_config()
    c.procedure = "meccano"
    c.data.mean = (0.4144, 0.4014, 0.3777)
    c.data.std = (0.2312, 0.2458, 0.2684)
    c.evaluate.threshold = 1.0  # of the paper, weight ½: two recordings choose little
    return default.paper(c, "meccano", extra)
