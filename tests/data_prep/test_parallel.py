"""The frames that are shown while jobs run, and how they are stopped."""

import pytest

from data_prep.writing import parallel


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
