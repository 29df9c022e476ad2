"""The published backbones by name: what `encoder.backbone` may be.

A new ViT is a row in `vits.json`, under the name that its library has for it: a model of timm
(without the tag of its weights), or a repository of transformers. Its weights are no part of this
package; docs/research.md says where they come from. The feature is always the class token after the
last norm, so models of timm without a class token are left out.
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn

from stormpsr_jax.networks.efficientnet import EfficientNet
from stormpsr_jax.networks.vit import ViT

_FILE = json.loads(Path(__file__).with_name("vits.json").read_text("utf-8"))
# By library, (pattern, replacement) on its names: of transformers those of ViT, DINOv2 with and
# without registers, and DINOv3.
KEYS: dict[str, list[tuple[str, str]]] = _FILE["keys"]
VITS: dict[str, dict[str, Any]] = _FILE["models"]  # fields by name
# A backbone turns pictures (B, H, W, 3) into features (B, D) in its `dtype`; its fields of the
# names of the config's section `encoder` are read from there. Its `layers` are the names of the
# parameters of its layers from the first to the last norm, in order.
LABELS: dict[type[nn.Module], str] = {ViT: "ViT", EfficientNet: "Lite EfficientNet"}


def of_name(name: str) -> tuple[type[nn.Module], dict[str, Any]]:
    """The module of a published backbone, and its fields; KeyError of an unknown name."""
    return (EfficientNet, {}) if name == "efficientnet_lite0" else (ViT, dict(VITS[name]))


NAMES = (*VITS, "efficientnet_lite0")


def build(section: Mapping[str, Any], **given: Any) -> nn.Module:
    """The backbone of a config's section `encoder`: what is not 0, "" or () replaces its own.

    A ViT's MLP keeps its proportion to the width.
    """
    module, fields = of_name(section["backbone"])
    if "mlp_dim" in fields and section["width"]:
        fields["mlp_dim"] = fields["mlp_dim"] * section["width"] // fields["width"]
    names = _fields(module)
    for name, value in section.items():
        if name in names and value:
            fields[name] = tuple(value) if isinstance(value, list) else value
    return module(**fields, **given)


def find_errors(section: Mapping[str, Any]) -> list[str]:
    """Says whether the backbone is unknown, and which fields are of another family."""
    if section["backbone"] not in NAMES:
        return [f"is not one of {', '.join(NAMES)}"]
    module, _ = of_name(section["backbone"])
    others = set().union(*map(_fields, LABELS)) - _fields(module)
    wrong = [name for name in section if name in others and section[name]]
    return [f"a {LABELS[module]} has no {', '.join(wrong)}; set them to 0 or ()"] if wrong else []


def _fields(module: type[nn.Module]) -> set[str]:
    return {f.name for f in dataclasses.fields(module)} - {"parent", "name"}
