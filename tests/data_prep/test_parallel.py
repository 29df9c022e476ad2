"""The frames that are shown while jobs run, and how they are stopped."""

import pytest

from data_prep.writing import parallel
from stormpsr_jax.base import progress


def test_jobs_bar_shows_the_frames_of_all_jobs():
    counts = [0, progress.UNKNOWN, 0, progress.UNKNOWN, 0]
    with progress.JobsBar("work", counts) as bar:
        assert bar.total is None
        counts[1:3] = 100, 40
        bar.show()
        assert (bar.n, bar.total) == (40, 200)
        counts[1:] = 100, 100, 300, 20
        bar.show()
        assert (bar.n, bar.total) == (120, 400)
        counts[4] = 0  # begun again
        bar.show()
        assert bar.n == 100


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
