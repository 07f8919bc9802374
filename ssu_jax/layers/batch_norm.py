"""Batch norm as published encoders carry it: statistics are weights that were measured once."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


class FixedBatchNorm(nn.Module):
    """scale * (x - mean) / sqrt(variance + eps) + bias, over the last axis, in float32; the result has x's dtype.

    `mean` and `variance` are parameters without a gradient: training never averages over a batch, so a frame's
    features do not depend on its neighbours.
    """

    eps: float
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "*b c"]) -> Float[Array, "*b c"]:
        ones, zeros, shape = nn.initializers.ones, nn.initializers.zeros, (x.shape[-1],)
        scale = self.param("scale", ones, shape, self.param_dtype).astype(jnp.float32)
        bias = self.param("bias", zeros, shape, self.param_dtype).astype(jnp.float32)
        mean = self.param("mean", zeros, shape, self.param_dtype).astype(jnp.float32)
        variance = self.param("variance", ones, shape, self.param_dtype).astype(jnp.float32)
        factor = scale * jax.lax.rsqrt(jax.lax.stop_gradient(variance) + self.eps)
        shift = bias - jax.lax.stop_gradient(mean) * factor
        factor, shift = (each.reshape((1,) * (x.ndim - 1) + shape) for each in (factor, shift))
        return (x.astype(jnp.float32) * factor + shift).astype(x.dtype)
