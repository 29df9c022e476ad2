"""LayerScale, SwiGLU, registers, rotary positions: in training, and as plain values and back."""

import jax
import jax.numpy as jnp

from stormpsr_jax.configs import default
from stormpsr_jax.networks import vit, vit_family
from stormpsr_jax.training.optimizer import layer_lr_scale, make_optimizer


def test_layer_lr_scale_freezes_or_slows_the_backbone_alone():
    params = {
        "encoder": {
            name: {"kernel": jnp.ones((2, 2))}
            for name in ("patch_embed", "block_0", "block_1", "norm")
        }
        | {"registers": jnp.ones((1, 2, 2))},
        "first_head": {"kernel": jnp.ones((2, 2))},
    }
    config = default.get_config().pretrain.optimizer
    config.update(lr=1.0, warmup_steps=0, clip_norm=0.0)
    gradient = jax.tree.map(jnp.ones_like, params)

    layers = vit.ViT(depth=2).layers

    def steps(scale, decay):
        rule = make_optimizer(config, 1, params, layer_lr_scale("encoder", layers, scale, decay))
        updates, _ = rule.update(gradient, rule.init(params), params)
        return jax.tree.map(lambda update: -float(update.ravel()[0]), updates)

    frozen = steps(0.0, 1.0)
    assert set(jax.tree.leaves(frozen["encoder"])) == {0.0}
    assert frozen["first_head"]["kernel"] == 1.0
    slow = steps(0.5, 0.5)["encoder"]
    assert {name: slow[name]["kernel"] for name in slow if name != "registers"} == {
        "norm": 0.5, "block_1": 0.25, "block_0": 0.125, "patch_embed": 0.0625,
    }  # fmt: skip
    assert slow["registers"] == 0.0625


def test_the_largest_dinov3_has_no_bias_of_queries_and_values():
    """In neither library; all other DINOv3 of transformers do."""
    names = [name for name in vit_family.NAMED if name.startswith("facebook/dinov3-")]
    without = {name for name in names if vit_family.NAMED[name]["bias"] == "none"}
    assert without == {f"facebook/dinov3-vit7b16-pretrain-{of}" for of in ("lvd1689m", "sat493m")}
    assert vit_family.NAMED["vit_7b_patch16_dinov3"]["bias"] == "none"
