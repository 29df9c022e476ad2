import re
import sys

import pytest

from tests.support.processes import ROOT, finish, start


def test_the_core_imports_nothing_of_what_prepares_data_by_its_name():
    """Which import-linter does not see. `__main__` starts commands, two others processes."""
    starting = ("__main__.py", "stages/rendering.py", "procedure.py")
    for path in (ROOT / "stormpsr_jax").rglob("*.py"):
        names = re.findall(r'"data_prep\.\w+"', path.read_text("utf-8"))
        place = str(path.relative_to(ROOT / "stormpsr_jax"))
        assert not names or place in starting, path
        if place in starting[1:]:
            assert "importlib" not in path.read_text("utf-8")


@pytest.mark.system
def test_rooms_import_downwards_only():
    pytest.importorskip("importlinter", reason="needs the extra dev")
    command = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    (output,) = finish(start([sys.executable, "-c", command, "--no-logo", "--no-cache"]))
    assert "0 broken" in output


@pytest.mark.system
def test_the_product_passes_the_type_checker(tmp_path):
    pytest.importorskip("mypy", reason="needs the extra dev")
    (output,) = finish(start([sys.executable, "-m", "mypy", f"--cache-dir={tmp_path}"]))
    assert "no issues found" in output
