"""The notebooks run from a wheel, in an empty folder, and say what they say where they are kept."""

import json
import re

import nbformat

from stormpsr_jax.psr import analysis
from tests.support import embeddings_data
from tests.support.tiny import TINY
from tools.notebook_outputs import execute, read


def code_cells(notebook):
    return {cell.id: cell for cell in notebook.cells if cell.cell_type == "code"}


def run_from(unpacked, name, folder, parameters=None):
    """Its cells as they ran; the package came from the wheel, and there are these pictures."""
    notebook = read(name)
    where = nbformat.v4.new_code_cell("import stormpsr_jax\nprint(stormpsr_jax.__file__)", id="x")
    notebook.cells.append(where)
    done = execute(notebook, folder, parameters, PYTHONPATH=str(unpacked))
    assert done.cells.pop().outputs[0].text.startswith(str(unpacked))
    cells = code_cells(done)
    images = [
        name
        for name, c in cells.items()
        if any("image/png" in o.get("data", ()) for o in c.outputs)
    ]
    return cells, images


def text_of(cell):
    return "".join(o.text for o in cell.outputs if o.output_type == "stream")


def test_quickstart_runs_and_recognises_the_kept_steps(unpacked, tmp_path):
    done, images = run_from(unpacked, "quickstart", tmp_path)
    assert images == ["pictures", "timeline"]
    steps = [re.findall(r"(?:Install|Remove) \w+", text_of(c)) for c in done.values()]
    kept = [
        re.findall(r"(?:Install|Remove) \w+", text_of(c))
        for c in code_cells(read("quickstart")).values()
    ]
    assert steps == kept
    assert any(steps)
    assert (tmp_path / "recognised/demo/events.csv").exists()
    assert (tmp_path / "own/report.html").exists()


def test_training_runs_at_the_size_of_its_parameters(unpacked, tmp_path):
    fields = {field: value for field, value in TINY.items() if field != "stages"}
    done, images = run_from(unpacked, "training", tmp_path, {"FIELDS": fields})
    assert images == ["pictures", "timeline"]
    for stage in ("pretrain", "embed", "temporal", "detector", "predict", "fuse", "evaluate"):
        assert re.search(rf"^{stage}: \d+ s$", text_of(done["train"]), re.MULTILINE), stage
    for name in ("metrics.json", "report.html", "model/model.json"):
        assert (tmp_path / "runs/training" / name).exists()


def test_meccano_learns_from_embeddings_of_another_encoder(unpacked, tmp_path):
    embeddings_data.write(tmp_path)
    fields = embeddings_data.SMALL | {"temporal.steps": 40, "temporal.eval_every": 20}
    fields |= {"procedure": "", "encoder.image_size": 0}
    parameters = {"DATA": "data", "EMBEDDINGS": "features", "MINUTES": 10_000, "FIELDS": fields}
    done, images = run_from(unpacked, "meccano", tmp_path, parameters)
    assert images == ["curves", "timeline"]
    assert "train: 8 recordings, 1,920 frames\n" in text_of(done["data"])
    workdir = tmp_path / "runs/meccano_temporal"
    scores = analysis.load_result(workdir / "metrics.json")["streams"]["temporal"]
    assert f"{scores['pos']:.3f} {scores['f1']:.3f}" in re.sub(" +", " ", text_of(done["scores"]))
    settings = json.loads((workdir / "config.json").read_text())["evaluate"]
    assert settings["threshold"] == 1.0
