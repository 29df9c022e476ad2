"""What makes files that ship, in the package or beside it; each script's head says how.

What networks start from needs no script: stormpsr_jax/pretrained/general_encoder.safetensors is a
copy of `general/encoder.safetensors` of a run of `python -m stormpsr_jax.main
--config=general_encoder --workdir=DIR`, general_detector.safetensors of the same of
`general_detector`.
"""
