"""Makes tests/networks/backbones: small backbones of timm and transformers, what these compute.

    python -m tools.backbone_fixtures

Needs torch, timm and transformers, which nothing else here does. Each CASE.npz holds the arrays of
a model of random weights under their published names (`state/NAME`, float16), pictures of the
model's own size and of another (`x0`, `x1`, (N, H, W, 3)), its class tokens after the last norm
(`y0`, `y1`), and its number of `heads`. timm.json has the fields of timm's models that are
backbones by name. Made with timm 1.0.31, transformers 5.24.0 and torch 2.13.0.
"""

import json
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import safetensors.numpy
import timm
import torch
import transformers
from timm.layers import LayerNorm, SwiGLUPacked
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from stormpsr_jax.networks import backbones

OUT = Path(__file__).parents[1] / "tests" / "networks" / "backbones"
WIDTH, HEADS, DEPTH = 16, 2, 2
SIZES = ((20, 20), (12, 32))  # of pictures: the models' own; less high and wider
FLAT = ((28, 28), (14, 56))  # with patches of 14; as many patches, other positions


def _timm(size: int = 20, patch: int = 4, **options) -> VisionTransformer:
    return VisionTransformer(
        img_size=size, patch_size=patch, embed_dim=WIDTH, depth=DEPTH, num_heads=HEADS,
        num_classes=0, dynamic_img_size=True, **options,
    )  # fmt: skip


def _eva(**options) -> Eva:
    return Eva(
        img_size=20, patch_size=4, embed_dim=WIDTH, depth=DEPTH, num_heads=HEADS, num_classes=0,
        dynamic_img_size=True, init_values=1e-5, rope_type="dinov3", rope_temperature=100,
        use_rot_pos_emb=True, use_abs_pos_emb=False, rope_rotate_half=True, num_reg_tokens=4,
        use_fc_norm=False, norm_layer=partial(LayerNorm, eps=1e-5), **options,
    )  # fmt: skip


def _transformers(kind: str, size: int = 20, patch: int = 4, **options) -> nn.Module:
    config = getattr(transformers, f"{kind}Config")(
        image_size=size, patch_size=patch, hidden_size=WIDTH, num_hidden_layers=DEPTH,
        num_attention_heads=HEADS, **options,
    )  # fmt: skip
    return getattr(transformers, f"{kind}Model")(config)


GIANT = {"mlp_ratio": 5.25, "mlp_layer": SwiGLUPacked, "act_layer": nn.SiLU}
REGISTERS = {"reg_tokens": 4, "no_embed_class": True}
CASES = {
    "timm_vit": lambda: _timm(),
    "timm_clip": lambda: _timm(pre_norm=True, norm_layer=partial(LayerNorm, eps=1e-5)),
    "timm_dinov2": lambda: _timm(28, 14, init_values=1e-5),
    "timm_dinov2_registers": lambda: _timm(init_values=1e-5, **REGISTERS),
    "timm_dinov2_giant": lambda: _timm(init_values=1e-5, **REGISTERS, **GIANT),
    "timm_all_positions": lambda: _timm(init_values=1e-5, reg_tokens=2),
    "timm_dinov3": lambda: _eva(qkv_bias=False),
    "timm_dinov3_qkvb_plus": lambda: _eva(qkv_bias=True, swiglu_mlp=True, swiglu_align_to=8),
    "transformers_vit": lambda: _transformers("ViT", intermediate_size=4 * WIDTH),
    "transformers_dinov2": lambda: _transformers("Dinov2", 28, 14),
    "transformers_dinov2_giant": lambda: _transformers("Dinov2", use_swiglu_ffn=True),
    "transformers_dinov2_registers": lambda: _transformers("Dinov2WithRegisters"),
    "transformers_dinov3": lambda: _transformers(
        "DINOv3ViT", intermediate_size=4 * WIDTH, num_register_tokens=4
    ),
    "transformers_dinov3_plus": lambda: _transformers(
        "DINOv3ViT",
        intermediate_size=40,
        num_register_tokens=4,
        use_gated_mlp=True,
        hidden_act="silu",
    ),
}


def make(name: str, seed: int) -> None:
    """Writes one case."""
    generator = torch.Generator().manual_seed(seed)
    model = CASES[name]().eval()
    with torch.no_grad():
        for key, value in model.state_dict().items():
            drawn = 0.3 * torch.randn(value.shape, generator=generator)
            is_gain = value.ndim == 1 and not key.endswith("bias")
            value.copy_((drawn + is_gain).half().float())
    with tempfile.TemporaryDirectory() as folder:
        if name.startswith("transformers"):  # the names of published files, not those in memory
            model.save_pretrained(folder)
            state = safetensors.numpy.load_file(Path(folder) / "model.safetensors")
        else:
            state = {key: value.numpy() for key, value in model.state_dict().items()}
    arrays = {f"state/{key}": value.astype(np.float16) for key, value in state.items()}
    patch = 14 if name.endswith("_dinov2") else 4
    for i, size in enumerate(FLAT if patch == 14 else SIZES):
        x = torch.randn((2, 3, *size), generator=generator).half()
        with torch.no_grad():
            if name.startswith("timm"):
                tokens = model.forward_features(x.float())
            else:
                more = {"interpolate_pos_encoding": True} if name == "transformers_vit" else {}
                tokens = model(x.float(), **more).last_hidden_state
        arrays |= {f"x{i}": x.permute(0, 2, 3, 1).numpy(), f"y{i}": tokens[:, 0].numpy()}
    np.savez_compressed(OUT / f"{name}.npz", **arrays, heads=HEADS)


def fields_of_timm(name: str) -> dict:
    """What timm's model of a name is, as attributes of our module, read off the model itself."""
    with torch.device("meta"):
        model = timm.create_model(name, num_classes=0)
    block = model.blocks[0]
    names = dict(model.named_parameters())
    hidden = block.mlp.fc2.weight.shape[1]
    gated = "blocks.0.mlp.fc1_g.weight" in names or block.mlp.fc1.weight.shape[0] == 2 * hidden
    has_bias = block.attn.qkv.bias is not None
    return {
        "patch_size": model.patch_embed.patch_size[0],
        "width": model.embed_dim,
        "depth": len(model.blocks),
        "num_heads": block.attn.num_heads,
        "mlp_dim": hidden,
        "mlp": "swiglu" if gated else "gelu",
        "positions": "rotary" if model.pos_embed is None else "learned",
        "bias": "qkv" if has_bias else "qv" if "blocks.0.attn.q_bias" in names else "none",
        "layer_scale": any("ls1.gamma" in key or "gamma_1" in key for key in names),
        "registers": names["reg_token"].shape[1] if "reg_token" in names else 0,
        "pre_norm": "norm_pre.weight" in names,
        "norm_eps": model.norm.eps,
    }


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    for seed, name in enumerate(CASES):
        make(name, seed)
        print(f"{name}.npz", (OUT / f"{name}.npz").stat().st_size)
    known = [name for name in backbones.VITS if "/" not in name]
    table = {name: fields_of_timm(name) for name in known}
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(row)}" for name, row in table.items())
    (OUT / "timm.json").write_text(f"{{\n{lines}\n}}\n")


if __name__ == "__main__":
    main()
