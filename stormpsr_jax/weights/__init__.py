"""Weights in and out: published ViTs, released PyTorch checkpoints, and our own files."""
