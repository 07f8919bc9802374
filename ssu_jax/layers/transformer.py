"""Pre-norm transformer parts."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from ssu_jax.layers.attention import Attention, Cache, causal_bias


class FeedForward(nn.Module):
    """Dense, GELU, dense."""

    width: int
    hidden: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "... d"]) -> Float[Array, "... d"]:
        x = nn.gelu(nn.Dense(self.hidden, dtype=self.dtype)(x))
        return nn.Dense(self.width, dtype=self.dtype)(x)


class AttentionBlock(nn.Module):
    """x + attention(norm(x), norm(context)); without a context, self-attention."""

    width: int
    num_heads: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b l d"],
        context: Float[Array, "b n c"] | None = None,
        bias: Float[Array, "b1 h1 l1 n"] | None = None,
    ) -> Float[Array, "b l d"]:
        y = nn.LayerNorm(dtype=self.dtype)(x)
        keys = y if context is None else nn.LayerNorm(dtype=self.dtype)(context)
        return x + Attention(self.width, self.num_heads, self.dtype)(y, keys, bias)


class FeedForwardBlock(nn.Module):
    """x + feed_forward(norm(x))."""

    width: int
    hidden: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "... d"]) -> Float[Array, "... d"]:
        return x + FeedForward(self.width, self.hidden, self.dtype)(nn.LayerNorm(dtype=self.dtype)(x))


class CausalAttentionBlock(nn.Module):
    """Causal self-attention, of a whole sequence or one position at a time."""

    width: int
    num_heads: int
    dtype: Any = jnp.float32

    def setup(self):
        self.norm = nn.LayerNorm(dtype=self.dtype)
        self.attention = Attention(self.width, self.num_heads, self.dtype)

    def __call__(self, x: Float[Array, "b l d"]) -> Float[Array, "b l d"]:
        y = self.norm(x)
        return x + self.attention(y, y, causal_bias(x.shape[1]))

    def step(self, x: Float[Array, "b 1 d"], cache: Cache, position: Any) -> tuple[Float[Array, "b 1 d"], Cache]:
        """One position; equal to that row of `__call__`."""
        y, cache = self.attention.step(self.norm(x), cache, position)
        return x + y, cache


class ContextAttentionBlock(nn.Module):
    """Cross-attention to a context whose keys and values are computed once."""

    width: int
    num_heads: int
    dtype: Any = jnp.float32

    def setup(self):
        self.norm, self.context_norm = nn.LayerNorm(dtype=self.dtype), nn.LayerNorm(dtype=self.dtype)
        self.attention = Attention(self.width, self.num_heads, self.dtype)

    def keys_values(self, context: Float[Array, "b n d"]) -> Cache:
        return self.attention.keys_values(self.context_norm(context))

    def __call__(
        self, x: Float[Array, "b l d"], cache: Cache, bias: Float[Array, "b1 h1 l1 n"] | None = None
    ) -> Float[Array, "b l d"]:
        return x + self.attention.from_cache(self.norm(x), cache, bias)
