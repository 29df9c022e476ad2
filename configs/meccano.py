"""MECCANO at the paper's full size: ViT-S/16 at 224, windows of 256 frames, detector at 640.

python -m data_prep.meccano makes the clip shards, one folder with --size=224 and, for the detector,
one with --size=640 (data_prep/README.md); then
python -m stormpsr_jax.main --config=meccano --workdir=runs/meccano \\
    --config.data.dir=DIR --config.data.detector_dir=LARGE --config.init_from=VIT.safetensors

Needs: the MECCANO frames and the STORM-PSR labels, and the ImageNet ViT-S/16 weights of timm
(vit_small_patch16_224.augreg_in21k_ft_in1k) through `python -m stormpsr_jax.weights import`.
The detector starts from random weights, where the paper's YOLOv8-m starts from COCO.
Hardware: GPUs. The full-size run has not been measured yet.
"""

from stormpsr_jax.configs import default


def get_config():
    """Returns the locked configuration."""
    c = default.get_config()
    c.procedure = "meccano"
    c.dtype = "bfloat16"
    c.data.mean = (0.4144, 0.4014, 0.3777)
    c.data.std = (0.2312, 0.2458, 0.2684)
    c.data.workers = 8
    c.encoder.image_size = 224
    c.encoder.remat = "full"
    c.detector.image_size = 640  # like YOLOv8-m: 77.8 GFLOPs a picture, YOLOv8-m has 78.9
    c.detector.levels = 3
    c.detector.width = 52
    c.detector.depth = 2
    c.detector.grid = 24
    return c
