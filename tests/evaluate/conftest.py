"""Labels and predictions to evaluate."""

import shutil

import pytest

from tests.support.evaluate_data import make_files, make_scored


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """What `files` and `scored` copy."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "scored").mkdir()
    return make_files(folder / "files"), make_scored(folder / "scored")


@pytest.fixture
def files(made, tmp_path):
    """Folders of labels and predictions of both streams."""
    return shutil.copytree(made[0], tmp_path / "files")


@pytest.fixture
def scored(made, tmp_path):
    """Labels, predictions and scores of made-up recordings."""
    return shutil.copytree(made[1], tmp_path / "scored")
