"""Offline data preparation: every source becomes ArrayRecord clip shards."""
