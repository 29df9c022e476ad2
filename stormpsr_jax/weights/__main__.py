"""Runs the command `weights`."""

import sys

from stormpsr_jax.weights.command import main

sys.exit(main())
