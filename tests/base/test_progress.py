"""Progress where no terminal shows it, and on one."""

import io
import sys
import time

import pytest

from stormpsr_jax.base import progress
from stormpsr_jax.base.progress import Bar


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("kind", [io.StringIO, Terminal])
def test_progress_whole_lines_off_a_terminal_and_a_moving_bar_on_one(kind, monkeypatch):
    monkeypatch.setattr(progress, "_LINE_SECONDS", 0.2)
    monkeypatch.setattr(progress, "_BAR_SECONDS", 0.0)
    stream = kind()
    monkeypatch.setattr(sys, "stderr", stream)
    start = time.monotonic()
    above = Bar(total=1, desc="another bar", unit="frame")
    with Bar(total=100, desc="work", unit="frame") as bar:
        for _ in range(100):
            time.sleep(0.005)
            bar.update()
    above.close()
    text = stream.getvalue()
    assert "100/100" in text
    assert "frame/s" in text
    if kind is Terminal:
        assert text.count("\r") > 50
        return
    assert "\r" not in text
    assert "\x1b" not in text, "no moving of a cursor, whatever other bars there are"
    lines = [line for line in text.splitlines() if line.startswith("work: ")]
    assert 3 <= len(lines) <= 3 + (time.monotonic() - start) / 0.2, "start, end, every 0.2 s"
    assert text.endswith("\n")
