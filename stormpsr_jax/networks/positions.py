"""Learned positions of a ViT on pictures of another size than it was trained on."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np


def resize_position_embedding(
    pos_embed: np.ndarray,
    grid: tuple[int, int],
    old_grid: tuple[int, int] | None = None,
    antialias: bool = True,
) -> np.ndarray:
    """Resizes a ViT's position embedding (1, 1 + h w, D) to another patch grid (h, w), bicubically.

    The kernel is Keys's with a = -0.5, widened where the grid shrinks (`antialias`), as in Pillow
    and in PyTorch with antialias=True, which timm uses. PyTorch without it, which transformers uses
    for most models, has a = -0.75 and repeats the border. The row of [CLS] is kept.

    Raises:
        ValueError: without `old_grid`, which is a square then, of patches that make none.
    """
    h, w = old_grid or square(pos_embed.shape[1] - 1, "pos_embed")
    D = pos_embed.shape[-1]
    patches = np.asarray(pos_embed[0, 1:], np.float32).reshape(h, w, D)
    if antialias:
        resized = jax.image.resize(jnp.asarray(patches), (*grid, D), "bicubic", antialias=True)
    else:
        rows, columns = _cubic(h, grid[0]), _cubic(w, grid[1])
        resized = np.einsum("ih,jw,hwd->ijd", rows, columns, patches, optimize=True)
    resized = np.asarray(resized, np.float32).reshape(1, -1, D)
    return np.concatenate([pos_embed[:, :1], resized], axis=1)


def _cubic(old: int, new: int) -> np.ndarray:
    """Weights (new, old) of cubic convolution with a = -0.75 between the centres of pixels."""
    a = -0.75
    at = (np.arange(new) + 0.5) * old / new - 0.5
    weights = np.zeros((new, old))
    for tap in range(-1, 3):
        pixel = np.floor(at).astype(int) + tap
        x = np.abs(at - pixel)
        near = ((a + 2) * x - (a + 3)) * x**2 + 1
        far = a * (((x - 5) * x + 8) * x - 4)
        pixel = pixel.clip(0, old - 1)
        np.add.at(weights, (np.arange(new), pixel), np.where(x <= 1, near, far))
    return weights


def square(n: int, name: str) -> tuple[int, int]:
    """(side, side) of n patches; ValueError, with the name of what has them, if they make none."""
    side = round(n**0.5)
    if side * side != n:
        raise ValueError(
            f"{name}: {n} patches make no square grid; only that of square pictures can be resized"
        )
    return side, side


def fit(params: Mapping, grid: tuple[int, int], library: str | None, name: str) -> np.ndarray:
    """The position embedding of a ViT's parameters, for another grid (h, w) if need be.

    `library` published the parameters, and resizes in its way; None: they are a run's, whose grid
    is right if it has as many patches. `name` is that of the embedding, for messages.

    Raises:
        ValueError: it has to be resized, and is of patches that make no square.
    """
    positions = params["pos_embed"]
    patches = positions.shape[1] - 1
    same = patches == grid[0] * grid[1]
    if same and (library is None or grid[0] == grid[1] or round(patches**0.5) ** 2 != patches):
        return positions
    antialias = library != "transformers" or "registers" in params
    return resize_position_embedding(positions, grid, square(patches, name), antialias)
