"""Causal language models in two published layouts: GPT-2's (Radford et al. 2019) and Llama's (Touvron et al. 2023).

Both are stacks of pre-norm blocks. They differ in positions (learned or rotary), norm (mean and variance, or mean
square alone), biases, the feed-forward part (plain or gated) and in that Llama's queries may share keys and values.
"""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ssu_jax.config.encoders.causal_lm import CausalLMConfig
from ssu_jax.layers import embeddings
from ssu_jax.layers.attention import NEG_INF, Cache, attend, causal_bias, empty_cache, extended
from ssu_jax.layers.repeated import in_turn

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "gelu_tanh": functools.partial(nn.gelu, approximate=True),
    "gelu": functools.partial(nn.gelu, approximate=False),
    "relu": nn.relu,
    "silu": nn.silu,
}
INITIAL = nn.initializers.normal(0.02)  # as both families were trained from


class CausalLM(nn.Module):
    """Ids -> hidden states and logits of the next id; whole sequences, or one position at a time.

    `block_features`: the output of every block is returned too, for comparisons.
    """

    config: CausalLMConfig
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32
    remat: bool = False
    scan: bool = False
    block_features: bool = False

    def setup(self):
        config, types = self.config, {"dtype": self.dtype, "param_dtype": self.param_dtype}
        block = nn.remat(Block) if self.remat else Block
        self.embed = nn.Embed(config.vocab_size, config.width, embedding_init=INITIAL, **types)
        if config.layout == "gpt2":
            self.position = nn.Embed(config.positions, config.width, embedding_init=INITIAL, **types)
        self.block = [block(config, **types) for _ in range(config.depth)]
        self.norm = _norm(config, types)
        if not config.tied_head:
            self.head = nn.Dense(config.vocab_size, use_bias=False, kernel_init=INITIAL, **types)

    def __call__(self, ids: Int[Array, "b l"], mask: Bool[Array, "b l"] | None = None) -> dict[str, Array]:
        """Returns "hidden" [b, l, d], after the last norm, and "logits" float32 [b, l, v]: position l tells id l + 1.

        mask: positions that may be looked at; without it, all. Positions count from 0 whatever the mask says.
        With `block_features`, "embedding" and "block_0", "block_1", ... [b, l, d], before the last norm.
        """
        bias = causal_bias(ids.shape[1])
        if mask is not None:
            bias = bias + jnp.where(mask, 0.0, NEG_INF)[:, None, None]
        positions = jnp.arange(ids.shape[1])
        x = self._embedded(ids, positions)
        features = {}
        if self.block_features:
            features["embedding"] = x
            for number, block in enumerate(self.block):
                x = features[f"block_{number}"] = block(x, positions, bias)
        else:
            x = in_turn(self.block, x, positions, bias, scan=self.scan)
        x = self.norm(x)
        return features | {"hidden": x, "logits": self.logits(x)}

    def empty_caches(self, batch: int, length: int) -> tuple[Cache, ...]:
        """One cache a block, for `length` positions."""
        config = self.config
        width = config.width // config.num_heads * config.num_kv_heads
        return tuple(empty_cache(batch, length, config.num_kv_heads, width, self.dtype) for _ in range(config.depth))

    def step(
        self, ids: Int[Array, "b 1"], caches: tuple[Cache, ...], position: Any
    ) -> tuple[Float[Array, "b 1 v"], tuple[Cache, ...]]:
        """Logits of one position, equal to that row of `__call__`; `caches` gain that position."""
        hidden, caches = self.advance(ids, caches, position)
        return self.logits(hidden), caches

    def advance(
        self, ids: Int[Array, "b 1"], caches: tuple[Cache, ...], position: Any
    ) -> tuple[Float[Array, "b 1 d"], tuple[Cache, ...]]:
        """`step` without the logits: "hidden" of one position."""
        positions, written = jnp.reshape(position, (1,)), []
        x = self._embedded(ids, positions)
        for block, cache in zip(self.block, caches, strict=True):
            x, cache = block.step(x, cache, position)
            written.append(cache)
        return self.norm(x), tuple(written)

    def logits(self, hidden: Float[Array, "b l d"]) -> Float[Array, "b l v"]:
        """Logits of the next id."""
        return (self.embed.attend(hidden) if self.config.tied_head else self.head(hidden)).astype(jnp.float32)

    def _embedded(self, ids: Int[Array, "b l"], positions: Int[Array, "l"]) -> Float[Array, "b l d"]:
        x = self.embed(ids)
        return x + self.position(positions)[None] if self.config.layout == "gpt2" else x


class Block(nn.Module):
    """x + attention(norm(x)), then x + feed_forward(norm(x))."""

    config: CausalLMConfig
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    def setup(self):
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        self.attention_norm, self.feed_norm = _norm(self.config, types), _norm(self.config, types)
        self.attention = SelfAttention(self.config, **types)
        self.feed = FeedForward(self.config, **types)

    def __call__(
        self, x: Float[Array, "b l d"], positions: Int[Array, "l"], bias: Float[Array, "b1 1 l l"]
    ) -> Float[Array, "b l d"]:
        x = x + self.attention(self.attention_norm(x), positions, bias)
        return x + self.feed(self.feed_norm(x))

    def step(self, x: Float[Array, "b 1 d"], cache: Cache, position: Any) -> tuple[Float[Array, "b 1 d"], Cache]:
        """One position; equal to that row of `__call__`."""
        y, cache = self.attention.step(self.attention_norm(x), cache, position)
        x = x + y
        return x + self.feed(self.feed_norm(x)), cache


class SelfAttention(nn.Module):
    """Causal self-attention; every num_heads / num_kv_heads queries share keys and values."""

    config: CausalLMConfig
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    def setup(self):
        config = self.config
        dense = _dense(config, {"dtype": self.dtype, "param_dtype": self.param_dtype})
        if config.layout == "gpt2":
            self.query_key_value = dense(3 * config.width)
        else:
            shared = config.width // config.num_heads * config.num_kv_heads
            self.query, self.key, self.value = dense(config.width), dense(shared), dense(shared)
        self.out = dense(config.width)

    def __call__(
        self, x: Float[Array, "b l d"], positions: Int[Array, "l"], bias: Float[Array, "b1 1 l l"]
    ) -> Float[Array, "b l d"]:
        query, new = self._projected(x, positions)
        return self._attended(query, new, bias)

    def step(self, x: Float[Array, "b 1 d"], cache: Cache, position: Any) -> tuple[Float[Array, "b 1 d"], Cache]:
        """One position: writes its key and value, attends to those up to it."""
        query, new = self._projected(x, jnp.reshape(position, (1,)))
        cache, bias = extended(cache, new, position)
        return self._attended(query, cache, bias), cache

    def _projected(self, x: Float[Array, "b l d"], positions: Int[Array, "l"]) -> tuple[Float[Array, "b l h k"], Cache]:
        config = self.config
        if config.layout == "gpt2":
            query, key, value = jnp.split(self.query_key_value(x), 3, axis=-1)
        else:
            query, key, value = self.query(x), self.key(x), self.value(x)
        query, key, value = (
            part.reshape(*x.shape[:2], -1, config.width // config.num_heads) for part in (query, key, value)
        )
        if config.layout == "llama":
            turn = functools.partial(
                embeddings.rotated, positions=positions, theta=config.rope_theta, layout=config.rope_layout
            )
            query, key = turn(query), turn(key)
        return query, Cache(key, value)

    def _attended(
        self, query: Float[Array, "b l h k"], cache: Cache, bias: Float[Array, "b1 1 l1 n"]
    ) -> Float[Array, "b l d"]:
        share = self.config.num_heads // self.config.num_kv_heads
        key, value = (jnp.repeat(part, share, axis=2) if share > 1 else part for part in cache)
        out, _ = attend(query, key, value, bias)
        return self.out(out.reshape(*query.shape[:2], -1))


class FeedForward(nn.Module):
    """Dense, activation, dense; Llama's has a second dense part that multiplies what comes out of the first."""

    config: CausalLMConfig
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b l d"]) -> Float[Array, "b l d"]:
        config, activation = self.config, ACTIVATIONS[self.config.activation]
        dense = _dense(config, {"dtype": self.dtype, "param_dtype": self.param_dtype})
        up = dense(config.hidden, name="up")(x)
        gated = config.layout == "llama"
        inner = activation(dense(config.hidden, name="gate")(x)) * up if gated else activation(up)
        return dense(config.width, name="down")(inner)


def _dense(config: CausalLMConfig, types: dict[str, Any]) -> Callable[..., nn.Dense]:
    return functools.partial(nn.Dense, use_bias=config.layout == "gpt2", kernel_init=INITIAL, **types)


def _norm(config: CausalLMConfig, types: dict[str, Any]) -> nn.Module:
    if config.layout == "gpt2":
        # Published weights have a few very large activations: E[x^2] - E[x]^2 would lose digits there.
        return nn.LayerNorm(epsilon=config.norm_epsilon, use_fast_variance=False, **types)
    return nn.RMSNorm(epsilon=config.norm_epsilon, **types)
