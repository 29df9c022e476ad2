"""What the page's process and the one that recognises say to each other, and to people."""

from stormpsr_jax.base.errors import tell

# What it is told. After the kind: JSON; of a picture the box as JSON, a line end, and the JPEG.
RECORD, STATUS, VIEW, PICTURE, END = b"r", b"s", b"v", b"p", b"e"
FRAMES = (VIEW, PICTURE)
# What it says: it has started; it takes the next view and picture; the next unit is to begin; and,
# with the number of pictures that it was told so far, somebody waits for one after these.
STARTED, TAKES, RESET, WANTED = b"started", b"takes", b"reset", b"wanted %d"
MAX_ANSWER = 32  # bytes of these
BACKLOG = 1024  # connections that wait to be taken


def say(text: str) -> None:
    """Prints a warning of the page's."""
    tell("warning", f"--serve: {text}")
