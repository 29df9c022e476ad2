"""Runs the notebooks and keeps their outputs, which is what a reader sees first.

    python -m tools.notebook_outputs [quickstart] [training] [meccano]

Each runs in an empty folder, with the package that this Python has. Outputs are tidied (a progress
bar becomes its last state, a picture has 256 colours) and those of cells with the tag `not-kept`
are left out; a notebook of more than 300 kB is not written. tests/test_notebooks.py runs them and
compares. meccano.ipynb needs frames that are not ours to give, and so keeps none. The first cell of
each has a picture of docs/demo.webp in it, which every viewer shows.
"""

import argparse
import base64
import io
import os
import pathlib
import re
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import nbformat
from nbclient import NotebookClient
from PIL import Image

import stormpsr_jax

FOLDER = pathlib.Path(__file__).parents[1] / "notebooks"
NAMES = ("quickstart", "training")
ALL = (*NAMES, "meccano")
MAX_BYTES = 300_000
_MOMENT = 36  # of docs/demo.webp: 3 of 11 steps are done, the plough goes on incorrectly
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")  # colours and cursor movements of terminals
_HERE = pathlib.Path(stormpsr_jax.__file__).parents[1]  # is another folder on every machine
_BAR = re.compile(r"(.*?)\d+%\|")  # a line of tqdm, and how it begins


def read(name: str) -> nbformat.NotebookNode:
    """Returns a notebook of folder `notebooks`."""
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def execute(
    notebook: nbformat.NotebookNode,
    folder: str | os.PathLike,
    parameters: Mapping[str, Any] | None = None,
    **environment: str,
) -> nbformat.NotebookNode:
    """Runs all cells.

    Args:
        notebook: stays as it is.
        folder: in which its commands run and its files appear.
        parameters: values of names that the cell with the tag `parameters` sets; a dict there takes
            the values of a dict here besides its own.
        environment: variables of the kernel, besides those of this process.

    Returns:
        A copy with tidy outputs.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell fails.
        ValueError: no cell has the tag, or it sets no such name.
    """
    done = nbformat.from_dict(notebook)
    if parameters:
        _set(done, parameters)
    # Settings and the history of who runs this stay out of it.
    private = {"IPYTHONDIR": os.path.join(folder, ".ipython")}
    client = NotebookClient(
        done,
        timeout=None,
        startup_timeout=600,  # of a machine with much else to do
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
    )
    client.execute(env={**os.environ, **private, **environment})
    done.metadata = notebook.metadata
    for cell, before in zip(done.cells, notebook.cells, strict=True):
        cell.metadata, cell.source = before.metadata, before.source
        if cell.cell_type == "code":
            cell.outputs = _tidy(cell)
    return done


def _set(notebook: nbformat.NotebookNode, parameters: Mapping[str, Any]) -> None:
    cells = [c for c in notebook.cells if "parameters" in c.metadata.get("tags", ())]
    if len(cells) != 1:
        raise ValueError(f"{len(cells)} cells have the tag 'parameters', not one")
    for name, value in parameters.items():
        if not re.search(rf"^{name} = ", cells[0].source, re.MULTILINE):
            raise ValueError(f"the cell with the tag 'parameters' sets no {name}")
        cells[0].source += f"\n{name} = {value!r}"


def _tidy(cell: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    """The outputs of a cell as a reader would see them at the end."""
    if "not-kept" in cell.metadata.get("tags", ()):
        return []
    kept: list[nbformat.NotebookNode] = []
    for output in cell.outputs:
        if output.output_type == "stream" and kept and kept[-1].get("name") == output.name:
            kept[-1].text += output.text
        else:
            kept.append(output)
    for output in kept:
        if output.output_type == "stream":
            text = "\n".join(_without_progress(output.text.split("\n")))
            output.text = text.replace(f"{_HERE}{os.sep}", "")
        elif png := output.get("data", {}).get("image/png"):
            output.data["image/png"] = _with_few_colours(png)
    return kept


def _without_progress(lines: Sequence[str]) -> list[str]:
    """The lines, of the states of a progress bar only the last one."""
    states = [_ESCAPES.sub("", line).rstrip("\r").split("\r")[-1].rstrip() for line in lines]
    kept: list[str] = []
    last = None  # the name of the bar in the line before
    for state in states:
        bar = _BAR.match(state)
        name = bar and re.sub(r"\d+", "#", bar[1]).rstrip()
        if last and name == last:
            kept.pop()
        if state or not last:  # a bar ends with an empty line
            kept.append(state)
        last = name
    return kept


def _with_few_colours(png: str) -> str:
    """The picture (both base64) at a third of its size."""
    picture, file = Image.open(io.BytesIO(base64.b64decode(png))), io.BytesIO()
    picture.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(file, "png", optimize=True)
    return base64.b64encode(file.getvalue()).decode()


def show_picture(notebook: nbformat.NotebookNode) -> None:
    """Puts the picture that the first cell shows into it: a moment of README's animation."""
    file = io.BytesIO()
    with Image.open(FOLDER.parent / "docs/demo.webp") as animation:
        animation.seek(_MOMENT)
        animation.convert("RGB").save(file, "jpeg", quality=75)
    picture = base64.b64encode(file.getvalue()).decode()
    notebook.cells[0]["attachments"] = {"demo.jpg": {"image/jpeg": picture}}


def write(name: str, notebook: nbformat.NotebookNode) -> None:
    """Writes a notebook with its outputs.

    Raises:
        ValueError: it is too large, or something in it failed.
    """
    nbformat.validate(notebook)
    text = nbformat.writes(notebook) + "\n"
    if (size := len(text.encode())) > MAX_BYTES:
        raise ValueError(f"{name}.ipynb would have {size:,} bytes, more than {MAX_BYTES:,}")
    (FOLDER / f"{name}.ipynb").write_text(text, encoding="utf-8")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", nargs="*", metavar="NAME", help=f"of {', '.join(ALL)}; else all")
    for name in parser.parse_args().name or ALL:
        if name not in ALL:
            parser.error(f"{name!r} is not one of {', '.join(ALL)}")
        notebook = read(name)
        show_picture(notebook)
        with tempfile.TemporaryDirectory() as folder:
            write(name, execute(notebook, folder) if name in NAMES else notebook)


if __name__ == "__main__":
    main()
