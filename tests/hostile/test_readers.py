"""Good files of every kind are changed, and their readers say so in a line or read them right.

`pytest -m slow tests/hostile` makes thousands of attempts.
"""

import collections
import json
import sys

import pytest

from tests.hostile import readers
from tests.support.processes import start


@pytest.fixture(
    scope="module",
    params=[(0, 50), pytest.param((50, 1000), marks=pytest.mark.slow)],
    ids=["fifty", "thousands"],
)
def outcomes(request, system, tmp_path_factory):
    """What came of attempts, by reader; a hang or a crash ends the process that makes them."""
    folder = tmp_path_factory.mktemp("hostile")
    process = start([sys.executable, "-m", "tests.hostile.readers", folder, *request.param])
    said, _ = process.communicate(timeout=3000)
    *lines, last = (folder / "outcomes.jsonl").read_text().splitlines()
    assert process.returncode == 0, f"{last[:200]}\n{said[-5000:]}"
    found = collections.defaultdict(list)
    for outcome in map(json.loads, (*lines, last)):
        found[outcome["reader"]].append(outcome)
    return found


@pytest.mark.parametrize("name", readers.READERS)
def test_changed_files_are_an_error_of_lines_or_read_right(outcomes, name):
    assert [outcome for outcome in outcomes[name] if outcome["wrong"]] == []
    errors = sum(bool(outcome["error"]) for outcome in outcomes[name])
    assert 0 < errors < len(outcomes[name])
