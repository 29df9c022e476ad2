"""A stream, recognised by a model as a run leaves it and by each of its exports."""

import pytest

import stormpsr_jax
from stormpsr_jax.live import live_sources
from stormpsr_jax.live.capture import Capture, Clock
from stormpsr_jax.live.live_sources import live_source
from stormpsr_jax.live.station import Station
from stormpsr_jax.serving.files.unit import Reset
from tests.support.exported import FORMS, in_form
from tests.support.rtsp import Server

FPS = 50  # of the server
PICTURES = 80


def watched(model, url) -> tuple[list, list]:
    """The pictures of a stream with their times, and the lines that a station tells of them."""
    live, clock, taken, stop, lines = model.live("assembly"), Clock(FPS), [], [], []
    live.fps = FPS
    take = live.take

    def kept(picture, time):
        taken.append((picture, time))
        stop.extend([1] if len(taken) == PICTURES else [])
        return take(picture, time)

    class Told:
        def send(self, record):
            lines.append(record)

        def close(self):
            pass

    live.take = kept
    source = live_source(url)
    station = Station(live, source.name, clock=clock, reset=Reset(), tell=lambda line: None)
    with Capture(source, clock, live.frame_at, depth=600) as capture:
        station.run(capture, stop, [Told()])
    return taken, lines


def events(model, taken) -> list[tuple[int, int]]:
    live = model.live("assembly")
    live.fps = FPS
    found = [event for picture, time in taken for event in live.update(picture, time)]
    return [(event.frame, event.step_id) for event in found]


@pytest.mark.parametrize("form", ["weights", *FORMS])
def test_a_stream_has_the_events_of_its_pictures_in_every_form(tmp_path_factory, form, monkeypatch):
    monkeypatch.setattr(live_sources, "PATIENCE", 20.0)
    model = stormpsr_jax.load_model(in_form(tmp_path_factory, form))
    with Server() as server:
        taken, lines = watched(model, server.url)
    told = [(line["frame"], line["step_id"]) for line in lines if line["type"] == "event"]
    assert told == events(model, taken) != []
    assert lines[-1]["dropped"] == 0
    if form != "int8":
        ours = stormpsr_jax.load_model(in_form(tmp_path_factory, "weights"))
        assert told == events(ours, taken)
