"""Speed against PyTorch on the same cores: temporal training step, ViT-S/16 forward and step.

    pip install -e '.[benchmark]'
    python benchmarks/pytorch_comparison.py [--rounds=7] [--clips=32] [--images=16]

Both sides have the same shapes (the paper's full-size models), float32, the same number of threads
and, in training, AdamW behind a clipped global gradient norm:

* temporal step: forward, backward and update of the temporal transformer on clips of 65 frame
  embeddings, dropout 0.1, binary cross-entropy; ours is the loop's step (`step.make_step`);
* ViT forward: ViT-S/16 on pictures of 224x224, without a gradient;
* ViT step: the same network trained on the mean square of its features.

The PyTorch modules are plain: nn.LayerNorm, nn.Linear, scaled_dot_product_attention, fused AdamW.
After warming up, the sides take turns; each time is the median of the rounds. FLOPs are those of
the matrix products alone, and the peak is the fastest of several products of two square float32
matrices, of both libraries, measured in the same process. Targets: PyTorch's time / ours ≥ 1, and
≥ 60 % of the peak in our ViT step.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import torch
from ml_collections import ConfigDict
from torch import nn
from torch.nn import functional as F

from stormpsr_jax.networks.temporal import TemporalTransformer
from stormpsr_jax.networks.vit import ViT
from stormpsr_jax.training import losses
from stormpsr_jax.training.optimizer import make_optimizer
from stormpsr_jax.training.step import TrainState, make_step

COMPONENTS, FRAMES, EMBEDDING = 17, 65, 128  # MECCANO; w / stride + 1; width of an embedding
SIZE, PATCH, WIDTH, DEPTH, HEADS = 224, 16, 384, 12, 6  # ViT-S/16
TEMPORAL = {"depth": 6, "num_heads": 8, "dim_head": 128, "mlp_dim": 4096, "dropout": 0.1}
OPTIMIZER = {
    "name": "adamw",
    "lr": 1e-4,
    "weight_decay": 0.05,
    "warmup_steps": 0,
    "schedule": "constant",
    "clip_norm": 1.0,
}
PEAK_SIZE = 4096
REST = 0.3  # seconds before each turn, in which the other library's threads go to sleep


class Block(nn.Module):
    """Pre-norm transformer block, (B, T, D) -> (B, T, D)."""

    def __init__(self, width, heads, dim_head, mlp_dim, qkv_bias, dropout):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * heads * dim_head, bias=qkv_bias)
        self.proj = nn.Linear(heads * dim_head, width)
        self.fc1, self.fc2 = nn.Linear(width, mlp_dim), nn.Linear(mlp_dim, width)
        self.drop = nn.Dropout(dropout)

    def forward(self, x):
        """Applies the block."""
        B, T, _ = x.shape
        qkv = self.qkv(self.norm1(x)).view(B, T, 3, self.heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (B, N, T, d)
        attended = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(B, T, -1)
        x = x + self.drop(self.proj(attended))
        y = self.drop(F.gelu(self.fc1(self.norm2(x))))
        return x + self.drop(self.fc2(y))


class TorchTemporal(nn.Module):
    """Embeddings (B, T, D) -> logits (B, K)."""

    def __init__(self, *, depth, num_heads, dim_head, mlp_dim, dropout):
        super().__init__()
        self.cls = nn.Parameter(0.02 * torch.randn(1, 1, EMBEDDING))
        self.positions = nn.Parameter(0.02 * torch.randn(1, FRAMES + 1, EMBEDDING))
        self.drop = nn.Dropout(dropout)
        blocks = [
            Block(EMBEDDING, num_heads, dim_head, mlp_dim, False, dropout) for _ in range(depth)
        ]
        self.blocks = nn.Sequential(*blocks)
        self.norm, self.head = nn.LayerNorm(EMBEDDING), nn.Linear(EMBEDDING, COMPONENTS)

    def forward(self, x):
        """Encodes clips."""
        x = torch.cat([self.cls.expand(len(x), -1, -1), x], dim=1)
        x = self.blocks(self.drop(x + self.positions))
        return self.head(self.norm(x[:, 0]))


class TorchViT(nn.Module):
    """Images (B, 3, H, W), PyTorch's layout -> [CLS] features (B, D)."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, WIDTH, PATCH, stride=PATCH)
        self.cls = nn.Parameter(0.02 * torch.randn(1, 1, WIDTH))
        self.positions = nn.Parameter(0.02 * torch.randn(1, 1 + (SIZE // PATCH) ** 2, WIDTH))
        blocks = [Block(WIDTH, HEADS, WIDTH // HEADS, 4 * WIDTH, True, 0.0) for _ in range(DEPTH)]
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.LayerNorm(WIDTH)

    def forward(self, images):
        """Encodes images."""
        x = self.patches(images).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls.expand(len(x), -1, -1), x], dim=1) + self.positions
        return self.norm(self.blocks(x))[:, 0]


def block_flops(tokens: int, width: int, inner: int, mlp_dim: int) -> int:
    """FLOPs of one block's matrix products for one sequence, forward."""
    weights = width * 3 * inner + inner * width + 2 * width * mlp_dim
    return 2 * tokens * (weights + 2 * tokens * inner)


def jax_step(model: nn.Module, loss: Callable, batch: dict[str, np.ndarray]) -> Callable:
    """A function that makes one training step on the batch, with the loop's own step."""
    x = jnp.asarray(batch["x"])
    params = jax.jit(model.init)(jax.random.key(0), x[:1])["params"]
    optimizer = make_optimizer(ConfigDict(OPTIMIZER), 10_000, params)

    def loss_fn(params, batch_stats, batch, rng):
        outputs = model.apply({"params": params}, batch["x"], train=True, rngs={"dropout": rng})
        return loss(outputs, batch), ({}, batch_stats)

    step = jax.jit(make_step(loss_fn, optimizer), donate_argnums=(0, 1))
    rng = jax.random.key_data(jax.random.key(1))
    state = TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params), {}, rng)
    sums = {name: jnp.zeros(()) for name in ("count", "loss", "grad_norm")}
    batch = jax.device_put(batch)

    def run():
        nonlocal state, sums
        state, sums, value = step(state, sums, batch)
        assert np.isfinite(float(value))

    return run


def torch_step(model: nn.Module, loss: Callable, batch: dict[str, np.ndarray]) -> Callable:
    """The same with PyTorch."""
    batch = {name: torch.from_numpy(array) for name, array in batch.items()}
    lr, decay = OPTIMIZER["lr"], OPTIMIZER["weight_decay"]
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=decay, fused=True)
    model.train()

    def run():
        optimizer.zero_grad()
        value = loss(model(batch["x"]), batch)
        value.backward()
        nn.utils.clip_grad_norm_(model.parameters(), OPTIMIZER["clip_norm"])
        optimizer.step()
        assert np.isfinite(value.item())

    return run


def forward_pair(images: np.ndarray) -> tuple[Callable, Callable]:
    """ViT-S/16 without a gradient: ours, PyTorch's."""
    x, model = jnp.asarray(images), ViT()
    params = jax.jit(model.init)(jax.random.key(0), x[:1])
    forward = jax.jit(lambda params, x: model.apply(params, x))
    torch_model, torch_x = TorchViT().eval(), torch.from_numpy(channels_first(images))

    def run_torch():
        with torch.inference_mode():
            torch_model(torch_x)

    return lambda: jax.block_until_ready(forward(params, x)), run_torch


def channels_first(images: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2))


def peak_pair() -> tuple[Callable, Callable]:
    """One square matrix product: JAX's, PyTorch's."""
    a = np.random.default_rng(0).normal(size=(PEAK_SIZE, PEAK_SIZE)).astype(np.float32)
    b, product, c = jnp.asarray(a), jax.jit(jnp.matmul), torch.from_numpy(a)
    return lambda: jax.block_until_ready(product(b, b)), lambda: torch.matmul(c, c)


def seconds(run: Callable) -> float:
    time.sleep(REST)
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--clips", type=int, default=32, help="batch of the temporal step")
    parser.add_argument("--images", type=int, default=16, help="batch of the ViT")
    args = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    torch.set_num_threads(cores)
    rng = np.random.default_rng(0)
    clips = {
        "x": rng.normal(size=(args.clips, FRAMES, EMBEDDING)).astype(np.float32),
        "label": rng.integers(0, 2, (args.clips, COMPONENTS)).astype(np.float32),
    }
    images = rng.normal(size=(args.images, SIZE, SIZE, 3)).astype(np.float32)
    temporal = TemporalTransformer(num_components=COMPONENTS, num_frames=FRAMES, **TEMPORAL)
    bce = lambda y, batch: losses.multilabel_bce(y, batch["label"]).mean()  # noqa: E731
    torch_bce = lambda y, b: F.binary_cross_entropy_with_logits(y, b["label"])  # noqa: E731
    square = lambda y, batch: (y**2).mean()  # noqa: E731
    inner = TEMPORAL["num_heads"] * TEMPORAL["dim_head"]
    clip_flops = TEMPORAL["depth"] * block_flops(FRAMES + 1, EMBEDDING, inner, TEMPORAL["mlp_dim"])
    patches = (SIZE // PATCH) ** 2
    image_flops = DEPTH * block_flops(patches + 1, WIDTH, WIDTH, 4 * WIDTH)
    image_flops += 2 * patches * 3 * PATCH**2 * WIDTH
    # A backward pass has two products for each of the forward pass.
    cases = {
        f"temporal step, {args.clips} clips": (
            3 * args.clips * clip_flops,
            (
                jax_step(temporal, bce, clips),
                torch_step(TorchTemporal(**TEMPORAL), torch_bce, clips),
            ),
        ),
        f"ViT-S/16 forward, {args.images} pictures": (
            args.images * image_flops,
            forward_pair(images),
        ),
        f"ViT-S/16 step, {args.images} pictures": (
            3 * args.images * image_flops,
            (
                jax_step(ViT(), square, {"x": images}),
                torch_step(TorchViT(), square, {"x": channels_first(images)}),
            ),
        ),
        "peak": (2 * PEAK_SIZE**3, peak_pair()),
    }
    times = {name: ([], []) for name in cases}
    for turn in range(args.rounds + 2):  # the first two warm up
        for name, (_, pair) in cases.items():
            for run, column in zip(pair, times[name], strict=True):
                if turn < 2:
                    run()
                else:
                    column.append(seconds(run))
    flops, _ = cases.pop("peak")
    ours_peak, torch_peak = (flops / min(column) for column in times["peak"])
    peak = max(ours_peak, torch_peak)
    print(
        f"{cores} cores, JAX {jax.__version__}, PyTorch {torch.__version__}; matmul peak "
        f"{ours_peak / 1e9:.0f} GFLOP/s with JAX, {torch_peak / 1e9:.0f} with PyTorch; "
        f"median of {args.rounds} rounds\n"
    )
    print("| | ours, s | PyTorch, s | PyTorch / ours | ours, share of peak | PyTorch's |")
    print("|---|---|---|---|---|---|")
    for name, (flops, _) in cases.items():
        ours, other = (statistics.median(column) for column in times[name])
        shares = (f"{flops / t / peak:.0%}" for t in (ours, other))
        print(f"| {name} | {ours:.3f} | {other:.3f} | {other / ours:.2f} | {' | '.join(shares)} |")


if __name__ == "__main__":
    main()
