"""IndustReal at the paper's full size: ViT-S/16 at 224, windows of 256 frames, CAD renders in KFS.

python -m stormpsr_jax.main --config=industreal --workdir=runs/industreal \\
    --config.data.dir=DIR --config.data.detector_dir=LARGE --config.init_from=VIT.safetensors

DIR has pictures of 224 pixels, and LARGE of 640 for the detector (data_prep.industreal --size=…),
which starts from random weights, where the paper's YOLOv8-m starts from COCO.
Needs: IndustReal's recordings and its synthetic CAD renders as clip shards, and the ImageNet
ViT-S/16 weights of timm (vit_small_patch16_224.augreg_in21k_ft_in1k) through
`python -m stormpsr_jax.weights import`.
Hardware: GPUs. The full-size run has not been measured yet.
"""

from stormpsr_jax.configs import default


def get_config():
    """Returns the locked configuration."""
    c = default.get_config()
    c.procedure = "industreal"
    c.dtype = "bfloat16"
    c.data.mean = (0.608, 0.545, 0.520)
    c.data.std = (0.172, 0.197, 0.188)
    c.data.cad_mean = (0.838, 0.805, 0.761)
    c.data.cad_std = (0.134, 0.143, 0.136)
    c.data.workers = 8
    c.encoder.image_size = 224
    c.encoder.remat = "full"
    c.pretrain.n_per_state = 8  # STORM-PSR: 8 real and 8 synthetic pictures a state
    c.pretrain.cad_per_state = 8
    c.detector.image_size = 640  # like YOLOv8-m: 77.8 GFLOPs a picture, YOLOv8-m has 78.9
    c.detector.levels = 3
    c.detector.width = 52
    c.detector.depth = 2
    c.detector.grid = 24
    return c
