"""The rooms of the code: they import downwards only, and nothing imports in circles."""

import sys

import pytest

from tests.support.processes import finish, start


def test_rooms_import_downwards_only():
    """The contracts of pyproject.toml."""
    pytest.importorskip("importlinter", reason="needs the extra dev")
    command = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    (output,) = finish(start([sys.executable, "-c", command, "--no-logo", "--no-cache"]))
    assert "0 broken" in output
