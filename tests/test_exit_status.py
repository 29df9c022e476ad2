"""Exit statuses of `main` and `paper`, as docs/start.md has them."""

import fcntl
import sys

import pytest

from stormpsr_jax import __main__ as stormpsr
from stormpsr_jax import main, paper
from stormpsr_jax.stages import run as runner
from tests.support.processes import refused


def ended(folder, words, capsys):
    with pytest.raises(SystemExit) as end:
        main.main([f"--workdir={folder}", *map(str, words)])
    return end.value.code, capsys.readouterr().err.splitlines()


CONFIG = "--config=synthetic"
MINE = "from stormpsr_jax.configs import own\n\ndef get_config():\n    c = own.get_config()\n    "


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([CONFIG, "--config.stages=('x',)"], "stages names ['x']"),
        ([CONFIG, "--config.data.dir=nowhere", "--config.stages=('temporal',)"], ""),
        ([CONFIG, "--remake=continue"], "argument --remake: ignored explicit argument 'continue'"),
        ([CONFIG, "--workdir=file"], ""),
        ([CONFIG, "--profile_steps=3,2"], "argument --profile_steps: 3,2 is not two step numbers"),
        (
            [CONFIG, "--config.temporal.lr=1"],
            "temporal.lr; there is --config.temporal.optimizer.lr",
        ),
        ([CONFIG, "--config.temporal.stepz=1"], "the config has no such field: temporal.stepz"),
        ([CONFIG, "--config.dtype=bf16"], "--config.dtype=bf16: is not one of float32, bfloat16"),
        ([CONFIG, "--config.seed=x"], "--config.seed=x"),
        ([CONFIG, "--config.data.mean.x=1"], "the config has no such field: data.mean.x"),
        ([CONFIG, "--config.stages=(1,)"], "--config.stages=(1,): expected str, got int at [0]"),
        ([CONFIG, "--config.seed", "1"], "unrecognized arguments: 1"),
        ([CONFIG, "--confg=own"], "unrecognized arguments: --confg=own; did you mean --config?"),
        (["--confg=own"], "unrecognized arguments: --confg; did you mean --config?"),
        ([], "the following arguments are required: --config"),
        (["--config=own:cages"], "own:cages: only own:boxes and own:photos and "),
        (["--config=synthetic:boxes"], "takes nothing after a colon"),
        (["--config=nope"], "unknown config 'nope'"),
        (["--config=mine.py", "return len(1)"], "mine.py: line 5: TypeError: object of type 'int'"),
        (["--config=mine.py", "raise Exception('a\\nb')"], "mine.py: line 5: Exception: a b"),
        (["--config=mine.py", "return (c"], "mine.py: line 5: SyntaxError: '(' was never closed"),
        (["--config=mine.py", "c.seed = 1"], "get_config() returns None, not a ConfigDict"),
    ],
)
def test_an_error_found_before_anything_is_computed_is_2(
    words, says, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(runner, "_make", None)  # nothing is computed
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    (tmp_path / "mine.py").write_text(MINE + words[-1] if words else "")
    words = words[:1] if "mine.py" in str(words) else words
    status, lines = ended("run", words, capsys)
    assert status == 2
    assert any(says in line for line in lines), lines
    assert all(line.startswith("error: ") for line in lines), lines


def test_a_work_folder_that_another_run_has_is_2(tmp_path, capsys):
    with (tmp_path / "lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        status, lines = ended(tmp_path, [CONFIG], capsys)
    assert status == 2
    assert "is writing to" in lines[-1]


@pytest.mark.parametrize(
    "failure",
    [OSError(28, "No space left on device"), ValueError("nothing to learn"), MemoryError("large")],
)
def test_a_stage_that_fails_is_1(failure, tmp_path, monkeypatch, capsys):
    def fail(*_):
        raise failure

    monkeypatch.setattr(runner, "_make", fail)
    status, lines = ended(tmp_path, [CONFIG], capsys)
    assert status == 1
    assert lines[-1] == f"error: {failure.strerror if failure.args[0] == 28 else failure}"


def test_an_experiment_with_an_error_is_2(tmp_path, monkeypatch, capsys):
    words = ["none", "--config=industreal", f"--workdir={tmp_path}"]
    monkeypatch.setattr(sys, "argv", ["paper", *words])
    with pytest.raises(SystemExit) as end:
        paper.run(paper.plan, "paper", "", "TABLE")
    assert end.value.code == 2
    assert capsys.readouterr().err.startswith("error: 'none' is no table; k")


def test_a_misspelt_command_is_2_and_the_nearest_one_is_named(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["stormpsr", "recognize"])
    assert "'recognize'; did you mean recognise?" in refused(capsys, stormpsr.main)
