"""Renders pictures of products: the synthetic assembly, and CAD meshes."""
