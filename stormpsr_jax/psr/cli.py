"""What the NumPy-only commands share: errors of one line with exit code 2."""

import argparse
import io
import os
import sys
from typing import NoReturn


def fail(*messages: str) -> NoReturn:
    """Prints each line of the messages on stderr, as an error, and exits with code 2."""
    for message in messages:
        for line in message.splitlines():
            print("error: " + " ".join(line.split()), file=sys.stderr)
    sys.exit(2)


def print_anything() -> None:
    """Lets "?" stand for characters that the encoding of the terminal or file does not have.

    What is printed to an output that is closed goes nowhere.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


class OneLineParser(argparse.ArgumentParser):
    """A parser whose errors take one line, and whose flags are not abbreviated."""

    def __init__(self, **options):
        print_anything()
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        """Exits with code 2."""
        fail(f"{message}; see --help")
