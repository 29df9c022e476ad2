import re
import sys

import pytest

from tests.support.processes import ROOT, finish, start


def test_contributing_draws_every_door_from_the_core_to_what_prepares_data():
    """Names of modules in code, which import-linter does not see; `__main__` starts commands."""
    doors = {
        (str(path.relative_to(ROOT)), f"{name.replace('.', '/')}.py")
        for path in (ROOT / "stormpsr_jax").rglob("*.py")
        for name in re.findall(r'^_?[A-Z]+ = "(data_prep\.[\w.]+)"', path.read_text("utf-8"), re.M)
    }
    page = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    assert doors == set(re.findall(r"^\| `(stormpsr_jax/[\w/]+\.py)` \| `(.*?)` \|", page, re.M))


def test_rooms_import_downwards_only():
    pytest.importorskip("importlinter", reason="needs the extra dev")
    command = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    (output,) = finish(start([sys.executable, "-c", command, "--no-logo", "--no-cache"]))
    assert "0 broken" in output


def test_the_product_passes_the_type_checker(tmp_path):
    pytest.importorskip("mypy", reason="needs the extra dev")
    (output,) = finish(start([sys.executable, "-m", "mypy", f"--cache-dir={tmp_path}"]))
    assert "no issues found" in output
