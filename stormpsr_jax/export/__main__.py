"""Runs the command `export`."""

import sys

from stormpsr_jax.export.command import main

sys.exit(main())
