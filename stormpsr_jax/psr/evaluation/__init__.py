"""Whole results: scored, analysed, compared, as tables."""
