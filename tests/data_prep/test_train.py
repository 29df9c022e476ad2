"""`stormpsr train`: from folders to a model; test_guide follows the guide's commands with it."""

import pytest

from data_prep import train
from stormpsr_jax.base import files
from tests.support.own_data import PROCEDURE


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("meshes", "videos", "labels", "boxes"):
        (tmp_path / name).mkdir()
    files.write_json(tmp_path / "pump.json", PROCEDURE.to_json())
    return tmp_path


ALL = ["--meshes=meshes", "--videos=videos", "--labels=labels", "--boxes=boxes"]


def printed(capsys, *words: str) -> str:
    given = ["--procedure=pump.json", "--workdir=run", "--dry_run", *words]
    assert train.main(given) == 0
    return capsys.readouterr().out


def test_what_there_is_decides_what_is_trained(folder, capsys):
    data = "python -m data_prep.own --videos=videos --labels=labels --procedure=pump.json"
    rates = f"--config.data.synthetic.fps={PROCEDURE.fps:g} --config.data.extra=run/recordings"
    cad = "--config=cad --config.procedure=pump.json --config.data.synthetic.meshes=meshes"
    fields = ["--config.seed=3", "--splits=80/10/10", "--remake"]
    assert printed(capsys, *ALL, *fields).splitlines() == [
        f"$ {data} --boxes=boxes --out=run/recordings --size=64 --splits=80/10/10 --remake",
        f"$ python -m stormpsr_jax.main {cad} {rates} --workdir=run --remake --config.seed=3",
    ]
    assert printed(capsys, ALL[0]) == f"$ python -m stormpsr_jax.main {cad} --workdir=run\n"
    config = "--config=own:boxes --config.data.dir=shards"
    assert config in printed(capsys, *ALL[1:], "--data=shards")
    assert "--config=own --config.data.dir=run/recordings" in printed(capsys, *ALL[1:3])


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ([], "give --meshes=DIR, or --videos=DIR with --labels=DIR, or best all three"),
        (ALL[1:2], "label them first: stormpsr label videos --procedure=pump.json"),
        ([*ALL[:1], ALL[3]], "--boxes is of --videos=DIR"),
        (["--meshes=mesh"], "--meshes=mesh: is not a folder"),
        ([*ALL, "--stages=x"], "unrecognized arguments: --stages=x"),
    ],
)
def test_flags_that_do_not_fit_are_a_line(folder, capsys, words, line):
    with pytest.raises(SystemExit) as error:
        train.main(["--procedure=pump.json", "--workdir=run", *words])
    assert error.value.code == 2
    assert line in capsys.readouterr().err
