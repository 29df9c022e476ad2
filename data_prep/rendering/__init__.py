"""Draws pictures of meshes: rasteriser, light, ground, lens and sensor."""
