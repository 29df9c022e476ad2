"""The command data_prep.check: exit codes, usage, the page."""

import re

import numpy as np
import pytest

from data_prep import check
from data_prep.writing import shards
from tests.support.check_data import PROCEDURE, SIZE, jpeg
from tests.support.commands import refused


@pytest.mark.parametrize("arguments", [[], ["--all"]])
def test_check_whole_folder_has_no_problem(folder, arguments, capsys):
    assert check.main([str(folder), *arguments]) == 0
    out = capsys.readouterr().out
    assert "0 problems, 0 warnings" in out
    assert "problem:" not in out
    page = (folder / "check.html").read_text()
    assert "No problems found" in page
    assert not re.search(r'(src|href)="(?!data:|#)', page)  # opens offline
    # 4 recordings, 3 completions each, around; and 3 boxes of two states and of error states.
    assert page.count("data:image/jpeg") == 4 * 3 * 3 + 3 * 3
    assert (folder / "SHA256SUMS").exists() == (arguments == ["--all"])


@pytest.mark.parametrize("arguments", [[], ["no/such"], ["{empty}"], ["{empty}", "--al"]])
def test_check_wrong_usage_is_one_line_and_exit_code_2(tmp_path, arguments, capsys):
    refused(capsys, check.main, [a.format(empty=tmp_path) for a in arguments])


def test_check_page_goes_where_out_says(whole, tmp_path):
    assert check.main([str(whole), f"--out={tmp_path / 'page.html'}", "--all"]) == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["SHA256SUMS", "page.html"]
    assert not (whole / "check.html").exists()


def test_check_page_does_not_grow_with_the_data(tmp_path):
    names = [f"r{i:02d}" for i in range(12)]

    def make(split, name):
        n = 80
        states = np.zeros((n, 3), int)
        states[:, 0] = np.arange(n) % 2  # 79 completions
        nothing = np.full((n, 4), np.nan)
        jpegs = [jpeg([int(name[1:]), i]) for i in range(n)]
        return shards.RecordingData(
            name, 0, jpegs, states, nothing, np.full(n, -1), np.full(n, np.nan)
        )

    shards.build(
        tmp_path, procedure=PROCEDURE, fps=5, image_size=SIZE, splits={"train": names}, make=make
    )
    assert check.main([str(tmp_path)]) == 0
    page = (tmp_path / "check.html").read_text()
    assert page.count("data:image/jpeg") == 6 * 10 * 3
    assert "6 of 12 recordings with completions" in page
    assert "10 of 79 completions shown" in page
