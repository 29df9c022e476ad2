"""Clip shards as a random-access source, sampling, augmentation, input pipelines."""
