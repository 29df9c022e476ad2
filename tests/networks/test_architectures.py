import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from stormpsr_jax.networks import architectures
from stormpsr_jax.networks.detector import Detector
from stormpsr_jax.networks.efficientnet import EfficientNet
from stormpsr_jax.networks.spatial import SpatialEncoder
from stormpsr_jax.networks.temporal import (
    TemporalLSTM,
    TemporalMLP,
    TemporalTCN,
    TemporalTransformer,
)
from stormpsr_jax.networks.vit import ViT

ENCODER = SpatialEncoder(ViT(patch_size=8, width=16, depth=2, num_heads=2, stem=(4,)), hidden=8)
EFFICIENTNET = EfficientNet(width=8, depths=(1,) * 7)
CASES = [
    ("encoder", ENCODER, (2, 16, 24, 3)),
    ("encoder", SpatialEncoder(EFFICIENTNET, hidden=8), (2, 32, 64, 3)),
    ("temporal", TemporalTransformer(3, 5, depth=1, num_heads=2, mlp_dim=12), (2, 5, 6)),
    ("temporal", TemporalMLP(3, depth=1, width=4), (2, 5, 6)),
    ("temporal", TemporalMLP(3, depth=1, width=4, activation="none"), (2, 5, 6)),
    ("temporal", TemporalLSTM(3, depth=2, width=4), (2, 5, 6)),
    ("temporal", TemporalTCN(3, depth=2, width=4, dtype=jnp.dtype(jnp.bfloat16)), (2, 5, 6)),
    ("detector", Detector(4, width=4, levels=2, grid=4), (2, 16, 24, 3)),
    # With the condition of each component.
    ("temporal", TemporalTransformer(3, 5, 3, depth=1, num_heads=2, mlp_dim=12), (2, 5, 6)),
    ("temporal", TemporalMLP(3, 3, depth=1, width=4), (2, 5, 6)),
    ("temporal", TemporalLSTM(3, 3, depth=1, width=4), (2, 5, 6)),
    ("temporal", TemporalTCN(3, 3, depth=1, width=4), (2, 5, 6)),
    ("detector", Detector(4, width=4, grid=4, num_components=3), (2, 16, 24, 3)),
    ("detector", Detector(4, width=4, grid=4, upright=True, corrections=2), (2, 16, 24, 3)),
]


@pytest.mark.parametrize(("role", "module", "shape"), CASES)
def test_build_gives_the_described_network_back(role, module, shape):
    described = architectures.describe(module)
    again = architectures.build(role, described, "x")
    assert type(again) is type(module)
    assert architectures.describe(again) == described
    assert architectures.inference(module) == again
    for name, value in described.items():
        if name not in ("architecture", "dtype"):
            held = getattr(module, name, None) or getattr(getattr(module, "encoder", None), name, 0)
            assert held == (tuple(value) if isinstance(value, list) else value)
    assert again.dtype == module.dtype
    whole = jax.eval_shape(module.init, jax.random.key(0), np.zeros(shape, np.float32))
    whole = traverse_util.flatten_dict(whole, sep="/")
    needed = architectures.variable_shapes(again, shape)
    left = {name for name in whole if "second_head" in name or "projection_head" in name}
    assert needed == {name: whole[name] for name in whole if name not in left}
    assert bool(left) == (role == "encoder")


@pytest.mark.parametrize(("role", "module", "shape"), [CASES[i] for i in (0, 1, 2, 6, 7)])
def test_cost_matches_the_compiler(role, module, shape):
    """Which counts other operations too, and none of padding."""

    def function(variables, x):
        return architectures.apply(module, traverse_util.unflatten_dict(variables, sep="/"), x)

    shape = (1, 64, 64, 3) if role != "temporal" else shape
    x = jax.ShapeDtypeStruct(shape, jnp.float32)
    compiled = jax.jit(function).lower(dict(architectures.variable_shapes(module, shape)), x)
    counted = compiled.cost_analysis()["flops"]
    assert 0.5 < architectures.cost(module, shape).operations / counted < 1.6


def test_variable_shapes_errors_fields_that_contradict_each_other():
    for module, shape, message in (
        (
            SpatialEncoder(ViT(width=16, num_heads=3)),
            (1, 16, 16, 3),
            "width 16 is not divisible by num_heads 3",
        ),
        (ENCODER, (1, 17, 16, 3), "17x16 is not a multiple of patch 8"),
        (
            SpatialEncoder(ViT(patch_size=4, stem=(2, 2, 2))),
            (1, 16, 16, 3),
            "patch_size 4 is not a multiple of 8",
        ),
        (CASES[2][1], (1, 6, 6), "a clip of 6 frames, but num_frames is 5"),
    ):
        with pytest.raises(ValueError, match=f"the fields do not fit together .*{message}"):
            architectures.variable_shapes(module, shape)
