"""STORM-PSR in JAX: procedure step recognition in egocentric assembly video."""
