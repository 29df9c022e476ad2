import sys

import pytest

from tests.support import lantern
from tests.support.processes import ROOT

if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))

from benchmarks import from_cad, own_product
from stormpsr_jax.base import files
from stormpsr_jax.configs import cad
from stormpsr_jax.psr.procedure import load_procedure
from stormpsr_jax.psr.scoring import headline


@pytest.fixture
def given(monkeypatch, tmp_path):
    """Runs a case without doing any of it; of each command, its module and its flags."""

    def run(module, *words):
        commands.append((module, dict(word.removeprefix("--").split("=", 1) for word in words)))
        if module == "stormpsr_jax.main":
            files.write_json(f"{commands[-1][1]['workdir']}/metrics.json", {"streams": {}})

    def train(case):
        files.write_json(tmp_path / "procedure.json", load_procedure("synthetic").to_json())
        from_cad.train(tmp_path, ["--config.procedure=P"], case, ["--config.seed=7"])
        return commands

    commands = []
    monkeypatch.setattr(own_product, "run", run)
    return train


def test_a_product_may_be_a_folder_with_meshes_and_a_procedure(tmp_path, capsys):
    meshes, procedure = lantern.write(tmp_path)
    given = tmp_path / "given"
    given.mkdir()
    meshes.rename(given / "meshes")
    procedure.rename(given / "procedure.json")
    (tmp_path / "work").mkdir()
    of, words = from_cad.prepare(tmp_path / "work", str(given))
    assert (of.procedure.name, len(of.product.parts)) == ("lantern", of.procedure.num_components)
    assert of.procedure.fps == cad.get_config().data.synthetic.fps
    assert f"--config.data.synthetic.meshes={tmp_path}/work/meshes" in words
    with pytest.raises(SystemExit):
        from_cad.main([f"--workdir={tmp_path}", "--products=toy,lamb"])
    assert "--products=lamb: is not toy, lamp, a seed or a folder" in capsys.readouterr().err


def test_one_model_is_scored_on_films_of_each_style(given, tmp_path):
    names = ["test/film_00", "test/cartoon_film_00", "test/film_09", "train/real_00"]
    for video in (tmp_path / "films" / "videos" / f"{name}.mp4" for name in names):
        video.parent.mkdir(parents=True, exist_ok=True)
        video.touch()
    both = from_cad.Case(seed=0, real=0, by=("vtk", "cartoon"), source="cad", films=2)
    given(both)
    linked = (tmp_path / both.folder / "extra" / "videos").rglob("*.mp4")
    assert sorted(path.stem for path in linked) == ["cartoon_film_00", "film_00"]
    figures = dict.fromkeys((figure.key for figure in headline.FIGURES), 1.0) | {"wrong": None}
    films = {"film_00": figures, "cartoon_film_00": figures | {"f1": 0.5}}
    stream = {"recordings": films}
    assert [from_cad.of_style(stream, by)["f1"] for by in both.by] == [1.0, 0.5]
