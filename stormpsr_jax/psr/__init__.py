"""Procedures, decoding, fusion and metrics, in NumPy alone."""
