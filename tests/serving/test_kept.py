"""A recording is judged as a whole: its frames that fit are decoded, and no others."""

import numpy as np
import pytest

from stormpsr_jax.serving import kept
from stormpsr_jax.serving.kept import Kept
from stormpsr_jax.serving.product_gate import Fits
from tests.support.live_data import COVER, NOTHING, SCREW, SEAL, frames, scripted

OWN, FOREIGN = Fits({"detector": 0.1}, None), Fits({"detector": 0.9}, None)
SHORT = ((NOTHING, 30), (SEAL, 20), (COVER, 20), (SCREW, 40))


def recognised(fits, runs, batch=16):
    """(verdict, events, verdict of each frame) of a recording from frame 7 on."""
    live = scripted(fits=fits)
    rows = [picture for _, picture in frames(*runs)]
    with Kept(live.watch) as one:
        done = list(one.look(live._make_recogniser(), iter(rows), batch))
        assert sum(done) == len(rows)
        chunks = list(one.decoded(live._make_decoder(), 7))
    numbers = [number for chunk in chunks for number in chunk.numbers]
    assert numbers == [7 + i for i in range(len(rows))]
    events = [event for chunk in chunks for event in chunk.events]
    return one.fits, events, [one for chunk in chunks for one in chunk.fits]


@pytest.mark.parametrize("most", [2**28, 0])
@pytest.mark.parametrize("batch", [1, 64])
def test_what_is_kept_may_lie_in_a_file_and_comes_back_as_it_was(monkeypatch, most, batch):
    fits, events, each = expected = recognised(OWN, SHORT)
    assert {fits, *each} == {True}
    live = scripted()
    assert events == [e for at, p in frames(*SHORT, start=7) for e in live.update(p, at)] != []
    monkeypatch.setattr(kept, "MAX_IN_MEMORY", most)
    assert recognised(OWN, SHORT, batch) == expected


def test_another_product_has_no_events_however_short_the_recording():
    for runs, verdict in ((SHORT, False), ((*SHORT, (NOTHING, 1900)), False), ([(SEAL, 60)], None)):
        fits, events, each = recognised(FOREIGN, runs)
        assert (fits, {*each}) == (verdict, {verdict})
        assert bool(events) == (verdict is None)


def test_stretches_of_another_product_are_left_out():
    """Three minutes of it, after the own one; a later return fits again."""
    runs = ((SEAL, 80), (NOTHING, 2600), (COVER, 20), (NOTHING, 100), (COVER, 80))
    fits, events, each = recognised(OWN, runs)
    assert fits is True
    assert set(each[:600]) == {True}
    assert False in each
    told = np.array(each)[[event.frame - 7 for event in events]]
    assert told.all()
    assert [event.step_id for event in events] == [0, 3]
    assert events[1].frame - 7 > 2720  # where it is known to fit again
