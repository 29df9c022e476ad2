"""Exit statuses of `main`, `paper` and `sweep`, as docs/start.md has them."""

import fcntl
import sys

import pytest

from stormpsr_jax import __main__ as stormpsr
from stormpsr_jax import main, paper
from stormpsr_jax.experiments import command, execute
from stormpsr_jax.stages import run as runner
from tests.support.commands import refused


def ended(words, capsys):
    """The exit status of `main` and the lines on stderr."""
    with pytest.raises(SystemExit) as end:
        main.main(["--config=synthetic", *map(str, words)])
    return end.value.code, capsys.readouterr().err.splitlines()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--config.stages=('x',)"], "error: stages names ['x']"),
        (["--config.data.dir=nowhere", "--config.stages=('temporal',)"], "error: "),
        (["--from=nowhere"], "error: --from=nowhere: no such work folder"),
        (["--workdir=file"], "error: "),
        (["--profile_steps=3,2"], "error: argument --profile_steps: 3,2 is not two step numbers"),
        (["--config.temporal.stepz=1"], "error: the config has no such field: temporal.stepz"),
        (["--config.dtype=bf16"], "error: --config.dtype='bf16': is not one of float32, bfloat16"),
    ],
)
def test_an_error_found_before_anything_is_computed_is_2(
    words, says, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(runner, "_run_stage", None)  # nothing is computed
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    status, lines = ended(["--workdir=run", *words], capsys)
    assert status == 2
    assert any(line.startswith(says) for line in lines), lines
    assert all(line.startswith("error: ") for line in lines), lines


def test_a_work_folder_that_another_run_has_is_2(tmp_path, capsys):
    with (tmp_path / "lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        status, lines = ended([f"--workdir={tmp_path}"], capsys)
    assert status == 2
    assert "is writing to" in lines[-1]


@pytest.mark.parametrize(
    "failure",
    [OSError(28, "No space left on device"), ValueError("nothing to learn"), MemoryError("large")],
)
def test_a_stage_that_fails_is_1(failure, tmp_path, monkeypatch, capsys):
    def fail(*_):
        raise failure

    monkeypatch.setattr(runner, "_run_stage", fail)
    status, lines = ended([f"--workdir={tmp_path}"], capsys)
    assert status == 1
    assert lines[-1] == f"error: {failure.strerror if failure.args[0] == 28 else failure}"


def experiment(words, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["paper", *map(str, words)])
    with pytest.raises(SystemExit) as end:
        command.run(paper.plan, "paper", "", "TABLE", takes_asd=True)
    return end.value.code, capsys.readouterr().err


def test_an_experiment_with_an_error_is_2_and_one_whose_runs_failed_1(
    tmp_path, monkeypatch, capsys
):
    words = ["--config=industreal", f"--workdir={tmp_path}", "--devices_per_run=0"]
    status, said = experiment(["none", *words], monkeypatch, capsys)
    assert (status, said[:28]) == (2, "error: 'none' is no table; k")
    monkeypatch.setattr(execute, "execute_all", lambda runs, *_: list(runs))
    status, said = experiment(["main", *words], monkeypatch, capsys)
    assert status == 1
    assert "runs failed, and are in no table" in said


def test_a_misspelt_command_is_2_and_the_nearest_one_is_named(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["stormpsr", "recognize"])
    assert "'recognize'; did you mean recognise?" in refused(capsys, stormpsr.main)
