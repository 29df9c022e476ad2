import importlib.util
import sys

import pytest
from IPython.core.inputtransformer2 import TransformerManager

from tests.test_notebooks import source_of
from tools.notebook_outputs import ALL


class Shell:
    """In place of IPython: keeps the words that pip would get."""

    def __init__(self, names):
        self.names, self.asked = names, []

    def run_line_magic(self, magic, line):
        assert magic == "pip"
        self.asked.append(line.format(**self.names))  # as IPython puts values in


def first_cell(name, source, monkeypatch):
    """What pip is asked for by the cell where the package is missing, with this FROM."""
    code = source_of(name, "install")
    assert 'FROM = "clone"' in code
    if source is not None:
        code = code.replace('FROM = "clone"', f"FROM = {source!r}")
    names = {}
    shell = Shell(names)
    names["get_ipython"] = lambda: shell
    find = importlib.util.find_spec
    missing = lambda module: None if module == "stormpsr_jax" else find(module)  # noqa: E731
    monkeypatch.setattr(importlib.util, "find_spec", missing)
    exec(TransformerManager().transform_cell(code), names)
    return shell.asked


@pytest.mark.parametrize("name", ALL)
def test_the_cell_takes_each_source_with_the_extra_and_says_which_or_what_to_give(
    name, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clone").mkdir()
    wheel = tmp_path / "stormpsr_jax-0.1.0-py3-none-any.whl"
    wheel.touch()
    extra = {"quickstart": "video", "training": "synthetic", "meccano": "cuda"}[name]
    address = "git+https://example.org/a/b@main"
    for source, package in (
        (None, f"{tmp_path / 'clone'}[{extra}]"),
        (wheel.name, f"{wheel}[{extra}]"),
        (str(wheel), f"{wheel}[{extra}]"),
        (address, "stormpsr-jax" + f"[{extra}] @ {address}"),
    ):
        asked = first_cell(name, source, monkeypatch)
        assert asked == [f'install --quiet "{package}"']
        assert capsys.readouterr().out == f"Installing {package}\n"
    (tmp_path / "clone").rmdir()
    ways = "give the folder of a clone, the file of a wheel, or git.ADDRESS"
    with pytest.raises(FileNotFoundError, match=f"FROM = 'clone' is not here; {ways}$"):
        first_cell(name, None, monkeypatch)
    monkeypatch.setitem(sys.modules, "google.colab", sys)
    with pytest.raises(FileNotFoundError, match="; on Colab: !git clone ADDRESS clone, or upload"):
        first_cell(name, None, monkeypatch)
