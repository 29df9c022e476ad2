"""Writes clip shards: recordings side by side in worker processes, files that appear whole."""
