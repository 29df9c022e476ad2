"""Which networks a stream needs: the one table of it."""

from stormpsr_jax.psr import streams

# By kind of predictions (`evaluation_set.KINDS`), the networks that it cannot do without. The
# temporal network looks at what the encoder makes of pictures.
_ROLES = {
    "detections": ("detector",),
    "windows": ("temporal",),
    "scores": ("temporal",),
}
# The functions that say it (`functions.functions`), of those there are.
_FUNCTIONS = {
    "detections": ("detect",),
    "windows": ("encode", "temporal"),
    "scores": ("detect", "encode", "temporal"),
}


def roles(stream: str) -> list[str]:
    """Returns the networks that a stream needs; ValueError if there is no such stream."""
    needed = {role for kind in streams.find(stream).needs for role in _ROLES[kind]}
    return sorted(needed)


def functions_of(stream: str) -> list[str]:
    """Returns the functions that a stream takes, of those there are."""
    return sorted({name for kind in streams.find(stream).needs for name in _FUNCTIONS[kind]})
