"""Squares of 16 x 16 of a picture or a log-mel patch: cut out, chosen, hidden, and as what they are predicted."""

from typing import Any

import einops
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

SIDE = 16  # as of the published masked autoencoders; it divides a log-mel patch (96 x 64) and any picture
_SMALLEST_VARIANCE = 1e-4  # of values near [0, 1]: an even square does not become its noise


def cut(x: Float[Array, "b y x c"]) -> Float[Array, "b n k"]:
    """The n squares of an image in row order, each as k = 256 c numbers."""
    return einops.rearrange(x, "f (y i) (x j) c -> f (y x) (i j c)", i=SIDE, j=SIDE)


def chosen(key: Any, rows: int, count: int, share: float) -> Bool[Array, "b n"]:
    """Which of `count` squares are hidden: `share` of them in every row, at least one, never all."""
    hidden = min(max(round(share * count), 1), count - 1)
    ranks = jnp.argsort(jnp.argsort(jax.random.uniform(key, (rows, count)), axis=1), axis=1)
    return ranks < hidden


def hide(x: Float[Array, "b y x c"], hidden: Bool[Array, "b n"]) -> Float[Array, "b y x c"]:
    """The hidden squares hold the mean of the rest, channel by channel.

    The encoders are convolutions and want a whole image: squares cannot be left out as arXiv 2111.06377 does.
    """
    grid = hidden.reshape(len(x), x.shape[1] // SIDE, x.shape[2] // SIDE, 1)
    grid = jnp.repeat(jnp.repeat(grid, SIDE, axis=1), SIDE, axis=2)
    seen = 1.0 - grid.astype(x.dtype)
    mean = (x * seen).sum(axis=(1, 2), keepdims=True) / seen.sum(axis=(1, 2), keepdims=True)
    return jnp.where(grid, mean, x)


def targets(x: Float[Array, "b y x c"]) -> Float[Array, "b n k"]:
    """What is predicted of each square: its numbers with mean 0 and deviation 1 (arXiv 2111.06377, section 4)."""
    found = cut(x)
    mean, variance = found.mean(axis=2, keepdims=True), found.var(axis=2, keepdims=True)
    return (found - mean) * jax.lax.rsqrt(variance + _SMALLEST_VARIANCE)
