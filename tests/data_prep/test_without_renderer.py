import subprocess
import sys

import pytest

from data_prep import cad, synthetic
from tests.support.commands import refused

# None in sys.modules is how a module is missing to `import`.
CODE = """
import runpy, sys
sys.modules |= dict.fromkeys(("trimesh", "numba", "fcl"))
runpy.run_module(sys.argv[1], run_name="__main__", alter_sys=True)
"""


@pytest.mark.parametrize("module", ["data_prep.cad", "data_prep.synthetic"])
def test_help_needs_no_renderer(module):
    words = [sys.executable, "-c", CODE, module, "--help"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"usage: python -m {module}")


@pytest.mark.parametrize("missing", ["trimesh", "numba"])
@pytest.mark.parametrize(
    ("main", "words"), [(synthetic.main, ()), (cad.main, ("--meshes=m", "--procedure=synthetic"))]
)
def test_a_missing_library_is_one_line_that_names_the_extra(
    main, words, missing, tmp_path, capsys, monkeypatch
):
    monkeypatch.setitem(sys.modules, missing, None)
    said = refused(capsys, main, [f"--out={tmp_path / 'out'}", *words])
    assert f"needs {missing!r}: pip install '.[synthetic]'" in said
