"""Lets the tests here import what several files share (own_data.py …), wherever pytest runs."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
