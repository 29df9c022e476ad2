"""What `python -m stormpsr_jax.recognise` does, and recognition of files from Python."""
