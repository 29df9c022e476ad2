"""The site of the pages: it is built without a warning, so that no link in it is broken."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.system
def test_site_is_built_without_a_warning_and_has_the_api(tmp_path):
    pytest.importorskip("sphinx", reason="pip install -e '.[docs]'")
    words = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-c", "docs", "."]
    done = subprocess.run([*words, tmp_path], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    api = (tmp_path / "docs/api.html").read_text("utf-8")
    for name in ("load_model", "psr.evaluate", "serving.model.Model.live"):
        assert f'id="stormpsr_jax.{name}"' in api
    assert (tmp_path / "searchindex.js").exists()
