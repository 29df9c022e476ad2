import importlib
from pathlib import Path

import jax
import numpy as np
import pytest

from benchmarks import stage_loops
from stormpsr_jax import configs
from stormpsr_jax.networks import backbones
from stormpsr_jax.networks.efficientnet import EfficientNet
from stormpsr_jax.stages import config_flag
from stormpsr_jax.stages.config_flag import flat, typed
from stormpsr_jax.training.devices import make_mesh
from tests.support.tiny import TRAINED

# Millions of parameters: ViT-S/16 has 22.05, its head 0.08; layer sizes give the rest.
FULL_SIZE = [
    ("meccano", 22.1),
    pytest.param("industreal", 22.1, marks=pytest.mark.slow),  # half a minute more
    ("synthetic", 0.42),
]


def config_of(name):
    return importlib.import_module(f"stormpsr_jax.configs.{name}").get_config()


def count(tree):
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))


@pytest.mark.usefixtures("system")  # costly
@pytest.mark.parametrize(("name", "millions"), FULL_SIZE)
def test_config_steps_of_every_stage_lower_at_full_size_for_gpu_and_tpu(name, millions, tmp_path):
    """Which are not there: what no device of that kind can do is an error all the same."""
    config = config_of(name)
    config.data.workers = config.detector.pose_loss = 0  # made-up renders tell no pose
    run, stages = stage_loops.opened(typed(config), tmp_path, make_mesh(1, 1), recordings=1)
    chosen = [stage for stage in TRAINED if stage in config.stages]
    found = stage_loops.definitions(run, stages, chosen)
    for definition in found.values():
        stage_loops.lower(definition, run.devices, platforms=("cuda", "tpu"))
    encoder, _ = stage_loops.abstract_state(found["pretrain"])
    assert count(encoder.params) / 1e6 == pytest.approx(millions, rel=0.05)
    assert config.window.frames // config.window.stride + 1 == stages["temporal"].clip.num_frames


CONFIGS = sorted({p.stem for p in Path(configs.__path__[0]).glob("*.py")} - {"__init__"})


@pytest.mark.parametrize("name", CONFIGS)
def test_config_has_fields_of_the_types_that_the_command_line_takes(name):
    config = importlib.import_module(f"stormpsr_jax.configs.{name}").get_config()
    assert config_flag.find_errors(config) == []
    for field, value in {"pretrain.initial_state": 1, "data.cad_mean": ("a", "b", "c")}.items():
        section, leaf = field.split(".")
        with config.unlocked(), config.ignore_type():
            changed = config.copy_and_resolve_references()
            changed[section][leaf] = value
        assert len(config_flag.find_errors(changed)) == 1, field


@pytest.mark.parametrize("more", ["", "boxes"])
def test_own_photos_changes_the_encoder_alone_and_takes_it_as_it_is(more):
    plain = flat(typed(config_flag.load(f"own:{more}".rstrip(":"))))
    config = config_flag.load(f"own:{more},photos".replace(":,", ":"))
    assert backbones.build(config.encoder) == EfficientNet()
    assert (config.init_from, config.pretrain.steps) == ("photos", 0)
    changed = [name for name, value in flat(typed(config)).items() if value != plain[name]]
    sections = {"init_from", "encoder", "pretrain", "data", "detector"}
    assert {name.partition(".")[0] for name in changed} == sections
