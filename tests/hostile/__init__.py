"""One corpus of faults and hostile files, for quick tests and for `python -m tests.hostile`."""
