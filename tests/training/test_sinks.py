import importlib.util
import sys
import time
import types
from unittest import mock

import pytest

from stormpsr_jax.stages import checks
from stormpsr_jax.stages.context import Context
from stormpsr_jax.training import sinks
from stormpsr_jax.training.metrics import MetricWriter, read_metrics
from stormpsr_jax.training.sharding import make_mesh
from tests.support.tiny import tiny

WANDB = sinks.Sinks(("wandb",), {"seed": 3, "window": {"frames": 256}})


@pytest.fixture
def service(monkeypatch):
    """Puts something in place of the package wandb, which has a mode and perhaps a key."""

    def install(mode="offline", key=False):
        made = mock.MagicMock(Error=Exception)
        made.__spec__ = types.SimpleNamespace(origin="wandb/__init__.py")
        made.setup().settings.mode = mode
        made.login.side_effect = lambda prompt, verify: key and not (prompt or verify)
        monkeypatch.setitem(sys.modules, "wandb", made)
        return made

    return install


def write(folder, step=0, which=WANDB):
    folder.mkdir(exist_ok=True, parents=True)
    writer = MetricWriter(folder, step, sinks=which)
    writer.write(step + 1, {"loss": 0.5, "val/f1": None}, {"steps_per_second": 2.0})
    writer.close()
    return read_metrics(folder / "metrics.jsonl")


def test_the_field_says_which_sinks_there_are(tmp_path, service):
    made = service()
    for names, board, rows in (
        ((), 0, 0),
        (("tensorboard",), 1, 0),
        (("tensorboard", "wandb"), 1, 1),
    ):
        folder = tmp_path / str(len(names)) / "pretrain"
        assert len(write(folder, which=sinks.Sinks(names))) == 1
        assert len(list(folder.glob("tensorboard/*"))) == board
        assert made.init().log.call_count == rows
    made.init().define_metric.assert_called_once_with("pretrain/*", step_metric="pretrain/step")
    context = Context(tiny(metrics_to=("wandb",)), tmp_path, make_mesh(1, 1))
    assert context.sinks.names == ("wandb",)
    assert context.sinks.config["seed"] == 0


def test_before_anything_is_computed_a_missing_package_or_key_is_an_error(
    tmp_path, service, monkeypatch
):
    def errors(*names):
        config = tiny(metrics_to=names, stages=("data",))
        return checks.find_errors(Context(config, tmp_path, make_mesh(1, 1)))

    service(mode="online")
    (text,) = errors("tensorboard", "wandb")
    assert "no key for it: give the command `wandb login`, or set WANDB_MODE=offline" in text
    for options in ({"mode": "online", "key": True}, {"mode": "offline"}, {"mode": "disabled"}):
        service(**options)
        assert errors("wandb") == []
    (text,) = errors("tensorbord")
    assert (
        text == "--config.metrics_to=['tensorbord']: 'tensorbord' is not one of tensorboard, wandb"
    )
    assert checks.of_fields(tiny(metrics_to=())) == []
    # Neither the package nor a folder of its name, as it makes itself, is enough.
    monkeypatch.delitem(sys.modules, "wandb")
    find = importlib.util.find_spec
    for spec in (None, types.SimpleNamespace(origin=None)):
        found = lambda name, spec=spec: spec if name == "wandb" else find(name)  # noqa: E731
        monkeypatch.setattr(sinks.importlib.util, "find_spec", found)
        (text,) = errors("wandb")
        assert "pip install '.[wandb]'" in text
        assert errors("tensorboard") == []


def test_offline_the_package_keeps_the_rows_of_one_run_without_a_network(tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="needs the extra wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert sinks.find_errors(("wandb",)) == []
    run = tmp_path / "run"
    for stage, step in (("pretrain", 0), ("pretrain", 1), ("temporal", 0)):
        write(run / stage, step)
    name = (run / "wandb_run").read_text().strip()
    kept = sorted(run.glob(f"wandb/offline-run-*/run-{name}.wandb"))
    assert len(kept) == 3
    words = (b"pretrain/loss", b"temporal/steps_per_second", b'{"frames":256}')
    for _ in range(100):  # its other process writes a moment later
        content = b"".join(path.read_bytes() for path in kept)
        if all(word in content for word in words):
            break
        time.sleep(0.1)
    assert all(word in content for word in words)
    assert str(tmp_path).encode() not in content
    assert [row["step"] for row in read_metrics(run / "pretrain/metrics.jsonl")] == [1, 2]
