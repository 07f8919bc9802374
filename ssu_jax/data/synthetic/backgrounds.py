"""Textured, muted backgrounds with decoration that never sounds (our design)."""

import numpy as np
from jaxtyping import Float

from ssu_jax.data.synthetic.drawing import Plane, box, coverage, ellipse

KINDS = ("gradient", "noise", "stripes", "checks")
SHIFT_KINDS = ("rings", "dots", "waves")  # held out from training


def paint_background(rng: np.random.Generator, shifted: bool, size: int) -> Float[np.ndarray, "y x 3"]:
    """0 to 255: mid grey tones of little saturation, so that every colour stands out."""
    kinds = SHIFT_KINDS if shifted else KINDS
    rows, columns = np.meshgrid(np.arange(size) + 0.5, np.arange(size) + 0.5, indexing="ij")
    texture = _texture(str(rng.choice(kinds)), rng, rows, columns)
    base = _muted(rng)
    image = base + texture[..., None] * rng.uniform(10.0, 22.0) * rng.uniform(0.8, 1.2, 3)
    at = Plane(columns, rows)
    for _ in range(rng.integers(0, 4)):
        u, v = rng.uniform(0, size, 2)
        width, height = rng.uniform(4, 16, 2)
        shape = box(at, (u - width, u + width), (v - height, v + height), 2.0)
        if rng.random() < 0.5:
            shape = ellipse(at, u, v, width, height)
        image += 0.8 * coverage(shape, 1.0)[..., None] * (_muted(rng) - image)
    image += rng.normal(0.0, rng.uniform(0.5, 4.0), (size, size, 1))
    return np.clip(image, 60.0, 180.0)


def _muted(rng: np.random.Generator) -> np.ndarray:
    return rng.uniform(95.0, 150.0) + rng.uniform(-14.0, 14.0, 3)


def _texture(kind: str, rng: np.random.Generator, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """float64 [y, x], about -1 to 1."""
    size = len(rows)
    angle, period, phase = rng.uniform(0, np.pi), rng.uniform(8.0, 26.0), rng.uniform(0, 2 * np.pi)
    along = columns * np.cos(angle) + rows * np.sin(angle)
    across = rows * np.cos(angle) - columns * np.sin(angle)
    if kind == "gradient":
        return np.cos(phase) * (along - along.mean()) / (0.5 * size)
    if kind == "noise":
        return _smooth_noise(rng, size, int(rng.integers(4, 16)))
    if kind == "stripes":
        return np.tanh(3.0 * np.sin(2 * np.pi * along / period + phase))
    if kind == "checks":
        return np.tanh(4.0 * np.sin(2 * np.pi * along / period + phase) * np.sin(2 * np.pi * across / period))
    if kind == "rings":
        radius = np.hypot(columns - rng.uniform(0, size), rows - rng.uniform(0, size))
        return np.sin(2 * np.pi * radius / period + phase)
    if kind == "dots":
        wave = np.sin(2 * np.pi * along / period) + np.sin(2 * np.pi * across / period + phase)
        return np.tanh(4.0 * (wave - 1.0))
    return np.sin(2 * np.pi * along / period + 2.0 * np.sin(2 * np.pi * across / (1.7 * period)) + phase)


def _smooth_noise(rng: np.random.Generator, size: int, cells: int) -> np.ndarray:
    """Random values on a coarse grid, blended in between."""
    coarse = rng.uniform(-1.0, 1.0, (cells + 1, cells + 1))
    at = (np.arange(size) + 0.5) * cells / size
    low = at.astype(int)
    part = at - low
    part = part * part * (3.0 - 2.0 * part)
    wide = coarse[:, low] * (1.0 - part) + coarse[:, low + 1] * part
    return wide[low] * (1.0 - part)[:, None] + wide[low + 1] * part[:, None]
