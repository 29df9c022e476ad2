"""Weights in and out: published backbones, released PyTorch checkpoints, and our own files."""
