"""The families of backbones, and the published models by name: what `encoder.backbone` may be."""

import dataclasses
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import numpy as np

from stormpsr_jax.networks import efficientnet, vit_published
from stormpsr_jax.networks.stored import Layer
from stormpsr_jax.networks.vit import ViT


@dataclasses.dataclass(frozen=True)
class Family:
    """A family of backbones.

    Attributes:
        kind: its name for `weights --kind`.
        label: its name in messages.
        architecture: of an encoder with such a backbone in a model folder.
        module: turns pictures (B, H, W, 3) into features (B, D) in its `dtype`; its fields of the
            names of the config's section `encoder` are read from there. Its `layers` are the names
            of the parameters of its layers from the first to the last norm, in order; several names
            of one layer are joined by a space, and what has none lies in front of the first.
        named: fields of the published models, by name.
        landmark: a name at the top of its parameters that no other family has there.
        mark: a pattern that a name in each of its published state dicts has.
        rows: the layers of a model with these names of arrays, of either layout.
        fields_of: (parameters, heads or None, library or None) → fields of the module that they
            belong to; ValueError if there is none.
        published: (state dict, its path) → (the same in the names of `rows`, its library or "").
    """

    kind: str
    label: str
    architecture: str
    module: type[nn.Module]
    named: Mapping[str, Mapping[str, Any]]
    landmark: str
    mark: str
    rows: Callable[[Collection[str]], Iterable[Layer]]
    fields_of: Callable[[Mapping, int | None, str | None], dict[str, Any]]
    published: Callable[[Mapping[str, np.ndarray], str | Path], tuple[dict[str, np.ndarray], str]]


FAMILIES = (
    Family(
        kind="vit",
        label="ViT",
        architecture="SpatialEncoder",
        module=ViT,
        named=vit_published.NAMED,
        landmark="patch_embed",
        mark=r"^cls_token$|(^|\.)embeddings\.cls_token$",
        rows=vit_published.rows,
        fields_of=vit_published.fields_of,
        published=vit_published.to_timm,
    ),
    Family(
        kind="efficientnet",
        label="Lite EfficientNet",
        architecture="EfficientNetEncoder",
        module=efficientnet.EfficientNet,
        named=efficientnet.NAMED,
        landmark="conv_head",
        mark=r"^_conv_stem\.",
        rows=efficientnet.rows,
        fields_of=efficientnet.fields_of,
        published=efficientnet.published,
    ),
)
BY_KIND = {family.kind: family for family in FAMILIES}
BACKBONES = {name: family for family in FAMILIES for name in family.named}


def build(section: Mapping[str, Any], **given: Any) -> nn.Module:
    """The backbone of a config's section `encoder`: what is not 0, "" or () replaces its own.

    A ViT's MLP keeps its proportion to the width.
    """
    family = BACKBONES[section["backbone"]]
    fields = dict(family.named[section["backbone"]])
    if "mlp_dim" in fields and section["width"]:
        fields["mlp_dim"] = fields["mlp_dim"] * section["width"] // fields["width"]
    names = _fields(family)
    for name, value in section.items():
        if name in names and value:
            fields[name] = tuple(value) if isinstance(value, list) else value
    return family.module(**fields, **given)


def find_errors(section: Mapping[str, Any]) -> list[str]:
    """Says whether the backbone is unknown, and which fields are of another family."""
    family = BACKBONES.get(section["backbone"])
    if family is None:
        return [f"is not one of {', '.join(BACKBONES)}"]
    others = set().union(*map(_fields, FAMILIES)) - _fields(family)
    wrong = [name for name in section if name in others and section[name]]
    return [f"a {family.label} has no {', '.join(wrong)}; set them to 0 or ()"] if wrong else []


def _fields(family: Family) -> set[str]:
    return {f.name for f in dataclasses.fields(family.module)} - {"parent", "name"}


def family_of(params: Collection[str]) -> Family:
    """The family of parameters with these names at their top; the first if they are of none."""
    return next((family for family in FAMILIES if family.landmark in params), FAMILIES[0])


def family_published(names: Collection[str]) -> Family | None:
    """The family of a published state dict with these names; None if it is of none."""
    for family in FAMILIES:
        if any(re.search(family.mark, name) for name in names):
            return family
    return None


def differences(given: Mapping, wanted: Mapping) -> str:
    """Says in what the backbone of parameters given differs from one wanted; "" if in nothing.

    The parameters may be no whole backbone; other messages name what they lack.
    """
    family, other = family_of(given), family_of(wanted)
    if family != other:
        return f" (it is a {family.label}, not a {other.label}: see encoder.backbone)"
    try:
        have, need = family.fields_of(given, 1, None), family.fields_of(wanted, 1, None)
    except (KeyError, TypeError, AttributeError, IndexError, ValueError):
        return ""
    other_fields = [f"{n} {have[n]}, not {need[n]}" for n in have if have[n] != need[n]]
    if not other_fields:
        return ""
    return f" (its {family.label} has {'; '.join(other_fields)}: see encoder.backbone)"
