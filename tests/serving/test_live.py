import copy
import json

import numpy as np
import pytest

import stormpsr_jax
from stormpsr_jax.psr import learned_stream
from stormpsr_jax.psr.streams import names as stream_names
from stormpsr_jax.serving.content import with_checksum
from stormpsr_jax.serving.online import LATE
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
