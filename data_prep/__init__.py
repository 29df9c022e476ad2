"""Offline data preparation: every source becomes ArrayRecord clip shards."""

import stormpsr_jax  # noqa: F401  (before any other package: it looks for those that are missing)
