import pytest

from tests.support.model_data import video, write
from tests.support.recognise_data import COUNT, HEIGHT, TIMES, WIDTH, run, write_video


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "model"
    write(folder)
    return folder


@pytest.fixture(scope="session")
def clip(tmp_path_factory):
    """A video of an uneven frame rate."""
    pictures = video(COUNT, HEIGHT, WIDTH)
    return write_video(tmp_path_factory.mktemp("videos") / "a_up.mp4", pictures, TIMES)


@pytest.fixture(scope="session")
def made(trained, clip, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    assert run(trained.parent, clip, f"--out={out}", "--video") == 0
    return out / "a_up"
