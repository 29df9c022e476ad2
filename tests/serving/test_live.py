import copy
import json

import numpy as np
import pytest

import stormpsr_jax
from stormpsr_jax.psr import learned_stream
from stormpsr_jax.psr.streams import names as stream_names
from stormpsr_jax.serving import frames
from stormpsr_jax.serving.content import Window, with_checksum
from stormpsr_jax.serving.frames import Detected, Frame, Frames, ProductShare, Views
from stormpsr_jax.serving.online import LATE, Live
from tests.support import live_data
from tests.support.live_data import FPS, WEIGHTS
from tests.support.model_data import PROCEDURE, of_clips, video, write

NUM_FRAMES = 100
IMAGES = video(NUM_FRAMES)
# With which the random model changes its mind often.
SETTINGS = {"learned": learned_stream.LearnedSettings(install=3.0, wrong=-4.5)}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "model"
    write(folder, stream_names())
    return stormpsr_jax.load_model(folder)


def feed(live, frames, fps=10.0):
    return [event for frame in frames for event in live.update(IMAGES[frame], frame / fps)]


def test_a_model_of_clips_alone_has_them_too(tmp_path):
    """Without a detector its scores have no objectness."""
    write(tmp_path / "model", ("temporal", "learned"), **of_clips())
    model = stormpsr_jax.load_model(tmp_path / "model")
    settings = learned_stream.LearnedSettings(install=-3.0, wrong=-3.0)
    options = {"variant": "assembly", "stream": "learned", "settings": settings}
    expected = feed(model.live(**options), range(NUM_FRAMES))
    assert len(expected) > 3
    assert list(model.recognise(IMAGES, batch=7, **options)) == expected


def through_json(state):
    return json.loads(json.dumps(state, allow_nan=False))


@pytest.mark.parametrize("stream", stream_names())
def test_update_has_the_events_of_recognise(trained, stream):
    for variant in PROCEDURE.variants:
        options = {"variant": variant, "stream": stream, "settings": SETTINGS.get(stream)}
        expected = list(trained.recognise(IMAGES, **options))
        assert len(expected) > 3
        # To the last bit.
        assert feed(trained.live(**options), range(NUM_FRAMES)) == expected
        assert list(trained.recognise(IMAGES, batch=7, **options)) == expected


@pytest.mark.parametrize("stream", stream_names())
def test_restore_goes_on_at_any_frame(trained, stream):
    options = {"variant": "assembly", "stream": stream, "settings": SETTINGS.get(stream)}
    whole = trained.live(**options)
    cuts = {1, *np.random.default_rng(len(stream)).integers(0, NUM_FRAMES, 2).tolist()}
    saved, told = {}, []  # told: (frame, event, alert or progress)
    for frame in range(NUM_FRAMES):
        if frame in cuts:
            saved[frame] = whole.state()
        told += [(frame, one) for one in whole.update(IMAGES[frame], frame / 10)]
        told += [(frame, one) for one in [*whole.alerts, whole.progress]]
    assert len(told) > NUM_FRAMES + 5
    for cut, state in saved.items():
        live = trained.live(**options)
        live.restore(through_json(state))
        assert through_json(live.state()) == through_json(state)
        again = []
        for frame in range(cut, NUM_FRAMES):
            again += [(frame, one) for one in live.update(IMAGES[frame], frame / 10)]
            again += [(frame, one) for one in [*live.alerts, live.progress]]
        assert again == [one for one in told if one[0] >= cut]
        assert live.finish() == whole.finish()


def test_update_several_pictures_of_a_frame_and_late_ones(trained):
    expected = list(trained.recognise(IMAGES, variant="assembly", stream="storm", batch=1))
    live, found = trained.live("assembly", "storm"), []
    for frame, picture in enumerate(IMAGES):
        found += live.update(picture, frame / 10 - 0.049 * (frame > 0))
        assert live.update(IMAGES[0], frame / 10 + 0.049) == []
        assert live.update(IMAGES[3], max(0, frame / 10 - LATE / 2)) == []  # too late
    assert found == expected
    with pytest.raises(ValueError, match=r"time=3: the picture before was at 9.9; reset\(\)"):
        live.update(IMAGES[0], 3.0)
    for time in (-1, float("nan"), float("inf"), "1", None):
        with pytest.raises(ValueError, match="is not a number of seconds from 0 up"):
            live.update(IMAGES[0], time)
    assert live.update(IMAGES[0], 10.0) is not None
    assert live.frame == 100


def test_beliefs_are_those_of_events_and_parts_sit_wrong(trained):
    live = trained.live("assembly", "learned", settings=SETTINGS["learned"])
    assert live.beliefs is None
    wrong = 0
    for frame in range(NUM_FRAMES):
        events = live.update(IMAGES[frame], frame / 10)
        parts = live.beliefs
        assert [part.component for part in parts] == list(PROCEDURE.components)
        for event in events:
            _, right, of_wrong = parts[event.step_id // 3]
            assert (event.evidence["right"], event.evidence["wrong"]) == (right, of_wrong)
            rows = [step for step in live.progress if step.step_id == event.step_id]
            if not rows and event.step_id % 3 == 2:
                continue  # it corrects what was reported as incorrect
            (row,) = rows
            assert (row.name, row.time_s) == (event.name, frame / 10)
            if event.step_id % 3 == 1:
                wrong += 1
                assert row.status == "wrong"
                assert live.decoder.assembly[event.step_id // 3] == -1
                assert event.step_id - 1 in [alert.step_id for alert in live.finish()]
    assert wrong
    for step in live.progress:
        if step.time_s is not None and step.step_id % 3 == 0:
            right = live.beliefs[step.step_id // 3].right
            assert step.likely == pytest.approx(right, abs=1e-4)  # that it still holds
    feed(storm := trained.live("assembly", "storm"), range(NUM_FRAMES))
    assert storm.beliefs is None
    assert {step.likely for step in storm.progress} == {None}


@pytest.mark.parametrize(
    ("stream", "path", "value", "message"),
    [
        ("storm", ["format"], 1, "the saved state: format: "),
        ("storm", ["model"], "other", "is of a model of 'other'"),
        ("storm", ["frame"], True, "frame: expected "),
        ("storm", ["decoder", "stream"], "asd", "is of stream 'asd'"),
        ("storm", ["decoder", "variant"], "disassembly", "is of variant 'disassembly'"),
        ("storm", ["decoder", "settings", "decay"], 0.1, "is of settings"),
        ("learned", ["decoder", "weights"], "0", "is of weights '0'"),
        ("storm", ["decoder", "frame"], 7, r"the saved state is damaged \(its checksum"),
    ],
)
def test_restore_errors_leave_everything_as_it_was(trained, stream, path, value, message):
    live = trained.live("assembly", stream)
    feed(live, range(20))
    before = through_json(live.state())
    state = part = copy.deepcopy(before)
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = value
    with pytest.raises(ValueError, match=message):
        live.restore(state if "damaged" in message else with_checksum(state))
    assert through_json(live.state()) == before


# --- Seconds are counted, whatever the rate of the camera -----------------------------------------


CAUTIOUS = learned_stream.LearnedSettings(sure=2.5)
BEFORE = 4.0  # seconds without a part


def parts(first_pixels):
    """Of a picture whose first pixel is 1: the first part, right and in clear view."""
    there = 10 * float(first_pixels[0, -1, 0]) - 5
    return np.array([[there, -6, -6, there, -6, -6]])


FUNCTIONS = {
    "encode": lambda images: images[:, 0, 0].astype(np.float32),
    "temporal": lambda windows: (np.zeros((1, 3)), np.c_[[[-5, -5, -5]], parts(windows)]),
    "detect": lambda images: (
        *(np.zeros((1, 1, 4)), np.zeros((1, 1), int), np.zeros((1, 1))),
        (np.array([4.0]), np.log([[0.96, 0.01, 0.01, 0.01, 0.01]]), parts(images[:, 0, :1])),
    ),
}


def right_at(times):
    """The second at which the part is right, of pictures at these times."""
    variant = live_data.PROCEDURE.variants["assembly"]
    live = Live(
        prepare=lambda shown: Views(shown, shown),
        frames=lambda decoder: Frames(FUNCTIONS, Window(1, 1), decoder),
        decoder=lambda: learned_stream.LearnedDecoder(
            live_data.PROCEDURE.at(FPS), variant, CAUTIOUS, WEIGHTS
        ),
        product=ProductShare(None, FPS, station=True),
        fps=FPS,
        of_model="eyes",
    )
    for time in times:
        shown = np.full((4, 4, 3), time >= BEFORE, np.uint8)
        for event in live.update(shown, time):
            if (event.kind, event.step_id) == ("report", 0):
                return time
    return None


@pytest.mark.parametrize("rate", [FPS, 5.0, 2.0])
def test_a_part_is_right_as_soon_with_a_slow_camera(rate):
    times = np.arange(0, 30, 1 / rate)
    assert right_at(times) == pytest.approx(BEFORE + 2.5, abs=1.5)
    jittered = times + np.random.default_rng(0).uniform(0, 0.3 / rate, len(times))
    assert right_at(jittered) == pytest.approx(right_at(times), abs=1.0)


def test_a_dropout_is_no_look():
    """One picture of the part, 60 s after the one before it, is not a look of a minute."""
    before = np.arange(0, BEFORE, 1 / FPS)
    assert right_at([*before, 64.0]) is None
    assert right_at([*before, *np.arange(64.0, 70.0, 1 / FPS)]) == pytest.approx(66.5, abs=1.5)


RATE = 5.0


def pictures(shown):
    """Frames whose pictures are of the product where `shown` (N,) says so."""
    for i, there in enumerate(shown):
        found = np.array([0, 3 * there]), np.array([0, 0.9 * there])
        yield Frame(i, Detected(np.zeros((2, 4)), *found))


def part(share, count):
    return np.arange(count) < round(share * count)


def test_a_station_goes_by_the_last_minutes():
    minute = round(60 * RATE)
    product, told = ProductShare(0.4, RATE, station=True), []
    for share, minutes in ((0.4, 2), (0.0, 20), (0.4, 3)):
        for _ in range(minutes):
            for picture in pictures(part(share, minute)):
                product.update(picture)
            told.append(product.fits)
    assert told[1] is True
    assert told[21] is False
    assert told[-1] is True  # within minutes after a break
    assert told[2:5] == [True] * 3  # a short one says nothing
    assert product.counts[1] <= RATE * frames.MEMORY + 1
