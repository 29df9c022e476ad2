"""Whether pictures are of a model's kind: what is familiar, and what follows over time."""

import itertools
import json
import math

import numpy as np
import pytest

from stormpsr_jax.model import fits
from stormpsr_jax.model.fits import BOTH, Fits, Held, Looks, Prototypes, Space, View, Watch
from stormpsr_jax.model.recogniser import Detected, Recognised
from tests.support.live_data import COVER, NOTHING, ONLY_COVER, SCREW, SEAL, frames, scripted

DETECTOR = Fits({"detector": 0.1}, None)
RATE = 10.0  # as `live_data.FPS`
SURE = 0.9  # of `live_data.picture`


def looks(rng, count, centre=0.0, confidence=0.8):
    embeddings = rng.normal(centre, 1, (count, 6)) @ np.diag([3, 2, 1, 1, 0.5, 0.5])
    classes = 2 + (embeddings[:, 0] > centre)
    return Looks(np.full(count, confidence), classes, np.zeros(count, bool), embeddings)


def seen(classes, confidences, embeddings=None):
    """One detection a picture."""
    columns = np.asarray(classes)[:, None], np.asarray(confidences, float)[:, None]
    return Recognised(None, Detected(np.zeros((len(classes), 1, 4)), *columns), None, embeddings)


# --- A picture ------------------------------------------------------------------------------------


def test_distances_are_those_of_the_gaussian_with_one_variance_for_the_rest():
    rng = np.random.default_rng(0)
    axes = np.linalg.qr(rng.normal(size=(5, 5)))[0]
    space = Space(rng.normal(size=5), axes[:2], np.array([3.0, 2.0]), 0.5)
    covariance = axes.T @ np.diag([9, 4, 0.25, 0.25, 0.25]) @ axes
    rows = rng.normal(0, 3, (20, 5))
    expected = [
        math.sqrt((row - space.mean) @ np.linalg.solve(covariance, row - space.mean) / 5)
        for row in rows
    ]
    np.testing.assert_allclose(space.distances(rows), expected)


def test_learned_space_has_the_variances_of_the_embeddings():
    rng = np.random.default_rng(1)
    embeddings = rng.normal(size=(4000, 4)) * [5, 3, 1, 1] + 7
    found = fits._space(embeddings)
    np.testing.assert_allclose(found.mean, 7, atol=0.3)
    np.testing.assert_allclose(found.deviations, [5, 3, 1], rtol=0.05)
    assert found.rest == pytest.approx(1, rel=0.05)
    # Distances of the embeddings themselves: the mean of their squares is 1.
    assert np.square(found.distances(embeddings)).mean() == pytest.approx(1)


def test_a_picture_is_familiar_if_it_is_sure_and_near():
    model = Fits({}, Space(np.zeros(3), np.eye(3)[:1], np.ones(1), 1.0, typical=1.5))
    embeddings = np.array([[0, 0, 0], [9, 0, 0], [0, 0, 0], [0, 0, 0]])
    looked = Looks.of(seen([2, 2, 0, 3], [0.7, 0.8, 0.9, 0.2], embeddings), ())
    np.testing.assert_allclose(looked.familiar("detector", model), [0.7, 0.8, 0, 0.2])
    alone = Looks.of(Recognised(None, None, None, embeddings), ())
    assert alone.familiar("encoder", model).tolist() == [1, 0, 1, 1]
    assert [key for key in fits.KEYS if alone.has(key, model)] == ["encoder"]
    assert [key for key in fits.KEYS if looked.has(key, Fits({}, None))] == ["detector"]
    assert [key for key in fits.KEYS if looked.has(key, model)] == ["detector", "encoder"]


def test_a_picture_is_familiar_as_far_as_both_networks_see_the_same_state():
    prototypes = Prototypes(np.array([2, 5]), np.eye(3)[:2])
    model = Fits({}, Space(np.zeros(3), np.eye(3)[:1], np.ones(1), 1.0, 9.0), prototypes)
    embeddings = np.array([[4, 0, 0], [4, 0, 0], [3, 3, 0], [3, 2.8, 0], [4, 0, 0]])
    looked = Looks.of(seen([2, 5, 2, 5, 4], [0.9] * 5, embeddings), ())
    cosines = np.array([3, 2.8]) / np.hypot(3, 2.8)
    weaker = 1 / (1 + np.exp((cosines[0] - cosines[1]) / fits.TEMPERATURE))
    expected = [0.9, 0, 0.45, 0.9 * weaker, 0]
    np.testing.assert_allclose(looked.familiar(BOTH, model), expected, atol=1e-8)


def test_prototypes_are_the_mean_embeddings_of_what_is_seen_for_sure():
    embeddings = np.array([[2.0, 0], [0, 2], [0, 5], [3, 3], [1, 0]])
    training = Looks.of(seen([3, 3, 4, 1, 6], [0.6, 0.2, 0.9, 0.9, 0.3], embeddings), (1,))
    found = fits._prototypes(training)
    assert found.classes.tolist() == [3, 4]  # 6 is never sure, 1 is the initial state
    np.testing.assert_allclose(found.directions, [np.array([3, 1]) / np.sqrt(10), [0, 1]])


def test_a_clear_view_of_the_initial_state_says_nothing_and_an_unsure_one_is_not_familiar():
    looked = Looks.of(seen([1, 1, 2], [0.9, 0.3, 0.9]), (1,))
    values = looked.familiar("detector", Fits({}, None))
    np.testing.assert_allclose(values, [np.nan, 0, 0.9])


# --- Learning -------------------------------------------------------------------------------------


def test_learn_the_threshold_is_what_the_best_minute_reaches_in_all_but_one_in_a_hundred():
    rng = np.random.default_rng(2)
    validation = [
        looks(rng, 200)._replace(confidences=rng.uniform(0, most, 200))
        for most in np.linspace(0.3, 1, 300)
    ]
    found = fits.learn([looks(rng, 500)], validation, rate=1.0)
    assert found.thresholds.keys() == set(fits.KEYS)
    for key in ("detector", "encoder"):
        best = []
        for one in validation:
            values = one.familiar(key, found)
            best.append(max(values[i : i + 60].mean() for i in range(len(values) - 59)))
        allowed = found.thresholds[key] * (300 + fits.FEW) / 300  # of any number of recordings
        assert np.mean(np.array(best) < allowed - 1e-9) <= 0.01
        assert np.mean(np.array(best) <= allowed + 2e-3) >= 0.01
    assert found.thresholds[BOTH] == fits.ENOUGH_OF_BOTH
    whole = fits.joined(validation)
    near = found.space.distances(whole.embeddings) <= found.space.typical
    assert np.average(near, weights=whole.confidences) == pytest.approx(fits.TYPICAL, abs=0.01)


def test_learn_few_recordings_ask_for_less():
    rng = np.random.default_rng(6)
    one = looks(rng, 100, confidence=0.6)
    thresholds = [fits.learn([one], [one] * n, 1.0).thresholds["detector"] for n in (1, 10, 1000)]
    np.testing.assert_allclose(thresholds, [0.6 / 11, 0.3, 0.6 / 1.01])


def test_learn_of_both_networks_no_less_than_chance_is_asked_for():
    """Of which other products have something, too."""
    rng = np.random.default_rng(7)
    weak = [looks(rng, 100, confidence=0.02), looks(rng, 100)]
    assert fits.learn([looks(rng, 100)], weak, 1.0).thresholds[BOTH] == fits.CHANCE


def test_learn_what_cannot_tell_has_no_threshold():
    rng = np.random.default_rng(3)
    hidden = [looks(rng, 300, confidence=0.001)]
    assert fits.learn([looks(rng, 100)], hidden, 1.0).thresholds.keys() == {"encoder"}
    with pytest.raises(ValueError, match="training and validation"):
        fits.learn([looks(rng, 10)], [], 1.0)


def test_what_is_learnt_is_written_and_read():
    rng = np.random.default_rng(4)
    found = fits.learn([looks(rng, 100)], [looks(rng, 300)], 1.0)
    again = Fits.from_json(json.loads(json.dumps(found.to_json())), "x")
    assert again.thresholds == found.thresholds
    other = looks(rng, 20).embeddings
    np.testing.assert_allclose(
        again.space.distances(other), found.space.distances(other), rtol=1e-4
    )
    classes = np.arange(20) % 3 + 2
    np.testing.assert_allclose(
        again.prototypes.agreement(other, classes),
        found.prototypes.agreement(other, classes),
        atol=1e-4,
    )
    without = Fits({"detector": 0.1}, None)
    assert Fits.from_json(without.to_json(), "x").to_json() == without.to_json()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(thresholds={"nose": 0.1}), "thresholds: 'nose': unknown key"),
        (lambda d: d.update(thresholds={"encoder": 2}), "thresholds: encoder: 2 is not in 0…1"),
        (lambda d: d["space"].update(rest=0), "space: rest"),
        (lambda d: d["space"]["axes"].pop(), "space: axes: there are"),
        (lambda d: d["space"]["axes"][0].pop(), "space: axes: .* is no list of 6 numbers"),
        (lambda d: d["space"]["mean"].append("x"), "space: mean"),
        (lambda d: d.pop("space"), "space"),
        (lambda d: d.update(space=None), "prototypes: there is no space"),
        (lambda d: d.update(prototypes=None), "thresholds: detector.encoder needs"),
        (lambda d: d["prototypes"]["classes"].append(7), "prototypes: directions: 2, and 3"),
        (lambda d: d["prototypes"].update(classes=[2, "x"]), "prototypes: classes: 'x'"),
        (lambda d: d["prototypes"]["directions"][0].pop(), "prototypes: directions: .* no list"),
        (lambda d: d["prototypes"]["directions"][0].__setitem__(0, 9), "prototypes: directions"),
    ],
)
def test_damaged_values_are_named(change, message):
    rng = np.random.default_rng(5)
    data = fits.learn([looks(rng, 50)], [looks(rng, 100)], 1.0).to_json()
    change(data)
    with pytest.raises(ValueError, match=f"model.json: fits: {message}"):
        Fits.from_json(data, "model.json: fits")


# --- Over time ------------------------------------------------------------------------------------


def watched(values, rate=1.0, threshold=0.1):
    watch = Watch(Fits({"detector": threshold}, None), rate, ())
    watch.of(seen([2], [0.5]))
    return watch, [watch.update(view(value)) for value in values]


def view(value):
    """Of one network: as sure as it is familiar."""
    return None if value is None else View(value, value)


def test_watch_fits_as_soon_as_enough_was_familiar_until_three_minutes_without():
    watch, told = watched([0.0] * 5 + [1.0] * 7 + [0.0] * 300)
    assert told[:10] == [None] * 10  # 0.1 of 60 pictures are 6
    assert told[10:12] == [True, True]
    last = max(i for i, fits_now in enumerate(told) if fits_now)
    assert last == 65 + 179  # up to picture 65, a minute of 60 has six of them
    assert set(told[245:]) == {False}
    assert watch.finish() is True  # it fitted for a while
    watch, told = watched([0.05] * 180)
    assert told == [None] * 179 + [False]
    assert watch.finish() is False


def test_watch_a_share_of_what_the_detector_is_sure_of_has_to_be_familiar():
    """Three seconds of it at least, and of another product on the same bench too little is."""
    watch, _ = watched([], threshold=0.01)
    told = [watch.update(View(0.9, 0.9)) for _ in range(4)]
    assert told == [None, None, None, True]  # 2.7 s are too few to tell
    assert [watch.update(View(0.1, 0.9)) for _ in range(300)][-1] is False
    for share, verdict in ((0.14, False), (0.16, True)):
        watch, _ = watched([], threshold=0.01)
        for _ in range(180):
            watch.update(View(share * 0.5, 0.5))
        assert watch.fits is verdict


def test_watch_what_the_detector_is_sure_of_is_no_initial_state():
    model = Fits({BOTH: 0.01}, Space(np.zeros(2), np.eye(2)[:1], np.ones(1), 1.0, 9.0),
                 Prototypes(np.array([2, 3]), np.eye(2)))  # fmt: skip
    watch = Watch(model, RATE, (1,))
    looked = seen([1, 1, 2, 3], [0.4, 0.9, 0.8, 0.7], np.array([[1, 0]] * 4))
    views = watch.of(looked)
    assert views[0] == (0, 0)
    assert views[1] == (0, 0)  # unlike any prototype
    np.testing.assert_allclose(views[2:], [(0.8, 0.8), (0, 0.7)], atol=1e-6)


def test_watch_pictures_that_say_nothing_do_not_count():
    _, told = watched([None] * 500 + [0.0] * 179)
    assert set(told) == {None}


@pytest.mark.parametrize(
    ("count", "value", "fits_at_end"), [(9, 0.0, None), (10, 0.0, False), (10, 0.2, True)]
)
def test_watch_a_short_file_is_judged_by_what_there_is(count, value, fits_at_end):
    watch, told = watched([value] * count)
    assert set(told) == {None}
    assert watch.finish() is fits_at_end


def test_watch_a_model_that_cannot_tell_holds_nothing():
    watch = Watch(None, 1.0, ())
    assert watch.of(seen([2, 2], [0.5, 0.5])) == [None, None]
    held = Held(watch)
    assert [list(held.add(i, None)) for i in range(3)] == [[0], [1], [2]]
    assert watch.finish() is None


def test_held_rows_come_in_order_once_it_fits_and_never_of_another_product():
    watch, _ = watched([])
    held = Held(watch)
    told = [list(held.add(i, view(float(i >= 20)))) for i in range(30)]
    assert told[:25] == [[]] * 25
    assert told[25] == list(range(26))
    assert told[26:] == [[26], [27], [28], [29]]
    told = [list(held.add(i, view(0.0))) for i in range(30, 400)]
    assert list(itertools.chain(*told)) == list(range(30, 84 + 179))
    other, _ = watched([])
    held = Held(other)
    assert not any(list(held.add(i, view(0.0))) for i in range(200))


def test_held_rows_are_those_of_three_minutes():
    watch, _ = watched([])
    held = Held(watch)
    for i in range(300):
        assert list(held.add(i, None)) == []
    told = [list(held.add(300 + i, view(1.0))) for i in range(6)]
    assert list(itertools.chain(*told)) == list(range(125, 306))  # and the one at hand


# --- Live -----------------------------------------------------------------------------------------


def fed(live, shown):
    return [(frame, live.update(picture, at)) for frame, (at, picture) in enumerate(shown)]


def test_live_steps_are_held_until_it_fits_and_are_the_same_then():
    runs = ((NOTHING, 30), (SEAL, 20), (COVER, 60), (SCREW, 40))
    free, live = scripted(), scripted(fits=DETECTOR)
    expected = [event for _, events in fed(free, frames(*runs)) for event in events]
    told = fed(live, frames(*runs))
    assert [event for _, events in told for event in events] == expected
    assert live.progress == free.progress
    first = next(frame for frame, events in told if events)
    assert expected[0].frame < first  # the threshold is 60 of 600 pictures
    assert len(dict(told)[first]) > 1
    assert (live.fits, free.fits) == (True, None)


def test_live_no_step_of_another_product():
    live = scripted(fits=DETECTOR)
    weak = [(at, p) for at, p in frames((NOTHING, 1900))]
    assert not any(events for _, events in fed(live, weak))
    assert live.fits is False
    # A flicker of states is no minute of them.
    told = [live.update(p, 190 + at) for at, p in frames((COVER, 20), (SCREW, 20))]
    assert not any(told)
    assert not live.alerts
    assert {step.status for step in live.progress} <= {"open", "next"}


def test_live_an_empty_bench_stays_unknown():
    live = scripted(fits=DETECTOR)
    live.watch._initial = (ONLY_COVER,)
    assert not any(events for _, events in fed(live, frames((ONLY_COVER, 900))))
    assert live.fits is None


def test_live_the_verdict_outlasts_a_unit_and_a_saved_state():
    live = scripted(fits=DETECTOR)
    fed(live, frames((SEAL, 80)))
    assert live.fits is True
    saved = json.loads(json.dumps(live.state()))
    again = scripted(fits=DETECTOR)
    again.restore(saved)
    assert again.fits is True
    live.reset()
    events = [e for at, p in frames((SEAL, 5)) for e in live.update(p, at)]
    assert [event.frame for event in events] == [1]  # not held
    saved["fits"] = {"fits": "yes", "last": [], "since": 0}
    with pytest.raises(ValueError, match="fits: the saved state is damaged"):
        again.restore(saved)
