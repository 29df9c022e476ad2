"""The families of backbones, and the published models by name: what `encoder.backbone` may be.

A further family is one file with a `Family`, and its line in FAMILIES.
"""

import dataclasses
import re
from collections.abc import Collection, Mapping
from typing import Any

import flax.linen as nn

from stormpsr_jax.networks import efficientnet, vit_family
from stormpsr_jax.networks.family import Family

FAMILIES: tuple[Family, ...] = (vit_family.FAMILY, efficientnet.FAMILY)
BY_KIND = {family.kind: family for family in FAMILIES}
BACKBONES = {name: family for family in FAMILIES for name in family.named}


def build(section: Mapping[str, Any], **given: Any) -> nn.Module:
    """The backbone of a config's section `encoder`: what is not 0, "" or () replaces its own."""
    family = BACKBONES[section["backbone"]]
    own = _names(family)
    changes = {name: value for name, value in section.items() if name in own and value}
    changes = {n: tuple(v) if isinstance(v, list) else v for n, v in changes.items()}
    fields = family.configured(family.named[section["backbone"]], changes)
    return family.module(**fields, **given)


def find_errors(section: Mapping[str, Any]) -> list[str]:
    """Says whether the backbone is unknown, and which fields are of another family."""
    family = BACKBONES.get(section["backbone"])
    if family is None:
        return [f"is not one of {', '.join(BACKBONES)}"]
    others = set().union(*map(_names, FAMILIES)) - _names(family)
    wrong = [name for name in section if name in others and section[name]]
    return [f"a {family.label} has no {', '.join(wrong)}; set them to 0 or ()"] if wrong else []


def _names(family: Family) -> set[str]:
    """The fields of a family's module."""
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
    found = [f"{name} {have[name]}, not {need[name]}" for name in have if have[name] != need[name]]
    return f" (its {family.label} has {'; '.join(found)}: see encoder.backbone)" if found else ""
