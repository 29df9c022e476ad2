"""IndustReal as in the paper: ViT-S/16 at 224, windows of 256 frames, CAD renders in KFS.

python -m data_prep.industreal and python -m data_prep.industreal_cad are for the clip shards; then
python -m stormpsr_jax.main --config=industreal --config.data.dir=DIR --config.data.cad_dir=CAD \\
    --config.data.detector_dir=LARGE --workdir=runs/industreal

DIR has pictures of 224 pixels, LARGE of 640 for the detector, which starts from random weights.
docs/research.md has all commands from the downloads on, and says what is exactly the paper's.
--config=industreal:dry runs all of it once with two steps a stage and the smallest networks.
Needs: IndustReal's recordings, its synthetic pictures (or your own renders), and the
ImageNet ViT-S/16 weights of timm (vit_small_patch16_224.augreg_in21k_ft_in1k) through
`python -m stormpsr_jax.weights import`.
Hardware: GPUs; docs/scale.md says how many for how long, as computed. The full-size run
has not been measured.
"""

from ml_collections import ConfigDict

from stormpsr_jax.configs import default


def get_config(extra: str = "") -> ConfigDict:
    """Returns the locked configuration; see `default.paper`."""
    c = default.get_config()
    c.procedure = "industreal"
    c.data.mean = (0.608, 0.545, 0.520)
    c.data.std = (0.172, 0.197, 0.188)
    c.pretrain.n_per_state = 8  # STORM-PSR: 8 real and 8 synthetic pictures a state
    c.pretrain.cad_per_state = 8
    c.evaluate.threshold = 6.0  # of the paper, weight ½; the scripts of its code have 8
    return default.paper(c, "industreal", extra)
