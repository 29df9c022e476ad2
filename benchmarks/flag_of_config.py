"""The flag --config, and --config.FIELD, of a benchmark, whose other flags are those of absl."""

from __future__ import annotations

import re
import sys
from operator import attrgetter
from typing import Any

from absl import flags
from ml_collections import ConfigDict

from stormpsr_jax.stages import config_flag


class Config:
    """What --config and --config.FIELD give, once the flags are parsed.

    Attributes:
        value: the config.
        changed: the fields that --config.FIELD names, with their values.
    """

    value: ConfigDict
    changed: dict[str, Any]

    def __init__(self, default: str):
        """`default`: the name or path of the config."""
        flags.DEFINE_string("config", default, "Name of a config, or the path of a file.")

    def parse_flags(self, argv: list[str]) -> list[str]:
        """For `absl.app.run`."""
        fields = [word for word in argv if re.match(r"--(no)?config\.", word)]
        try:
            rest = flags.FLAGS([word for word in argv if word not in fields])
            self.value = config_flag.load(flags.FLAGS["config"].value, fields)
        except (flags.Error, ValueError) as error:
            sys.exit(f"error: {error}")
        names = [re.match(r"--(?:no)?config\.([^=]*)", word)[1] for word in fields]
        self.changed = {name: attrgetter(name)(self.value) for name in names}
        return rest
