"""IMPACT: an angle grinder, assembled and taken apart in free order; the temporal stream alone.

python -m data_prep.impact --videos=DIR --labels=labels_front_only_v1 --out=DATA
python -m stormpsr_jax.main --config=impact --config.data.dir=DATA --workdir=RUN

The data set has no boxes, so there is no detector to train. Everything else is STORM-PSR's as in
configs/meccano.py, with the times of a camera of 30 frames a second: a window spans 21.3 s, of
which every tenth frame is encoded. Sizes, thresholds and the mean of pictures were not tried on
this data set. POS counts any other order than the worker's as wrong.
Needs: the videos of the front camera, the labels in dataset/PSR of the data set, and the ImageNet
ViT-S/16 weights of timm (vit_small_patch16_224.augreg_in21k_ft_in1k) through
`python -m stormpsr_jax.weights import`.
Hardware: GPUs, as for configs/meccano.py; the full-size run has not been measured.
"""

from ml_collections import ConfigDict

from stormpsr_jax.configs import default


def get_config() -> ConfigDict:
    """Returns the locked configuration."""
    c = default.get_config()
    c.procedure = "impact"
    c.stages = ("pretrain", "embed", "temporal", "finetune", "predict", "evaluate")
    c.init_from = "vit_small_patch16_224.safetensors"  # a file of `weights import`, in this folder
    c.dtype = "bfloat16"
    c.data.workers = -1  # as many as the devices need
    c.window.frames = 640
    c.window.stride = 10
    c.encoder.image_size = 224
    c.temporal.delta = 200.0
    c.temporal.sigma = 112.5
    return c
