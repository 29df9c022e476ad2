import numpy as np
import pytest

from stormpsr_jax.media.pictures import ImageFiles
from stormpsr_jax.psr import Decoder, Event, Settings, learned_stream
from stormpsr_jax.psr.learned_beliefs import Belief
from stormpsr_jax.recordings import label_file
from stormpsr_jax.recordings.label_file import LabelPlace
from stormpsr_jax.recordings.labels import states_per_frame, steps_to_states
from stormpsr_jax.recordings.words import Terms
from stormpsr_jax.serving.files import overlay, results
from stormpsr_jax.serving.files.overlay import reduced
from stormpsr_jax.serving.files.page import Report
from stormpsr_jax.serving.frames import Detected, Frame, ProductShare
from tests.support.live_data import PROCEDURE
from tests.support.model_data import PICTURES
from tests.support.recognise_data import decoded, found, run

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
        timed = LabelPlace(path).timed(PROCEDURE, Terms(), "x", with_pictures=True)
        given = timed, VARIANT.initial_state, PROCEDURE.at(fps)
        start, steps = label_file.to_frames(path, *given, ImageFiles(folder, first, count))
        assert steps == [event[:2] for event in events if event.frame > first]
        per_frame = states_per_frame(*steps_to_states(steps, start, first), first, count)
        np.testing.assert_array_equal(per_frame, states)
        at_first += sum(event.frame == first for event in events)
        wrong += sum(event.step_id % 3 == 1 for event in events)
    assert at_first
    assert bool(wrong) == (stream == "learned")


# --- The video ------------------------------------------------------------------------------------


def test_large_pictures_become_smaller_in_a_video(tmp_path):
    """4K becomes half as high and as wide; what is drawn on it keeps its place."""
    picture = np.full((2160, 3840, 3), 90, np.uint8)
    assert reduced(picture).shape == (1080, 1920, 3)
    assert reduced(picture[:1440, :2560]).shape == (1440, 2560, 3)
    box = 2, 0.9, np.array([0.5, 0.5, 0.5, 0.5])
    seen = Detected(*(np.array([part]) for part in (box[2], box[0], box[1])))
    shown = overlay.Shown(0.5, [(0, "next")], Frame(0, seen), 0.5)
    with overlay.writing_video(
        tmp_path / "x.mp4", PROCEDURE, PICTURES.framing_of("encoder"), 5
    ) as write_frame:
        write_frame(reduced(picture), shown)
    (drawn,) = decoded(tmp_path / "x.mp4").astype(int)
    edge = np.abs(drawn[540] - overlay._BOX).sum(1) < 60
    assert abs(np.flatnonzero(edge)[[0, -1]] - (480, 1439)).max() <= 4


# --- The report -----------------------------------------------------------------------------------


def test_report_escapes_names_and_shows_every_event(made, trained, tmp_path, clip):
    page = (made / "report.html").read_text(encoding="utf-8")
    assert page.count("data:image/jpeg;base64,") == len({frame for frame, _ in found(made)})
    assert page.count('<td class="name">Install') >= sum(s % 3 == 0 for _, s in found(made))
    evil = tmp_path / "<script>alert(1)<_up.mp4"
    evil.write_bytes(clip.read_bytes())
    assert run(trained, evil, f"--out={tmp_path / 'out'}") == 0
    page = (tmp_path / "out" / evil.stem / "report.html").read_text(encoding="utf-8")
    assert "<script" not in page


def test_report_hints_at_steps_that_are_not_sure(tmp_path):
    report = Report(PROCEDURE, PROCEDURE.variants["assembly"], 10, 0, 4)
    events = [Event(1, step, 0.99, "learned", {}, "x", 0.1) for step in (0, 3)]
    doubts = [(0, 0, {"since": 0}), (2, 6, {"since": 0})]
    events[:0] = [Event(f, s, 0.5, "learned", e, "y", 0.2, "unsure") for f, s, e in doubts]
    events[:0] = [Event(0, step, 0.9, "learned", {}, "z", 0.0, "seen") for step in (0, 6)]
    for i in range(4):
        here = [event for event in events if event.frame == i]
        report.add(Frame(i, changed=np.zeros(3), events=here), [])
    rows = [(0, "done"), (3, "done"), (6, "unsure"), (6, "seen")]
    settings = learned_stream.LearnedSettings()
    report.write(
        tmp_path / "r.html", name="x", rows=rows, stream="learned", settings=settings,
        calibrated=False, source="x.mp4", product=ProductShare(None, 10),
    )  # fmt: skip
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert '<td class="amber">not sure</td>' in page
    assert (page.count("● done"), page.count("○ seen")) == (2, 1)
    assert "A ring is a step that was seen" in page
    assert page.count("the end: look at the video") == 1, "the other one was settled"
    assert '<div class="value">2</div><div class="label">steps recognised' in page
    assert "not calibrated on recordings that the model has not seen" in page
