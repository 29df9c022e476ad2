import json

import pytest

from tests.support.loop_toy import run
from tests.support.made_once import made_once


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory):
    def make(folder):
        folder.mkdir()
        (folder / "facts.json").write_text(json.dumps(run(folder / "toy")))

    folder = made_once(tmp_path_factory, "undisturbed", make)
    return folder / "toy", json.loads((folder / "facts.json").read_text())
