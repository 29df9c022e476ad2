"""The package: its worked examples and commands are as written, and its public names exist."""

import doctest
import inspect
import pathlib
import re
import runpy
import sys

import pytest

from stormpsr_jax import psr

DOCS = pathlib.Path(__file__).parents[2] / "docs" / "psr.md"
COMMANDS = re.findall(r"^python -m (\S+)(.*)$", DOCS.read_text(encoding="utf-8"), re.M)


FUNCTIONS = {name: f for name in psr.__all__ if inspect.isfunction(f := getattr(psr, name))}


MODULES = sorted({psr.__name__, *(f.__module__ for f in FUNCTIONS.values())})


@pytest.mark.parametrize("module", MODULES)
def test_worked_examples_golden(module):
    assert doctest.testmod(sys.modules[module]).failed == 0


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_public_function_has_an_example(name):
    text = psr.__doc__ + FUNCTIONS[name].__doc__
    assert re.search(rf"^ *(>>>|\.\.\.) .*\b{name}\(", text, re.M)


@pytest.mark.parametrize(("module", "arguments"), COMMANDS)
def test_documented_commands_flags_exist(module, arguments, monkeypatch, capsys):
    words = arguments.split()
    action = words[:1] if not words[0].startswith("--") else []
    monkeypatch.setattr(sys, "argv", [module, *action, "--help"])
    monkeypatch.delitem(sys.modules, module, raising=False)
    with pytest.raises(SystemExit) as done:
        runpy.run_module(module, run_name="__main__")
    assert done.value.code == 0
    said = capsys.readouterr().out
    for flag in re.findall(r"(--\w+)", arguments):
        assert re.search(rf"{flag}\b", said)
