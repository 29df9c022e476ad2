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
    names = ("psr.accumulate", "psr.Decoder", "psr.evaluate", "load_model", "serving.model.Model")
    places = [api.index(f'id="stormpsr_jax.{name}"') for name in names]
    assert places == sorted(places)  # functions on arrays first
    assert (tmp_path / "searchindex.js").exists()
