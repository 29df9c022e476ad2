import importlib.metadata
import os
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[1]
LISTENING = ("live", "video")  # extras


def pinned():
    lines = (ROOT / "tests/oldest.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if not line.startswith("#"))


def test_the_oldest_versions_are_those_that_pyproject_allows():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    found = {}
    for text in (*project["dependencies"], *(t for e in LISTENING for t in extras[e])):
        requirement = Requirement(text)
        found[requirement.name] = requirement.specifier
    assert pinned().keys() == {"pillow"} | {
        Requirement(text).name for extra in LISTENING for text in extras[extra]
    }
    for name, version in pinned().items():
        assert [s.version for s in found[name] if s.operator == ">="] == [version]


@pytest.mark.skipif("OLDEST" not in os.environ, reason="for .ci/run with the oldest versions")
def test_this_run_has_the_oldest_versions():
    for name, version in pinned().items():
        assert Version(importlib.metadata.version(name)) == Version(version)
