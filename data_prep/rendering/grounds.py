"""What is behind everything: textures that lie on the table."""

import dataclasses

import numpy as np

TEXTURE = 192  # pixels a side
REACH = 7.0  # half of what a texture covers of the table; beyond, it is mirrored


@dataclasses.dataclass(frozen=True)
class Texture:
    """A texture (T, T, 3) of linear albedos on the table; `fine` times as fine as it was made."""

    albedo: np.ndarray
    fine: float


def _noise(rng: np.random.Generator, across: int, along: int) -> np.ndarray:
    """(T, T) smooth noise in 0..1 with that many waves a side, in x and in y."""
    coarse = rng.random((along + 2, across + 2))
    y = np.linspace(0, along, TEXTURE, endpoint=False)[:, None]
    x = np.linspace(0, across, TEXTURE, endpoint=False)[None]
    i, j = y.astype(int), x.astype(int)
    v, u = y - i, x - j
    v, u = v * v * (3 - 2 * v), u * u * (3 - 2 * u)
    upper = coarse[i, j] * (1 - u) + coarse[i, j + 1] * u
    lower = coarse[i + 1, j] * (1 - u) + coarse[i + 1, j + 1] * u
    return upper * (1 - v) + lower * v


def _boards(rng: np.random.Generator) -> np.ndarray:
    number = int(rng.integers(4, 9))
    board = np.arange(TEXTURE) * number // TEXTURE
    tone = rng.random(number)[board][:, None]
    grain = _noise(rng, 4, 90)
    joint = np.diff(board, prepend=0)[:, None] > 0
    return np.where(joint, 1.6, 0.5 * tone + 0.5 * grain)


def _mat(rng: np.random.Generator) -> np.ndarray:
    step = TEXTURE // int(rng.integers(12, 25))
    lines = np.arange(TEXTURE) % step == 0
    thick = np.arange(TEXTURE) % (4 * step) < 2
    grid = lines[:, None] | lines | thick[:, None] | thick
    return np.where(grid, -1.2, 0.25 * _noise(rng, 40, 40))


def _scratches(rng: np.random.Generator) -> np.ndarray:
    worn = 0.7 * _noise(rng, 6, 6)
    for _ in range(60):
        x, y = rng.uniform(0, TEXTURE, 2)
        turn, length = rng.uniform(0, np.pi), rng.uniform(5, 60)
        t = np.linspace(0, length, int(length) + 1)
        i, j = (y + t * np.sin(turn)).astype(int), (x + t * np.cos(turn)).astype(int)
        inside = (i >= 0) & (j >= 0) & (i < TEXTURE) & (j < TEXTURE)
        worn[i[inside], j[inside]] = rng.uniform(-0.8, 1.2)
    return worn


def _sheets(rng: np.random.Generator) -> np.ndarray:
    mix = 0.3 * _noise(rng, 30, 30)
    for _ in range(int(rng.integers(2, 5))):
        i, j = rng.integers(0, TEXTURE - 40, 2)
        height, width = rng.integers(35, 60, 2)
        sheet = mix[i : i + height, j : j + width]
        sheet[:] = -2.2
        for row in range(4, len(sheet) - 3, 4):
            sheet[row, 4 : 4 + int(rng.integers(10, 30))] = 0.6
        sheet[len(sheet) // 2 : -6, 20:-6] = rng.uniform(-1.5, 1)
    return mix


def _stripes(rng: np.random.Generator) -> np.ndarray:
    x = np.arange(TEXTURE)
    wide = int(rng.integers(6, 20))
    stripes = ((x // wide) % 2).astype(float)
    if rng.random() < 0.5:
        return 0.5 * (stripes[:, None] + stripes)
    return np.broadcast_to(stripes, (TEXTURE, TEXTURE)) + 0.2 * _noise(rng, 40, 40)


def _grains(rng: np.random.Generator) -> np.ndarray:
    grain = int(rng.integers(1, 5))
    side = -(-TEXTURE // grain)
    mix = rng.normal(0, 1, (side, side)).repeat(grain, 0).repeat(grain, 1)
    return mix[:TEXTURE, :TEXTURE]


# Each makes (T, T): how much of the second colour there is, below 0 what is brighter than both.
TEXTURES = {
    "boards": _boards,
    "mat": _mat,
    "speckles": lambda rng: (
        0.6 * _noise(rng, 96, 96) + 0.6 * _noise(rng, 60, 60) + 0.3 * _noise(rng, 5, 5)
    ),
    "scratches": _scratches,
    "sheets": _sheets,
    "stripes": _stripes,
    "grains": _grains,
}


def texture(name: str, colours: np.ndarray, fine: float, rng: np.random.Generator) -> Texture:
    """Makes a texture of TEXTURES of two linear colours (2, 3), turned by any quarter turns."""
    mix = np.rot90(TEXTURES[name](rng), int(rng.integers(4)))[..., None]
    albedo = np.clip(colours[0] + mix * (colours[1] - colours[0]), 0.01, 0.95)
    brighter = np.clip(-mix / 2, 0, 1) * (0.85 - albedo)
    return Texture(np.ascontiguousarray(albedo + brighter, np.float32), fine)
