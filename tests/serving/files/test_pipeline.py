"""Chunks that wait until it is known whether the pictures fit."""

import pytest

from stormpsr_jax.serving.files import pipeline
from stormpsr_jax.serving.product_gate_watch import Held
from stormpsr_jax.serving.recogniser import Recognised

FRAMES, PATIENCE = 700, 90


class Watch:
    """Knows at a frame that the pictures fit."""

    patience, fits = PATIENCE, None

    def __init__(self, known, first=True):
        self.known, self.first, self.count = known, first, 0

    @property
    def holding(self):
        return self.fits is None

    def update(self, view):
        if self.count >= self.known:
            self.fits = self.first if self.count < self.known + 20 else not self.first
        self.count += 1
        return self.fits

    def finish(self):
        return self.fits


class Decoder:
    belief, stream = None, "asd"

    def __init__(self):
        self.seen = []

    def observe(self, number, seen, step=1):
        self.seen.append(number)
        return []


class Pictures:
    first_frame = 0


def recognised(monkeypatch, known, batch, first=True):
    watch, decoder = Watch(known, first), Decoder()

    def seen(*_):
        for numbers in (range(n, min(FRAMES, n + batch)) for n in range(0, FRAMES, batch)):
            jpegs = [bytes([n % 251]) * (n % 50) for n in numbers]
            fits = [watch.update(None) for _ in numbers]
            nothing = [None] * len(numbers)
            yield pipeline.Chunk(
                numbers, jpegs, Recognised(None, None), [], nothing, fits, [False] * len(numbers)
            )

    monkeypatch.setattr(pipeline, "_seen", seen)
    chunks = list(pipeline._recognised(None, Pictures, decoder, watch, batch, False))
    jpegs = [jpeg for chunk in chunks for jpeg in chunk.jpegs]
    assert jpegs == [bytes([n % 251]) * (n % 50) for n in range(FRAMES)]
    return decoder.seen


@pytest.mark.parametrize("known", [0, 1, 50, 400, 10_000])
@pytest.mark.parametrize("batch", [1, 8, 64])
@pytest.mark.parametrize("most", [2**28, 200])
@pytest.mark.parametrize("first", [True, False])
def test_recognised_decodes_what_live_recognition_does_however_large_the_pictures(
    monkeypatch, known, batch, most, first
):
    """The verdict changes after 20 frames, at times within a chunk."""
    monkeypatch.setattr(pipeline, "_MAX_HELD", most)
    watch = Watch(known, first)
    held = Held(watch)
    expected = [row for n in range(FRAMES) for row in held.add(n, None)] + list(held.release())
    assert recognised(monkeypatch, known, batch, first) == expected


def test_recognised_of_a_model_that_cannot_tell_nothing_is_too_old(monkeypatch):
    """Though three minutes of a time-lapse are less than a chunk."""
    monkeypatch.setattr(Watch, "patience", 2)
    monkeypatch.setattr(Watch, "holding", False)
    assert recognised(monkeypatch, 10_000, 64) == list(range(FRAMES))


def test_recognised_that_is_ended_leaves_no_file_open(monkeypatch):
    monkeypatch.setattr(pipeline, "_MAX_HELD", 0)
    files, make = [], pipeline.tempfile.TemporaryFile
    monkeypatch.setattr(
        pipeline.tempfile, "TemporaryFile", lambda: files.append(make()) or files[-1]
    )
    recognised(monkeypatch, 400, 64)
    assert files
    assert all(file.closed for file in files)
