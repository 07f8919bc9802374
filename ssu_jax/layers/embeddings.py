"""Position codes."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int


def sinusoid(positions: Float[Array, "..."], width: int, longest: float = 64.0) -> Float[Array, "... d"]:
    """Sines and cosines of `positions` at `width // 2` wavelengths from 2 to `longest`, geometrically."""
    wavelengths = 2.0 * (longest / 2.0) ** np.linspace(0.0, 1.0, width // 2)
    angles = positions[..., None] * jnp.asarray(2.0 * np.pi / wavelengths, jnp.float32).reshape(
        (1,) * positions.ndim + (-1,)
    )
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)


def seconds_of(count: int, width: int) -> Float[Array, "t d"]:
    """Codes of the seconds of a clip by their share of it, so that clips of any length share them."""
    return sinusoid((jnp.arange(count) + 0.5) / count * 8.0, width, longest=16.0)


def grid(rows: int, columns: int, width: int) -> Float[Array, "n d"]:
    """Codes of a grid in row order. Coordinates run from 0 to 1, so the code does not hang on the resolution."""
    y, x = jnp.meshgrid((jnp.arange(rows) + 0.5) / rows, (jnp.arange(columns) + 0.5) / columns, indexing="ij")
    codes = [sinusoid(axis.reshape(-1) * 8.0, width // 2, longest=16.0) for axis in (y, x)]
    return jnp.concatenate(codes, axis=-1)


def rotated(
    x: Float[Array, "b l h k"], positions: Int[Array, "l"], theta: float, layout: str
) -> Float[Array, "b l h k"]:
    """Rotary position code (Su et al. 2021): pairs of a head's numbers turned by position * theta ** (-2 i / k).

    layout: which numbers make pair i, "halves" (i and i + k / 2) or "interleaved" (2 i and 2 i + 1). Queries and keys
    that are both turned meet at an angle that hangs on their distance alone.
    """
    half = x.shape[-1] // 2
    speeds = theta ** (-np.arange(half, dtype=np.float32) / half)
    angles = positions.astype(jnp.float32)[:, None] * jnp.asarray(speeds)[None]
    cosine, sine = (turn(angles)[None, :, None] for turn in (jnp.cos, jnp.sin))
    pairs = x.astype(jnp.float32)
    pairs = pairs.reshape(*x.shape[:-1], 2, half) if layout == "halves" else pairs.reshape(*x.shape[:-1], half, 2)
    axis = -2 if layout == "halves" else -1
    first, second = (jax.lax.index_in_dim(pairs, side, axis, keepdims=False) for side in (0, 1))
    turned = jnp.stack([first * cosine - second * sine, second * cosine + first * sine], axis=axis)
    return turned.reshape(x.shape).astype(x.dtype)
