"""The values that the fields of a config may have."""

from __future__ import annotations

import fnmatch
import math
from typing import Any

from ml_collections import ConfigDict

from stormpsr_jax.models import architectures, backbones, temporal_baselines, vit
from stormpsr_jax.psr.streams import learned_weights, rules, select
from stormpsr_jax.stages import fuse, networks, provenance
from stormpsr_jax.training import optimizer, sinks

# Lowest and highest value of every number of the config; the first pattern that fits counts.
_ANY = math.inf
RANGES = {
    "seed": (0, 2**31 - 1),
    "data.synthetic.seed": (0, 2**31 - 1),
    "data.synthetic.workers": (1, 1024),
    "*.workers": (0, 1024),
    "data.synthetic.fps": (0.01, 1000),
    "data.synthetic.size": (8, 4096),
    "data.synthetic.time_scale": (1e-6, _ANY),
    "data.synthetic.frames_per_object": (1, _ANY),
    "data.synthetic.pace": (1, 1000),
    "data.synthetic.rehearsal_step": (1, _ANY),
    "data.synthetic.*": (0, _ANY),
    "window.*": (1, 10**5),  # as a model folder may have
    "augment.*": (0, 100),
    "*.image_size": (0, 4096),  # these as a model folder may have
    "encoder.depth": (0, 64),
    "encoder.patch_size": (0, 256),
    "encoder.width": (0, 16_384),
    "encoder.num_heads": (0, 256),
    "encoder.*": (1, 10**5),
    "temporal_model.depth": (1, 64),
    "temporal_model.dropout": (0, 0.99),
    "temporal_model.seen": (0, architectures.MAX_CLIP),
    "temporal_model.baseline_depth": (0, 12),  # as a model folder may have
    "temporal_model.baseline_width": (0, 16_384),
    "temporal_model.*": (1, 10**6),
    "*.momentum": (0, 0.9999),
    "*.optimizer.*": (0, _ANY),
    "*.layer_decay": (1e-6, 1),
    "pretrain.steps": (0, _ANY),
    "*.steps": (1, _ANY),
    "*.log_every": (1, _ANY),
    "*.eval_every": (1, _ANY),
    "*.checkpoint_every": (1, _ANY),
    "*.batch": (1, _ANY),
    "pretrain.n_per_state": (1, _ANY),
    "*.temperature": (1e-4, 100),
    "pretrain.*": (0, _ANY),
    "general.state_loss": (0, _ANY),
    "general.*": (1, _ANY),
    "embed.views": (0, 1000),
    "temporal.sigma": (1e-6, _ANY),
    "temporal.*": (0, _ANY),
    "finetune.*": (0, _ANY),
    "detector.background": (0, 1),
    "detector.anywhere": (0, 1),
    "detector.cad": (0, 1),
    "detector.cad_wrong": (0, 1),
    "detector.part_loss": (0, _ANY),
    "detector.pose_loss": (0, _ANY),
    "detector.zoom": (0, 0.99),
    "detector.shift": (0, 1),
    "detector.depth": (0, 1000),
    "detector.levels": (1, 6),
    "detector.grid": (1, 128),
    "detector.*": (1, 10**5),
    "fuse.units": (1, learned_weights.MAX_UNITS),
    "fuse.average": (0, learned_weights.MAX_AVERAGE),
    "fuse.*": (0, _ANY),
    "evaluate.decay": (0, 1),
    "evaluate.certain": (0, 1),
    "evaluate.threshold": (0, 1e9),  # as a model folder may have
}
CHOICES = {
    "metrics_to": sinks.NAMES,  # each of them
    "dtype": ("float32", "bfloat16"),  # what trains without scaling the loss
    "data.synthetic.occlusion": ("light", "default", "heavy"),
    "encoder.backbone": backbones.BACKBONES,
    "encoder.remat": vit.REMAT,
    "temporal_model.backbone": ("transformer", *networks.BASELINES),
    "temporal_model.head": ("mlp", "linear"),
    "temporal_model.mlp_activation": temporal_baselines.ACTIVATIONS,
    "pretrain.key_frames": ("kfs", "random"),
    "temporal.sampling": ("kcas", "gaussian", "uniform"),
    "temporal.best": ("f1", "f1_macro"),
    "finetune.batch_norm": ("train", "frozen"),
    "*.optimizer.name": optimizer.OPTIMIZERS,
    "*.optimizer.schedule": optimizer.SCHEDULES,
    "fuse.init": fuse.INITS,
    "evaluate.decoder": rules.DECODERS,
    "evaluate.choose": select.CHOOSE,
}


def find_mistakes(config: ConfigDict) -> list[str]:
    """Returns a line for each field of a config whose value is out of its range."""
    mistakes = []
    for field, value in provenance.flat_config(config).items():
        mistakes += [f"--config.{field}={value!r}: {what}" for what in wrong_with(field, value)]
    return mistakes


def wrong_with(field: str, value: Any) -> list[str]:
    """Says what is wrong with the value of one field; an empty list if nothing is."""
    for pattern, allowed in CHOICES.items():
        if fnmatch.fnmatchcase(field, pattern):
            what = f"is not one of {', '.join(allowed)}"
            if isinstance(value, list):
                return [f"{item!r} {what}" for item in value if item not in allowed]
            return [] if value in allowed else [what]
    if field.startswith("data.") and field.endswith(("mean", "std")):
        if field in ("data.cad_mean", "data.cad_std") and not value:
            return []
        low = 0 if field.endswith("mean") else 1e-6
        good = len(value) == 3 and all(low <= number <= 1 for number in value)
        return [] if good else [f"three numbers in {low:g}…1 are needed, for red, green and blue"]
    if field.startswith("mesh."):
        return [] if value == -1 or value >= 1 else ["at least 1 is needed, or -1 for the rest"]
    if isinstance(value, list) and all(isinstance(item, int | float) for item in value):
        wrong = [wrong_with(field, item) for item in value]
        return [f"{item}: {what}" for item, of in zip(value, wrong, strict=True) for what in of]
    if isinstance(value, bool) or not isinstance(value, int | float):
        return []
    if not math.isfinite(value):
        return ["is not a finite number"]
    for pattern, (low, high) in RANGES.items():
        if fnmatch.fnmatchcase(field, pattern):
            return [] if low <= value <= high else [_outside(low, high)]
    return []


def _outside(low: float, high: float) -> str:
    return f"at least {low:g} is needed" if math.isinf(high) else f"{low:g}…{high:g} is needed"
