"""Films of an assembly that no part of this package renders."""
