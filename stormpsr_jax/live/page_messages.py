"""What the page's process and the one that recognises say to each other, and to people."""

from stormpsr_jax.base.errors import tell

# What it is told. After the kind: JSON; of a picture the box as JSON, a line end, and the JPEG.
RECORD, STATUS, VIEW, PICTURE, END = b"r", b"s", b"v", b"p", b"e"
# What it says: it has started; the next unit is to begin; somebody waits for a picture.
STARTED, RESET, WANTED = b"started", b"reset", b"wanted"


def say(text: str) -> None:
    """Prints a warning of the page's."""
    tell("warning", f"--serve: {text}")
