"""The command `stormpsr`: `stormpsr NAME …` is `python -m MODULE …`, for the modules named here."""

import ast
import difflib
import importlib.metadata
import runpy
import sys
from pathlib import Path

from stormpsr_jax.base import installed
from stormpsr_jax.psr.cli import fail, print_anything

COMMANDS = {
    "main": "stormpsr_jax.main",
    "paper": "stormpsr_jax.paper",
    "recognise": "stormpsr_jax.recognise",
    "evaluate": "stormpsr_jax.evaluate",
    "procedure": "stormpsr_jax.procedure",
    "label": "data_prep.label",
    "train": "data_prep.train",
    "convert": "stormpsr_jax.psr.convert",
    "weights": "stormpsr_jax.weights",
    "camera": "stormpsr_jax.camera",
    "export": "stormpsr_jax.export",
    "data own": "data_prep.own",
    "data meccano": "data_prep.meccano",
    "data industreal": "data_prep.industreal",
    "data industreal_cad": "data_prep.industreal_cad",
    "data impact": "data_prep.impact",
    "data synthetic": "data_prep.synthetic",
    "data parts": "data_prep.parts",
    "data check": "data_prep.check",
    "data labels": "data_prep.labels",
}
# In a wheel, copies of the pages; in a clone, a link to them.
DOCS = Path(__file__).with_name("docs")


def summary(module: str) -> str:
    """Returns the first line of a module's docstring, without importing the module."""
    path = Path(__file__).parents[1].joinpath(*module.split("."))  # both packages lie there
    path = path / "__main__.py" if path.is_dir() else path.with_suffix(".py")
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return text.partition("\n")[0].partition(": ``python")[0].rstrip(".")


def usage() -> str:
    """Returns the text of --help."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {summary(module)}" for name, module in COMMANDS.items()]
    head = "usage: stormpsr COMMAND …     stormpsr COMMAND --help     stormpsr --version"
    return "\n".join([head, "", *lines, "", f"docs/, to which texts refer: {DOCS}"])


def main() -> None:
    """Runs the module that the command line names, with the rest of it."""
    print_anything()
    words = sys.argv[1:]
    if words in ([], ["--help"], ["-h"], ["data"], ["data", "--help"]):
        print(usage())
    elif words == ["--version"]:
        print(importlib.metadata.version("stormpsr-jax"))
    else:
        length = 2 if words[0] == "data" else 1
        name = " ".join(words[:length])
        if name not in COMMANDS:
            near = difflib.get_close_matches(name, COMMANDS, 1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(COMMANDS)};"
            fail(f"unknown command {name!r}; {hint} see stormpsr --help")
        sys.argv[1:] = words[length:]
        installed.name_missing()
        runpy.run_module(COMMANDS[name], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
