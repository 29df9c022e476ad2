"""Whether the fields of a config have values that configs/default.py allows."""

from __future__ import annotations

from typing import Any

from ml_collections import ConfigDict

from stormpsr_jax.configs import default, fields
from stormpsr_jax.networks import backbones
from stormpsr_jax.stages import provenance

FIELDS = dict(fields.flatten(default.described()))


def find_mistakes(config: ConfigDict) -> list[str]:
    """Returns a line for each field of a config whose value is out of its range.

    Besides one for an unknown backbone, whose names a config does not know as it is read without
    JAX, and one for fields of the encoder that its backbone does not have.
    """
    mistakes = []
    for field, value in provenance.flat_config(config).items():
        mistakes += [f"--config.{field}={value!r}: {what}" for what in wrong_with(field, value)]
    of_encoder = backbones.find_mistakes(config.encoder)
    backbone = f"--config.encoder.backbone={config.encoder.backbone!r}"
    return mistakes + [f"{backbone}: {what}" for what in of_encoder]


def wrong_with(field: str, value: Any) -> list[str]:
    """Says what is wrong with the value of one field; an empty list if nothing is."""
    return fields.wrong_with(FIELDS[field], value)
