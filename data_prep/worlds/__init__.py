"""Recordings of products: what people do and when, the workplace, and where all is in a frame."""
