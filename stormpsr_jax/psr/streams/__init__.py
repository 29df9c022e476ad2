"""Decoding: a stream of predictions becomes steps."""
