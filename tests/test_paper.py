"""docs/research.md: its commands lead from downloads to a report; what it says of configs holds."""

import ast
import importlib
import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys

import numpy as np
import pytest

from stormpsr_jax.configs import industreal, meccano
from stormpsr_jax.stages.config_flag import flat, typed
from stormpsr_jax.training.optimizer import MOMENTUM
from tests.support import downloads
from tests.support.processes import ROOT, environment, finish, start
from tests.support.tiny import TRAINED, flags_of

PAGE = (ROOT / "docs/research.md").read_text("utf-8")
ELEMENTS = (ROOT / "benchmarks/results/research-elements.md").read_text("utf-8")
CONFIGS = {"meccano": meccano, "industreal": industreal}
# Weights in place of random ones, and pictures of any size.
DRY = {"init_from": "vit_small_patch16_224.safetensors"}
DRY = flags_of(DRY | {"encoder.image_size": 0, "detector.image_size": 0})
# `unzip -q FILE [-d DIR]`.
UNZIP = '#!/bin/sh\nexec {python} -m zipfile -e "$2" "${{4:-.}}"\n'


def unpack(folder, name):
    """Gives the command lines of the block after the line <!-- unpack: name --> in a folder."""
    (block,) = re.findall(rf"^<!-- unpack: {name} -->\n```bash\n(.*?)^```$", PAGE, re.M | re.S)
    if shutil.which("unzip") is None:  # is not on every machine
        (folder / "unzip").write_text(UNZIP.format(python=sys.executable))
        (folder / "unzip").chmod(0o755)
    path = {"PATH": f"{os.environ['PATH']}:{folder}"}
    subprocess.run(["bash", "-ec", block], cwd=folder, check=True, env=environment(**path))


def commands(name, flags=()):
    """The command lines of the block after the line <!-- commands: name -->; with DRY, dry."""
    (block,) = re.findall(rf"^<!-- commands: {name} -->\n```bash\n(.*?)^```$", PAGE, re.M | re.S)
    lines = block.replace("\\\n", "").strip().splitlines()
    for line in lines:
        words = shlex.split(line)
        if flags is DRY:
            words = [f"{w}:dry" if w.startswith("--config=") else w for w in words]
        assert words[:2] == ["python", "-m"], line
        yield words[2], words[3:]


def follow(folder, name, main_flags, shard_flags=(), **variables):
    """Gives the commands of a block in a folder; returns what the last one wrote.

    `main_flags` are of the run, `variables` of its environment.
    """
    for module, words in commands(name, main_flags):
        if module.startswith("data_prep.") and module != "data_prep.check":
            words = [*words, *shard_flags]
        if module == "stormpsr_jax.main":
            words = [*words, *main_flags]
            words = [sys.executable, "-m", module, *words]
            process = start(words, cwd=folder, env=environment(**variables))
            (said,) = finish(process, timeout=7200)
        else:
            if importlib.util.find_spec(module).submodule_search_locations is not None:
                module = f"{module}.command"  # whose `__main__` runs it
            assert not importlib.import_module(module).main(words), f"{module} {words}"
    return said


def check_results(run, name, said):
    for stage in TRAINED:
        rows = [json.loads(row) for row in (run / stage / "metrics.jsonl").open()]
        losses = [row["loss"] for row in rows if "loss" in row]
        assert len(losses) == 2, stage
        assert np.isfinite(losses).all(), stage
    result = json.loads((run / "metrics.json").read_text())
    assert set(result["streams"]) == {"asd", "temporal", "storm", "learned"}
    threshold = {"meccano": 1.0, "industreal": 6.0}[name]
    for stream in ("asd", "temporal", "storm"):
        choice = result["validation"][stream]
        assert choice["fixed"], stream
        paper = {"threshold": threshold, "weight": 0.5, "decay": 0.75, "decoder": "expected"}
        assert choice["settings"] | paper == choice["settings"]
    model = json.loads((run / "model/model.json").read_text())
    assert model["streams"]["storm"]["settings"]["threshold"] == threshold
    assert (run / "report.html").is_file()
    assert "random weights" not in said
    assert "arrays from vit_small_patch16_224.safetensors" in said


@pytest.mark.system
@pytest.mark.parametrize("name", CONFIGS)
def test_page_its_commands_lead_from_downloads_to_the_report(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    getattr(downloads, f"make_{name}")(tmp_path, (36, 64))
    unpack(tmp_path, name)
    sizes = {"width": 32, "depth": 1, "num_heads": 2}
    downloads.make_vit(tmp_path / "model.safetensors", **sizes)
    said = follow(tmp_path, name, DRY, ["--size=32", "--workers=1"])
    check_results(tmp_path / "runs" / name, name, said)


def test_page_values_that_it_names_are_those_of_the_configs():
    """`field=value` on the page and in its table of elements, as Python writes values."""
    configs = {name: flat(typed(module.get_config())) for name, module in CONFIGS.items()}
    found = re.findall(r"`((?:\w+\.)+\w+)=([^`]+)`", PAGE + ELEMENTS)
    assert len(found) > 15
    for field, text in found:
        for name, config in configs.items():
            assert config[field] == ast.literal_eval(text), f"{name}: {field}={text}"


@pytest.mark.parametrize("name", CONFIGS)
def test_configs_budgets_are_those_of_the_paper(name):
    """Epochs of the paper times the lengths that the released code gives its epochs."""
    config = CONFIGS[name].get_config()
    assert config.finetune.steps * config.finetune.batch == 75 * 15_000
    assert config.temporal.steps * config.temporal.batch == 100 * 160_000
    assert config.pretrain.steps == 100 * 500
    for stage, epochs in (("pretrain", 100), ("temporal", 100), ("finetune", 75)):
        optimizer = config[stage].optimizer
        assert optimizer.warmup_steps * epochs == 5 * config[stage].steps, stage
        assert config[stage].eval_every * epochs == config[stage].steps, stage
        assert (optimizer.name, optimizer.lr, MOMENTUM) == ("sgd", 1e-3, 0.9)
        assert optimizer.clip_norm == 0
    losses = ("pretrain.state_loss", "temporal.state_loss", "detector.part_loss")
    ours = (*losses, "detector.pose_loss", "augment.occluders")
    assert not any(flat(typed(config))[field] for field in ours)
