"""Labels and predictions to evaluate."""

import pytest

from tests.support.evaluate_data import make_files, make_scored


@pytest.fixture
def files(tmp_path):
    """Folders of labels and predictions of both streams."""
    return make_files(tmp_path / "files")


@pytest.fixture
def scored(tmp_path):
    """Labels, predictions and scores of made-up recordings."""
    return make_scored(tmp_path)
