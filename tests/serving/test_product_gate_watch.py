import numpy as np

from stormpsr_jax.serving.product_gate import BOTH, Fits, Prototypes, Space
from stormpsr_jax.serving.product_gate_watch import Sighting, Watch
from tests.support.looks import seen


def watched(values, rate=1.0, threshold=0.1):
    watch = Watch(Fits({"detector": threshold}, None), rate, ())
    watch.of(seen([2], [0.5]))
    return watch, [watch.update(view(value)) for value in values]


def view(value):
    """Of one network: as sure as it is familiar."""
    return None if value is None else Sighting(value, value)


def test_watch_fits_as_soon_as_enough_was_familiar_until_three_minutes_without():
    watch, told = watched([0.0] * 5 + [1.0] * 7 + [0.0] * 300)
    assert told[:10] == [None] * 10  # 0.1 of 60 pictures are 6
    assert told[10:12] == [True, True]
    last = max(i for i, fits_now in enumerate(told) if fits_now)
    assert last == 65 + 179  # up to picture 65, a minute of 60 has six of them
    assert set(told[245:]) == {False}
    assert watch.finish() is True  # it fitted for a while
    again, _ = watched([])
    again.restore(watch.state())
    assert (again.fits, again.finish()) == (False, True), "nor is that forgotten over a restart"
    watch, told = watched([0.05] * 180)
    assert told == [None] * 179 + [False]
    assert watch.finish() is False


def test_watch_a_share_of_what_the_detector_is_sure_of_has_to_be_familiar():
    """Three seconds of it at least, and of another product on the same bench too little is."""
    watch, _ = watched([], threshold=0.01)
    told = [watch.update(Sighting(0.9, 0.9)) for _ in range(4)]
    assert told == [None, None, None, True]  # 2.7 s are too few to tell
    assert [watch.update(Sighting(0.1, 0.9)) for _ in range(300)][-1] is False
    for share, verdict in ((0.14, False), (0.16, True)):
        watch, _ = watched([], threshold=0.01)
        for _ in range(180):
            watch.update(Sighting(share * 0.5, 0.5))
        assert watch.fits is verdict


def test_watch_a_bare_base_plate_in_clear_view_is_no_other_product():
    space = Space(np.zeros(2), np.eye(2)[:1], np.ones(1), 1.0, typical=9.0)
    thresholds = {BOTH: 0.01, "detector": 0.01}
    model = Fits(thresholds, space, Prototypes(np.array([2]), np.eye(2)[:1]))
    for embeddings in (np.array([[1.0, 0.0]]), None):
        watch, told = Watch(model, 1.0, (1,)), []
        for shown in (*[2] * 20, *[1] * 400, *[2] * 5):
            (one,) = watch.of(seen([shown], [0.9], embeddings))
            told.append(watch.update(one))
        assert told[20:] == [True] * 405
