"""Data that several tests of a source read, made once for each process and not to be changed."""

import shutil

import pytest

from tests.support import industreal_data, meccano_data, own_data, shards_data


@pytest.fixture(scope="session")
def meccano_files(tmp_path_factory):
    return meccano_data.make_data(tmp_path_factory.mktemp("meccano"))


@pytest.fixture(scope="session")
def meccano_shards(meccano_files, tmp_path_factory):
    out = tmp_path_factory.mktemp("made") / "shards"
    meccano_data.make(meccano_files, out)
    return out


@pytest.fixture(scope="session")
def industreal_files(tmp_path_factory):
    return industreal_data.make_data(tmp_path_factory.mktemp("industreal"))


@pytest.fixture(scope="session")
def own_videos(tmp_path_factory):
    """A user's videos and labels, with their clip shards in folder `out`."""
    data = own_data.make_data(tmp_path_factory.mktemp("own"))
    own_data.make(data, data / "out")
    return data


@pytest.fixture(scope="session")
def own_pictures(tmp_path_factory):
    """The same recordings as image files, with their clip shards."""
    data = own_data.make_pictures(tmp_path_factory.mktemp("pictures"))
    own_data.make(data, data / "out")
    return data


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards") / "data"
    shards_data.build(folder)
    return folder


@pytest.fixture
def folder(built, tmp_path):
    """A copy of them, in which a check finds nothing wrong."""
    return shutil.copytree(built, tmp_path / "shards")
