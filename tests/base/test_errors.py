"""Lines for people: what is in them may come from anybody."""

import os
import subprocess
import sys

import pytest

from stormpsr_jax.base import errors
from stormpsr_jax.psr.cli import fail

HOSTILE = "a\x1b[2J\x9b\u202e\ud800\0\x07 b"
SHOWN = r"a\x1b[2J\x9b\u202e\ud800\x00\x07 b"


def test_what_cannot_be_seen_is_written_out_and_all_else_stays():
    assert errors.visible(HOSTILE) == SHOWN
    assert errors.visible("Prüfstand – 日本 😀  x") == "Prüfstand – 日本 😀  x"


def test_no_text_forges_a_line_of_a_command(capsys):
    with pytest.raises(SystemExit):
        fail(f"x: {HOSTILE}\rerror: forged\x85error: forged")
    errors.tell("warning", f"x: {HOSTILE}\nerror: forged")
    with pytest.raises(errors.Errors) as error:
        errors.raise_all([f"x: {HOSTILE}\r\x0bforged", "y: z"])
    assert capsys.readouterr().err.splitlines() == [
        f"error: x: {SHOWN} error: forged error: forged",
        f"warning: x: {SHOWN} error: forged",
    ]
    assert str(error.value) == f"x: {SHOWN} forged\ny: z"


@pytest.mark.system
def test_who_tells_goes_on_where_stderr_is_gone():
    """As where the program that kept the lines of a station has died."""
    code = """
from stormpsr_jax.base.errors import tell
for _ in range(3):
    tell("warning", "lost")
print("goes on")
"""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as gone:
        done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=gone)
    assert done.stdout == b"goes on\n"


@pytest.mark.system
def test_an_output_that_nobody_reads_any_more_is_no_error():
    """As of `… | head -1`; 9 MB fit into no pipe."""
    code = """
from stormpsr_jax.psr.cli import fail_for
try:
    for _ in range(90_000):
        print("x" * 99)
except OSError as error:
    fail_for(error)
"""
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code], **streams) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 1
