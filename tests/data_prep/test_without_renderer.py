"""The commands that render, on a machine without the libraries that draw."""

import subprocess
import sys

import pytest

# None in sys.modules is how a module is missing to `import`.
CODE = """
import runpy, sys
missing, module, *words = sys.argv[1:]
sys.modules |= dict.fromkeys(missing.split(","))
sys.argv[1:] = words
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""
MODULES = {
    "data_prep.cad": ["--meshes=meshes", "--procedure=synthetic", "--out=out"],
    "data_prep.synthetic": ["--out=out"],
}


def run(module, missing, words, cwd):
    return subprocess.run(
        [sys.executable, "-c", CODE, missing, module, *words],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("module", MODULES)
def test_help_needs_no_renderer(module, tmp_path):
    done = run(module, "trimesh,numba,fcl", ["--help"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: python -m {module}")


@pytest.mark.parametrize("missing", ["trimesh", "fcl"])
@pytest.mark.parametrize("module", MODULES)
def test_a_missing_library_is_one_line_that_names_the_extra(module, missing, tmp_path):
    done = run(module, missing, MODULES[module], tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {module} needs {missing!r}: pip install '.[synthetic]'")
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())
