"""The configs that ship, also importable as `stormpsr_jax.configs`, which is a link to here."""
