"""Checks a finished folder of clip shards and shows what is in it."""
