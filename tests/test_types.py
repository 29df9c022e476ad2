import sys

import pytest

from tests.support.processes import finish, start


def test_the_product_passes_the_type_checker(tmp_path):
    pytest.importorskip("mypy", reason="needs the extra dev")
    (output,) = finish(start([sys.executable, "-m", "mypy", f"--cache-dir={tmp_path}"]))
    assert "no issues found" in output
