"""Position codes."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


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
