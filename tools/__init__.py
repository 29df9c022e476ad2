"""What makes files that ship, in the package or beside it; each script's head says how.

The general encoder needs no script: it is `general/encoder.safetensors` of a run of
`python -m stormpsr_jax.main --config=general_encoder --workdir=DIR`, copied to
stormpsr_jax/pretrained/general_encoder.safetensors.
"""
