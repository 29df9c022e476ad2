"""The time left that is shown while jobs run, and how they are stopped."""

import types

import pytest

from data_prep.writing import parallel
from stormpsr_jax.base import progress

RATE = 2.0  # frames that a worker makes in a second
START_UP = 7.0  # seconds until workers begin


def seconds(shown: str) -> int:
    minutes, rest = shown.split(":")
    return 60 * int(minutes) + int(rest)


def simulate(sizes, workers, monkeypatch, told=None):
    """Lets workers take jobs in order; yields (seconds until the end, the bar) at every look."""
    now = 0.0
    monkeypatch.setattr(progress, "time", types.SimpleNamespace(monotonic=lambda: now))
    free_at, ends = [START_UP] * workers, []
    for size in sizes:  # whoever is free first takes the next one
        worker = free_at.index(min(free_at))
        ends.append((free_at[worker], free_at[worker] + size / RATE))
        free_at[worker] = ends[-1][1]
    end = max(free_at)
    counts = [0] * (1 + 2 * len(sizes))
    counts[1::2] = told if told is not None else sizes
    with progress.JobsBar("work", counts, workers) as bar:
        while now < end:
            now += 0.2
            for i, (size, (begin, _)) in enumerate(zip(sizes, ends, strict=True)):
                counts[2 + 2 * i] = min(size, max(0, int((now - begin) * RATE)))
                if counts[2 + 2 * i]:
                    counts[1 + 2 * i] = size
            bar.show(sum(now < finish for _, finish in ends))
            yield end - now, bar


@pytest.mark.parametrize(
    ("sizes", "workers"),
    [
        ((900, 200, 100, 100), 2),  # a long one is left over
        ((80,) * 20, 4),
    ],
)
def test_jobs_bar_time_left_is_right_from_the_start(sizes, workers, monkeypatch):
    looked = 0
    for left, bar in simulate(sizes, workers, monkeypatch):
        shown = bar.format_dict["left"]
        assert bar.total == sum(sizes)
        if shown == "?":
            assert bar.n <= workers * RATE, "only while workers start"
            continue
        if bar.n > 20 * workers:
            looked += 1
            assert abs(seconds(shown) - left) <= 0.05 * left + 1
            assert f"{bar.n}/{sum(sizes)} [" in str(bar)
            assert f"<{shown}, " in str(bar)
    assert looked > 100
    assert bar.n == sum(sizes)


def test_jobs_bar_time_left_follows_a_machine_that_becomes_slower(monkeypatch):
    now, sizes = 0.0, [3000] * 4
    monkeypatch.setattr(progress, "time", types.SimpleNamespace(monotonic=lambda: now))
    counts = [0, 3000, 1, 3000, 1, 3000, 0, 3000, 0]
    with progress.JobsBar("work", counts, 2) as bar:
        while now < 60:
            now += 0.2
            made = 20 * min(now, 15) + 10 * max(0, now - 15)  # by each worker
            counts[2] = counts[4] = 1 + int(made)
            bar.show(4)
    left = (sum(sizes) - counts[2] - counts[4]) / 20
    assert abs(seconds(bar.format_dict["left"]) / left - 1) < 0.1
    mean = (counts[2] + counts[4]) / 60
    assert left * 20 / mean < 0.85 * left, "by the mean rate it would be far off"


def test_jobs_bar_unknown_sizes_are_as_the_known_ones(monkeypatch):
    totals = []
    for _, bar in simulate((100, 200, 300), 1, monkeypatch, told=[progress.UNKNOWN] * 3):
        totals.append(bar.total)
    assert list(dict.fromkeys(totals)) == [None, 300, 450, 600]


def test_run_begins_no_job_after_one_has_failed(tmp_path):
    begun = []

    def function(job, progress):
        begun.append(job)
        progress.begin(10)
        if job == "b":
            raise ValueError("no")
        while job == "c":  # which may have begun by then; it ends when it is told to
            progress.advance()

    with pytest.raises(ValueError, match="b: no"):
        parallel.run(function, ["a", "b", "c", "d"], 1, "work", [10] * 4, tmp_path)
    assert begun[:2] == ["a", "b"]
    assert "d" not in begun


def test_progress_a_job_that_is_given_up_stops_at_its_next_frame():
    counts = [0, 0, 0]
    progress = parallel.Progress(counts, 0)
    progress.begin(3)
    progress.advance()
    counts[0] = 1
    with pytest.raises(parallel.Stopped):
        progress.advance()
    with pytest.raises(parallel.Stopped):
        progress.begin(3)
