"""Scaled dot-product attention: a pure function, and the module that owns its projections."""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

NEG_INF = -1e9  # finite, so that a row with every key masked gives equal weights and no NaN


def attend(
    query: Float[Array, "b l h k"],
    key: Float[Array, "b n h k"],
    value: Float[Array, "b n h k"],
    bias: Float[Array, "b1 h1 l1 n"] | None = None,
) -> tuple[Float[Array, "b l h k"], Float[Array, "b h l n"]]:
    """softmax(Q K^T / sqrt(k) + bias) V and the weights; the softmax is in float32.

    `bias` adds to the logits before the softmax; its first three axes may be 1.
    """
    logits = jnp.einsum("blhk,bnhk->bhln", query, key).astype(jnp.float32) * query.shape[-1] ** -0.5
    if bias is not None:
        logits = logits + bias.astype(jnp.float32)
    weights = jax.nn.softmax(logits, axis=-1)
    return jnp.einsum("bhln,bnhk->blhk", weights.astype(value.dtype), value), weights


def causal_bias(length: int) -> Float[Array, "1 1 l l"]:
    """0 where a position may look (itself and before), NEG_INF elsewhere."""
    return jnp.where(jnp.tril(jnp.ones((length, length), bool)), 0.0, NEG_INF)[None, None]


class Cache(NamedTuple):
    """Keys and values of the positions written so far, for decoding one position at a time."""

    key: Any  # [b, l, h, k]
    value: Any  # [b, l, h, k]


def empty_cache(batch: int, length: int, num_heads: int, width: int, dtype: Any) -> Cache:
    """A cache of zeros for `length` positions."""
    shape = (batch, length, num_heads, width // num_heads)
    return Cache(jnp.zeros(shape, dtype), jnp.zeros(shape, dtype))


def extended(cache: Cache, new: Cache, position: Any) -> tuple[Cache, Float[Array, "1 1 1 n"]]:
    """`cache` with the keys and values of one position, and the bias that lets that position see those up to it."""
    update = jax.lax.dynamic_update_slice_in_dim
    seen = jnp.arange(cache.key.shape[1]) <= position
    bias = jnp.where(seen, 0.0, NEG_INF)[None, None, None]
    return Cache(update(cache.key, new.key, position, 1), update(cache.value, new.value, position, 1)), bias


class Attention(nn.Module):
    """Multi-head attention with projections. Heads share `width` evenly."""

    width: int
    num_heads: int
    dtype: Any = jnp.float32

    def setup(self):
        self.query, self.key, self.value, self.out = (nn.Dense(self.width, dtype=self.dtype) for _ in range(4))

    def _heads(self, x: Float[Array, "b l d"]) -> Float[Array, "b l h k"]:
        return x.reshape(*x.shape[:-1], self.num_heads, self.width // self.num_heads)

    def keys_values(self, context: Float[Array, "b n c"]) -> Cache:
        """Keys and values of a context, to be computed once and attended to many times."""
        return Cache(self._heads(self.key(context)), self._heads(self.value(context)))

    def from_cache(
        self, x: Float[Array, "b l d"], cache: Cache, bias: Float[Array, "b1 h1 l1 n"] | None = None
    ) -> Float[Array, "b l d"]:
        """Attends from `x` to keys and values that stand in `cache`."""
        out, weights = attend(self._heads(self.query(x)), cache.key, cache.value, bias)
        self.sow("intermediates", "attention", weights)
        return self.out(out.reshape(*x.shape[:-1], self.width))

    def __call__(
        self,
        x: Float[Array, "b l d"],
        context: Float[Array, "b n c"],
        bias: Float[Array, "b1 h1 l1 n"] | None = None,
    ) -> Float[Array, "b l d"]:
        return self.from_cache(x, self.keys_values(context), bias)

    def step(self, x: Float[Array, "b 1 d"], cache: Cache, position: Any) -> tuple[Float[Array, "b 1 d"], Cache]:
        """Causal self-attention of one position: writes its key and value, attends to those up to it."""
        cache, bias = extended(cache, self.keys_values(x), position)
        return self.from_cache(x, cache, bias), cache
