import sys

import pytest

from data_prep import cad, synthetic
from tests.support.commands import refused


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
