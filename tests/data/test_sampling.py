import importlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from stormpsr_jax.data import sampling
from stormpsr_jax.data.folder import LabelledFrames
from stormpsr_jax.recordings.procedure import load_procedure

MECCANO = load_procedure("meccano")
STATES = MECCANO.states


def recording(states, name="rec", first_frame=1):
    states = np.asarray(states, np.int8)
    n = len(states)
    return LabelledFrames(
        name,
        first_frame,
        states,
        np.full((n, 4), np.nan, np.float32),
        np.full(n, -1, np.int16),
        np.full(n, np.nan, np.float32),
    )


def timeline(*runs):
    """Runs of (state vector, number of frames) → (N, K)."""
    return np.concatenate([np.tile(state, (count, 1)) for state, count in runs])


def test_kcas_draws_follow_the_density_of_the_paper():
    """Chi-square of 20,000 draws against an independent transcription of p(x).

    The released code loses events of components with a large index; ours must not.
    """
    events, n, delta, sigma = [150, 400, 410], 600, 40.0, 20.0
    state = np.zeros((n, 17), np.int8)
    state[150:, 0] = 1
    state[150:, 5] = 1  # two components in one frame are one event
    state[400:, 16] = 1
    state[410:, 2] = 1
    sampler = sampling.ClipSampler({"a": recording(state)}, delta=delta, sigma=sigma)
    rng = np.random.default_rng(0)
    draws = np.array([sampler.draw(rng)[1] for _ in range(20_000)])
    x = np.arange(n)
    density = sum(stats.norm.pdf(x, t + s * delta, sigma) for t in events for s in (-1, 1))
    observed = np.bincount(draws, minlength=n).reshape(-1, 20).sum(1)
    expected = (density / density.sum()).reshape(-1, 20).sum(1) * len(draws)
    keep = expected > 5
    observed = np.append(observed[keep], observed[~keep].sum())
    expected = np.append(expected[keep], expected[~keep].sum())
    assert stats.chisquare(observed, expected).pvalue > 0.01


@pytest.mark.parametrize("every", [1, 4, 7, 1000])
def test_clips_that_end_at_every_so_manieth_frame_stand_for_those_up_to_the_next(every):
    state = np.zeros((90, 17), np.int8)
    state[40:, 0] = 1
    options = {"delta": 10.0, "sigma": 5.0}
    sampler = sampling.ClipSampler({"a": recording(state)}, every=every, **options)
    rng = np.random.default_rng(0)
    draws = np.array([sampler.draw(rng)[1] for _ in range(5_000)])
    density = sampling.clip_density(90, np.array([40]), **options)
    ends = np.arange(0, 90, every)
    assert set(draws) <= set(ends.tolist())
    expected = [density[end : end + every].sum() for end in ends]
    found = [(draws == end).mean() for end in ends]
    np.testing.assert_allclose(found, expected, atol=0.03)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 60), st.integers(1, 40), st.randoms(use_true_random=False))
def test_clip_labels_matches_plain_loop(n, w, random):
    states = np.array([[random.choice([-1, 0, 1]) for _ in range(3)] for _ in range(n)], np.int8)
    got = sampling.clip_labels(states, np.arange(n), frames=w)
    for x in range(n):
        start = states[max(x - w, 0)]
        for k in range(3):
            assert got[x, k] == ((start[k] == 1) != (states[x][k] == 1))


def test_change_frames_with_wrong_parts_their_changes_are_events_too():
    states = np.zeros((60, 3), np.int8)
    states[10:, 0] = 1
    states[20:30, 1] = -1  # wrong, then taken off
    states[40:, 2] = -1
    states[50:, 2] = 1  # wrong, then put right
    states[50:, 1] = 1
    assert sampling.change_frames(states).tolist() == [10, 50]
    assert sampling.change_frames(states, wrong=True).tolist() == [10, 20, 30, 40, 50]
    installed = np.abs(states)
    assert sampling.change_frames(installed, True).tolist() == [10, 20, 30, 40, 50]
    only = np.where(states == -1, 0, states)
    assert sampling.change_frames(only, True).tolist() == [10, 50]


def test_key_frames_only_catalogued_states_within_t_f_of_a_completion():
    empty, error = np.zeros(17, np.int8), STATES[1].copy()
    error[3] = -1
    uncatalogued = np.zeros(17, np.int8)
    uncatalogued[16] = 1
    states = timeline(
        (empty, 30), (STATES[0], 50), (error, 20), (STATES[1], 4), (uncatalogued, 9), (STATES[2], 7)
    )
    frames = sampling.key_frames(recording(states), MECCANO, window=10)
    assert {k: v.tolist() for k, v in frames.items()} == {
        1: list(range(30, 40)),
        2: list(range(100, 104)),  # cut off by the next change
        3: list(range(113, 120)),
    }


def test_frames_before_a_change_lie_in_the_range_and_not_among_the_key_frames_before():
    states = timeline((np.zeros(17), 100), (STATES[0], 30), (STATES[1], 60), (STATES[2], 80))
    one = recording(states)
    every = sampling.frames_before(one, 20, 12, 10**6)
    assert every.tolist() == [*range(89), *range(150, 179)]  # not after the last change
    spanned = sampling.frames_before(one, 20, 12, 21)
    assert spanned.tolist() == [*range(79, 89), *range(169, 179)]
    # Where the key frames of the change before leave fewer, those.
    assert sampling.frames_before(one, 45, 12, 21).tolist() == [
        *range(79, 89), *range(175, 179)
    ]  # fmt: skip
    sampler = kfs({"a": one}, backgrounds=40, background_frames=(12, 21))
    drawn = {p.index for p in sampler.draw(np.random.default_rng(0)) if p.label == -1}
    assert drawn <= set(spanned.tolist())
    assert len(drawn) > 10


@pytest.mark.parametrize("name", ["meccano", "industreal"])
def test_hard_backgrounds_of_the_papers_configs_are_the_frames_that_the_released_code_draws(name):
    """102 to 121 frames before a change: 20 last key frames on, 121 to 140 before the last one."""
    config = importlib.import_module(f"stormpsr_jax.configs.{name}").get_config().pretrain
    change, last_key_frame = 400, 400 + 20 - 1
    as_released = np.arange(last_key_frame - 7 * 20, last_key_frame - 6 * 20)
    one = recording(timeline((np.zeros(17), change), (STATES[0], 30)))
    found = sampling.frames_before(one, 20, *config.background_frames)
    assert found.tolist() == as_released.tolist()
    assert config.backgrounds == 16


def kfs(recordings, **options):
    options = {"window": 20, "n_per_state": 4, **options}
    return sampling.KeyFrameSampler(recordings, MECCANO, **options)


def many_recordings(count=6):
    runs = [(np.zeros(17, np.int8), 60), (STATES[0], 60), (STATES[1], 60), (STATES[2], 60)]
    return {f"r{i}": recording(timeline(*runs), f"r{i}") for i in range(count)}


def test_kfs_counts_labels_and_many_recordings():
    recordings = many_recordings()
    batch = kfs(recordings, backgrounds=3, background_frames=(15, 99), any_frames=5).draw(
        np.random.default_rng(0)
    )
    assert len(batch) == 3 * 4 + 3 + 5
    for picked in batch[:12]:
        state = recordings[picked.recording].states[picked.index]
        assert MECCANO.state_class(state) == picked.label
    for label in (1, 2, 3):
        assert len({p.recording for p in batch[:12] if p.label == label}) == 4
    for picked in batch[12:15]:
        assert picked.label == sampling.NO_CLASS
        to_next = [c - picked.index for c in (60, 120, 180) if c > picked.index]
        since = [picked.index - c for c in (60, 120, 180) if c <= picked.index]
        assert min(to_next) >= 15
        assert not since or min(since) >= 20
    assert all(p.label == sampling.NO_CLASS for p in batch[15:])


@pytest.mark.parametrize("anywhere", [False, True])
def test_kfs_its_control_draws_from_all_that_a_state_lasts(anywhere):
    recordings = many_recordings(2)
    sampler = kfs(recordings, anywhere=anywhere, n_per_state=30)
    rng = np.random.default_rng(0)
    batch = [p for _ in range(10) for p in sampler.draw(rng)]
    since = np.array([p.index % 60 for p in batch])  # a state begins every 60 frames
    assert all(MECCANO.state_class(recordings["r0"].states[p.index]) == p.label for p in batch)
    assert since.max() == (59 if anywhere else 19)
    assert set(since) == set(range(60 if anywhere else 20))


def test_kfs_cad_renders_join_and_stand_in_for_states_without_recordings():
    cad = {
        f"cad_{i}": recording(np.tile(STATES[i], (8, 1)), f"cad_{i}", 0) for i in range(len(STATES))
    }
    sampler = kfs(many_recordings(), cad=cad, cad_per_state=2)
    batch = sampler.draw(np.random.default_rng(3))
    assert sampler.labels == list(range(1, 12))
    assert len(batch) == sampler.batch_size == 11 * 6
    for label in range(1, 12):
        kinds = [p.cad for p in batch if p.label == label]
        assert sum(kinds) == (2 if label <= 3 else 6)


def test_key_frames_the_state_a_recording_begins_in_counts_if_asked_for():
    states = timeline((STATES[0], 30), (STATES[1], 5), (STATES[0], 40))
    begun, error = recording(states), STATES[0].copy()
    error[0] = -1
    after = {1: list(range(35, 45)), 2: list(range(30, 35))}
    found = {k: v.tolist() for k, v in sampling.key_frames(begun, MECCANO, 10).items()}
    assert found == after
    with_first = sampling.key_frames(begun, MECCANO, 10, initial=True)
    assert {k: v.tolist() for k, v in with_first.items()} == after | {1: [*range(10), *after[1]]}
    for first in (error, np.zeros(17, np.int8)):  # no state of the catalogue
        other = recording(timeline((first, 30), (STATES[1], 5)))
        assert sampling.key_frames(other, MECCANO, 10, initial=True).keys() == {2}
    only = {"a": recording(timeline((STATES[0], 30)))}
    assert kfs(only, initial=True).labels == [1]
    with pytest.raises(ValueError, match="no completion"):
        kfs(only)


def test_background_frames_none_is_a_key_frame_of_the_state_a_recording_begins_in():
    begun = recording(timeline((STATES[0], 30), (STATES[1], 60), (STATES[2], 5)))
    empty = recording(timeline((np.zeros(17), 30), (STATES[1], 60), (STATES[2], 5)))
    options = {"backgrounds": 40, "background_frames": (5, 99)}
    rng = np.random.default_rng(0)
    for one, initial, first in ((begun, True, 20), (begun, False, 0), (empty, True, 0)):
        sampler = kfs({"a": one}, initial=initial, **options)
        batch = [p for _ in range(20) for p in sampler.draw(rng)]
        backgrounds = {p.index for p in batch if p.label == sampling.NO_CLASS}
        assert backgrounds == {*range(first, 26), *range(50, 86)}
        assert not backgrounds & {p.index for p in batch if p.label > 0}
