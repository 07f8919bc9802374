"""Convolution parts shared by the small encoders."""

from typing import Any

import einops
import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float


class ResidualBlock(nn.Module):
    """x + conv(relu(norm(x))), 3 x 3; the norm is over channels, so nothing is averaged over the batch."""

    width: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b y x c"]) -> Float[Array, "b y x c"]:
        y = nn.relu(nn.LayerNorm(dtype=self.dtype)(x))
        return x + nn.Conv(self.width, (3, 3), dtype=self.dtype)(y)


def merge_patches(x: Float[Array, "b y x c"], side: int) -> Float[Array, "b y2 x2 c2"]:
    """Each side x side patch becomes one position with side^2 c channels.

    With a dense layer behind it this is a convolution whose kernel equals its stride; as a matrix product its
    gradient is several times faster on a CPU than that of a strided convolution.
    """
    return einops.rearrange(x, "b (y i) (x j) c -> b y x (i j c)", i=side, j=side)
