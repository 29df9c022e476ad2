import numpy as np
import pytest

from stormpsr_jax.media.pictures import ImageFiles
from stormpsr_jax.psr import Decoder, Settings, learned_stream
from stormpsr_jax.psr.learned_beliefs import Belief
from stormpsr_jax.recordings import label_file
from stormpsr_jax.recordings.label_file import LabelFile
from stormpsr_jax.recordings.labels import states_per_frame, steps_to_states
from stormpsr_jax.recordings.words import Terms
from stormpsr_jax.serving.files import results
from stormpsr_jax.serving.frames import Frame, ProductShare
from tests.support.live_data import PROCEDURE

VARIANT = PROCEDURE.variants["assembly"]


def of_decoder(rng, frames, stream):
    """Events and the assembly after each frame, of detections and probabilities by chance."""
    name = "confidence" if stream == "storm" else rng.choice(["naive", "confidence"])
    settings = Settings(name, threshold=rng.choice([0.0, 0.3, 1.5]), window=2, confidence=0.3)
    decoder = Decoder(PROCEDURE, VARIANT, stream, settings)
    for frame in frames:
        seen = [(int(rng.integers(0, 6)), float(rng.random()))]
        yield decoder.update(frame, seen, rng.random(3)), decoder.assembly


def of_reporter(rng, frames):
    """The same of beliefs by chance, of which some are of wrong parts."""
    possible = VARIANT.__class__(**{**vars(VARIANT), "allowed": (2, 5, 8)})
    reporter = learned_stream.Reporter(PROCEDURE, possible, learned_stream.LearnedSettings(), None)
    for frame in frames:
        belief = Belief(*(rng.normal(0, 6, 3) for _ in Belief._fields))
        yield reporter.update(frame, belief), tuple(reporter.reported.tolist())


@pytest.mark.parametrize("stream", ["asd", "temporal", "storm", "learned"])
@pytest.mark.parametrize(
    ("first", "count", "fps"), [(0, 1, 10), (0, 2, 10), (0, 60, 29.97), (1, 60, 10), (70, 60, 240)]
)
def test_events_csv_every_list_reads_back(tmp_path, stream, first, count, fps):
    at_first = wrong = 0
    for seed in range(8):
        rng, frames = np.random.default_rng(seed), range(first, first + count)
        said = of_reporter(rng, frames) if stream == "learned" else of_decoder(rng, frames, stream)
        events, states = zip(*said, strict=True)
        folder = tmp_path / str(seed)
        folder.mkdir()
        with results.Writer(folder, "x", PROCEDURE, fps, first) as writer:
            writer.write([Frame(n, events=e) for n, e in zip(frames, events, strict=True)], [])
            writer.finish(ProductShare(None, fps))
        events = [event for of_frame in events for event in of_frame]
        path = folder / results.EVENTS
        timed = LabelFile(path).timed(PROCEDURE, Terms(), "x", with_pictures=True)
        given = timed, VARIANT.initial_state, PROCEDURE.at(fps)
        start, steps = label_file.to_frames(path, *given, ImageFiles(folder, first, count))
        assert steps == [event[:2] for event in events if event.frame > first]
        per_frame = states_per_frame(*steps_to_states(steps, start, first), first, count)
        np.testing.assert_array_equal(per_frame, states)
        at_first += sum(event.frame == first for event in events)
        wrong += sum(event.step_id % 3 == 1 for event in events)
    assert at_first
    assert bool(wrong) == (stream == "learned")
