"""Which networks a stream needs: the one table of it."""

from stormpsr_jax.psr.streams import streams

# By kind of predictions (`recordings.KINDS`), the networks that say it. The temporal network looks
# at what the encoder makes of pictures, or at ready-made embeddings.
_ROLES = {
    "detections": ("detector",),
    "windows": ("temporal",),
    "scores": ("detector", "temporal"),
}
# The functions that these networks are used by (`functions.functions`).
_FUNCTIONS = {"detector": ("detect",), "temporal": ("encode", "temporal")}


def roles(stream: str) -> list[str]:
    """Returns the networks that a stream needs; ValueError if there is no such stream."""
    needed = {role for kind in streams.find(stream).needs for role in _ROLES[kind]}
    return sorted(needed)


def functions_of(stream: str) -> list[str]:
    """Returns the functions that a stream needs, of those there are."""
    return [name for role in roles(stream) for name in _FUNCTIONS[role]]
