import importlib
import logging
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stormpsr_jax import configs
from stormpsr_jax.configs import default
from stormpsr_jax.networks import backbones, detection
from stormpsr_jax.networks.efficientnet import EfficientNet
from stormpsr_jax.stages import config_flag, networks
from stormpsr_jax.stages.context import Context
from stormpsr_jax.stages.provenance import flat_config
from stormpsr_jax.stages.temporal import clip_loss
from stormpsr_jax.training import losses
from stormpsr_jax.training.optimizer import make_optimizer
from stormpsr_jax.training.sharding import make_mesh

# Millions of parameters: ViT-S/16 has 22.05, its head 0.08; layer sizes give the rest.
FULL_SIZE = {"meccano": (224, 22.1), "industreal": (224, 22.1), "synthetic": (64, 0.42)}


def config_of(name):
    return importlib.import_module(f"stormpsr_jax.configs.{name}").get_config()


def count(tree):
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))


@pytest.mark.usefixtures("system")  # costly
@pytest.mark.parametrize("name", FULL_SIZE)
def test_config_every_stage_is_built_at_full_size(name, tmp_path):
    size, millions = FULL_SIZE[name]
    large = config_of(name).detector.image_size or size
    config = config_of(name)
    context = Context(config, tmp_path, make_mesh(1, 1))
    components = context.procedure.num_components
    key = jax.random.key(0)

    spatial, temporal = networks.spatial_encoder(context), networks.temporal_encoder(context)
    detector = networks.detector(context)
    images = jax.ShapeDtypeStruct((2, size, size, 3), jnp.float32)
    pictures = jax.ShapeDtypeStruct((2, large, large, 3), jnp.float32)
    clips = jax.ShapeDtypeStruct((2, context.window.num_frames, config.encoder.hidden), jnp.float32)
    encoder = jax.eval_shape(lambda x: spatial.init(key, x, train=False), images)
    transformer = jax.eval_shape(lambda x: temporal.init(key, x, train=False), clips)
    detecting = jax.eval_shape(lambda x: detector.init(key, x, train=False), pictures)

    def encoder_loss(params, x):
        statistics = jax.tree.map(lambda a: jnp.zeros(a.shape), encoder["batch_stats"])
        variables = {"params": params, "batch_stats": statistics}
        out, _ = spatial.apply(variables, x, train=True, mutable=["batch_stats"])
        assert out["embedding"].shape == (2, config.encoder.hidden)
        return losses.supcon(out["projection"], jnp.array([1, 1]), 0.07)

    def temporal_loss(params, x):
        out = temporal.apply({"params": params}, x, train=True, rngs={"dropout": key})
        assert out.shape == (2, components * temporal.outputs)
        labels = jnp.zeros((2, components))
        return clip_loss(context, out, {"label": labels, "state": labels}, {})[0]

    def detector_loss(params, x):
        out = detector.apply({"params": params}, x, train=True)
        assert out["logits"].shape[-1] == context.procedure.num_states + 1
        loss = detection.detection_loss(
            out, jnp.full((2, 4), 0.5), jnp.array([1, 2]), image_size=(large, large),
            levels=config.detector.levels,
        )[0]  # fmt: skip
        if config.detector.part_loss:
            loss += losses.condition_bce(out["parts"], jnp.zeros((2, components)))[0]
        return loss

    for stage, variables, loss, x in (
        ("pretrain", encoder, encoder_loss, images),
        ("temporal", transformer, temporal_loss, clips),
        ("detector", detecting, detector_loss, pictures),
    ):
        optimizer = make_optimizer(
            config[stage].optimizer, config[stage].steps, variables["params"]
        )

        def step(params, x, optimizer=optimizer, loss=loss):
            gradient = jax.grad(loss)(params, x)
            return optimizer.update(gradient, optimizer.init(params), params)[0]

        updates = jax.eval_shape(step, variables["params"], x)
        assert jax.tree.structure(updates) == jax.tree.structure(variables["params"])
        logging.info("%s %s: %.2f M parameters", name, stage, count(updates) / 1e6)
    assert count(encoder["params"]) / 1e6 == pytest.approx(millions, rel=0.05)
    assert config.window.frames // config.window.stride + 1 == context.window.num_frames


@pytest.mark.parametrize("name", ["meccano", "industreal"])
def test_detector_costs_what_yolov8m_does(name, tmp_path):
    """78.9 GFLOPs at 640 pixels in Ultralytics' table, which are twice its multiply-adds."""
    context = Context(config_of(name), tmp_path, make_mesh(1, 1))
    assert context.config.detector.image_size == 640
    detector = networks.detector(context)
    assert detector.grid == 24
    images = jax.ShapeDtypeStruct((1, 640, 640, 3), jnp.float32)
    params = jax.eval_shape(detector.init, jax.random.key(0), images)
    cost = jax.jit(detector.apply).lower(params, images).cost_analysis()
    logging.info("%s detector: %.1f GFLOPs", name, cost["flops"] / 1e9)
    assert cost["flops"] / 1e9 == pytest.approx(78.9, rel=0.03)


@pytest.mark.parametrize(
    ("backbone", "millions"), [("transformer", 9.5), ("mlp", 17.1), ("lstm", 1.3), ("tcn", 4.8)]
)
def test_config_temporal_backbones_have_sizes_of_their_own(backbone, millions, tmp_path):
    """None inherits the transformer's 6 × 4,096, with which an LSTM has 740 million."""
    config = config_of("meccano")
    config.temporal_model.backbone = backbone
    context = Context(config, tmp_path, make_mesh(1, 1))
    model = networks.temporal_encoder(context)
    clips = jax.ShapeDtypeStruct((2, 65, config.encoder.hidden), jnp.float32)
    params = jax.eval_shape(lambda x: model.init(jax.random.key(0), x), clips)["params"]
    assert count(params) / 1e6 == pytest.approx(millions, abs=0.06)


CONFIGS = sorted({p.stem for p in Path(configs.__path__[0]).glob("*.py")} - {"__init__", "fields"})


@pytest.mark.parametrize("name", CONFIGS)
def test_config_has_fields_of_the_types_that_the_command_line_takes(name):
    config = importlib.import_module(f"stormpsr_jax.configs.{name}").get_config()
    ours = default.described()
    assert list(config_flag._find_errors(config, ours)) == []
    wrong = {"pretrain.initial_state": 1, "seed": True, "data.cad_mean": ("a", "b", "c")}
    for field, value in wrong.items():
        section, _, leaf = field.rpartition(".")
        with config.unlocked(), config.ignore_type():
            changed = config.copy_and_resolve_references()
            (changed[section] if section else changed)[leaf] = value
        assert len(list(config_flag._find_errors(changed, ours))) == 1, field


@pytest.mark.parametrize("more", ["", "boxes"])
def test_own_photos_changes_the_encoder_alone_and_takes_it_as_it_is(more):
    plain = flat_config(config_flag.load(f"own:{more}".rstrip(":")))
    config = config_flag.load(f"own:{more},photos".replace(":,", ":"))
    assert backbones.build(config.encoder).clone(remat="none") == EfficientNet()
    assert (config.init_from, config.pretrain.steps) == ("photos", 0)
    changed = [name for name, value in flat_config(config).items() if value != plain[name]]
    sections = {"init_from", "encoder", "pretrain", "data", "detector"}
    assert {name.partition(".")[0] for name in changed} == sections
