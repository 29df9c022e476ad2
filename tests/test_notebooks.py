import importlib.util
import json
import re
import sys

import nbformat
import pytest
from IPython.core.inputtransformer2 import TransformerManager

from stormpsr_jax.psr import analysis
from tests.support import embeddings_data
from tests.support.tiny import TINY
from tools.notebook_outputs import ALL, MAX_BYTES, execute, read

TIMES = re.compile(r"took|\d%\|")  # lines with times and rates, which differ each time
NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


def lines(cell):
    """(words, numbers) of each line that a cell printed; of one with times what stands before."""
    text = "".join(o.text for o in cell.outputs if o.output_type == "stream")
    said = [TIMES.split(line)[0] for line in text.splitlines()]
    return [
        (NUMBER.sub("#", line).split(), list(map(float, NUMBER.findall(line)))) for line in said
    ]


def says(done, kept):
    """Whether a cell printed these lines in this order; libraries may warn in between.

    Numbers may differ a little: other kinds of CPU round otherwise, which can move an event.
    """
    found = iter(lines(done))
    return all(
        any(words == w and n == pytest.approx(numbers, rel=0.05, abs=0.2) for w, n in found)
        for words, numbers in lines(kept)
    )


def shown(cell):
    return [sorted(o.data) for o in cell.outputs if o.output_type != "stream"]


def code_cells(notebook):
    return {cell.id: cell for cell in notebook.cells if cell.cell_type == "code"}


def run_from(unpacked, name, folder, parameters=None):
    notebook = read(name)
    where = nbformat.v4.new_code_cell("import stormpsr_jax\nprint(stormpsr_jax.__file__)", id="x")
    notebook.cells.append(where)
    done = execute(notebook, folder, parameters, PYTHONPATH=str(unpacked))
    assert done.cells.pop().outputs[0].text.startswith(str(unpacked))
    return done


def check_kept(kept, done):
    images = [name for name, cell in done.items() if ["image/png", "text/plain"] in shown(cell)]
    assert images == ["pictures", "timeline"]
    if any(cell.execution_count for cell in kept.values()):
        assert {n: shown(c) for n, c in done.items()} == {n: shown(c) for n, c in kept.items()}


@pytest.mark.parametrize("name", ALL)
def test_notebooks_kept_outputs_are_whole_and_of_no_machine(name):
    """All of them, or none where nobody has run it since it changed."""
    notebook = read(name)
    nbformat.validate(notebook)
    cells = code_cells(notebook).values()
    counts = [cell.execution_count for cell in cells]
    assert counts in ([None] * len(cells), list(range(1, len(cells) + 1)))
    outputs = [output for cell in cells for output in cell.outputs]
    assert any("image/png" in o.get("data", ()) for o in outputs) == bool(counts[0])
    assert {o.get("name") for o in outputs} <= {None, "stdout"}
    text = nbformat.writes(notebook)
    assert len(text.encode()) <= MAX_BYTES
    assert not re.search(r"/(tmp|home|root|work|usr)/", text)
    assert not code_cells(notebook)["install"].outputs
    # The first screen shows a picture, without anything beside the file.
    assert "](attachment:demo.jpg)" in notebook.cells[0].source
    assert "image/jpeg" in notebook.cells[0].attachments["demo.jpg"]


def test_quickstart_runs_from_a_wheel_and_gives_the_kept_outputs(unpacked, tmp_path):
    done = code_cells(run_from(unpacked, "quickstart", tmp_path))
    kept = code_cells(read("quickstart"))
    check_kept(kept, done)
    for name, cell in kept.items():
        assert says(done[name], cell), f"{name}: {done[name].outputs}"
    assert (tmp_path / "recognised/demo/events.csv").exists()
    assert (tmp_path / "own/report.html").exists()


def test_training_runs_from_a_wheel_at_the_size_of_its_parameters(unpacked, tmp_path):
    fields = {field: value for field, value in TINY.items() if field != "stages"}
    done = code_cells(run_from(unpacked, "training", tmp_path, {"FIELDS": fields}))
    check_kept(code_cells(read("training")), done)
    said = "".join(o.text for o in done["train"].outputs)
    for stage in ("pretrain", "embed", "temporal", "detector", "predict", "fuse", "evaluate"):
        assert re.search(rf"^{stage}: \d+ s$", said, re.MULTILINE), stage
    assert "data: done before" in said
    for name in ("metrics.json", "report.html", "model/model.json"):
        assert (tmp_path / "runs/training" / name).exists()


def source_of(name, cell):
    return code_cells(read(name))[cell].source


def numbers_said(text, name):
    (found,) = re.findall(rf"^{name} +(.*)$", text, re.MULTILINE)
    return found.split()


def test_meccano_learns_from_embeddings_of_another_encoder(unpacked, tmp_path):
    embeddings_data.write(tmp_path)
    fields = embeddings_data.SMALL | {"temporal.steps": 40, "temporal.eval_every": 20}
    fields |= {"procedure": "", "encoder.image_size": 0}
    parameters = {"DATA": "data", "EMBEDDINGS": "features", "MINUTES": 10_000, "FIELDS": fields}
    done = code_cells(run_from(unpacked, "meccano", tmp_path, parameters))
    assert "train: 8 recordings, 1,920 frames\n" in done["data"].outputs[0].text
    workdir = tmp_path / "runs/meccano_temporal"
    result = analysis.load_result(workdir / "metrics.json")
    assert list(result["streams"]) == ["temporal"]
    its = result["streams"]["temporal"]
    said = done["scores"].outputs[0].text
    assert numbers_said(said, "this run")[:2] == [f"{its['pos']:.3f}", f"{its['f1']:.3f}"]
    assert numbers_said(said, "published") == ["0.206", "0.247", "120.3"]
    images = [name for name, cell in done.items() if ["image/png", "text/plain"] in shown(cell)]
    assert images == ["curves", "timeline"]
    logged = (workdir / "temporal/metrics.jsonl").read_text()
    (plotted,) = re.findall(r"^names = \{(.*)\}$", source_of("meccano", "curves"), re.MULTILINE)
    assert all(f'"{name}":' in logged for name in re.findall(r'"(\S+)": "', plotted))
    settings = json.loads((workdir / "config.json").read_text())["evaluate"]
    assert settings["threshold"] == 1.0


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
