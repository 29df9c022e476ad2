"""Runs the command `label`."""

import sys

from data_prep.label.command import main

sys.exit(main())
