"""What the NumPy-only commands share: errors of one line with exit code 2."""

import argparse
import io
import sys
from typing import NoReturn


def fail(*messages: str) -> NoReturn:
    """Prints each line of the messages on stderr, as an error, and exits with code 2."""
    for message in messages:
        for line in message.splitlines():
            print("error: " + " ".join(line.split()), file=sys.stderr)
    sys.exit(2)


def print_anything() -> None:
    """Lets "?" stand for characters that the encoding of the terminal or file does not have."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # not None, as of a closed one
            stream.reconfigure(errors="replace")


class OneLineParser(argparse.ArgumentParser):
    """A parser whose errors take one line, and whose flags are not abbreviated."""

    def __init__(self, **options):
        print_anything()
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        """Exits with code 2."""
        fail(f"{message}; see --help")
