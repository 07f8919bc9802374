"""The language-model expert of MoHE: a causal LM that joins the words of the text decoder through a gate.

p(word) = (1 - g) p_local(word) + g p_lm(word), with g in (0, 1) from the decoder's state at that word. At inference a
gate below the threshold is 0. While no sentence of the batch has one above it, the LM is not computed; where one
needs it later, it reads the words that it has missed first, so what comes out is the same.

Two kinds: a small LM of our own that is trained along (`nano`), and published weights (GPT-2, Llama).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ssu_jax.config.encoders.causal_lm import VARIANTS, CausalLMConfig
from ssu_jax.config.model import ModelConfig
from ssu_jax.encoders.causal_lm import CausalLM
from ssu_jax.layers.attention import Cache, empty_cache
from ssu_jax.layers.transformer import CausalAttentionBlock, FeedForwardBlock
from ssu_jax.tokenizer import BOS, EOS
from ssu_jax.tokenizer.published import OFFSET

NEVER = -1e9  # logit of a word that the published LM does not have: finite, so that a gate of 1 gives no NaN


def expert(config: ModelConfig, max_length: int, dtype: Any) -> nn.Module:
    """The LM that a configuration asks for.

    lm(ids [b, l]) -> logits float32 [b, l, v], and the same position by position:
    lm.advance(ids [b, 1], caches, position) -> (state [b, 1, d], caches), lm.logits(state) -> [b, 1, v].
    """
    kind = OwnLanguageModel if config.language_model.kind == "own" else PublishedLanguageModel
    return kind(config, max_length, dtype)


class OwnLanguageModel(nn.Module):
    """A small causal language model on our words, trained along."""

    config: ModelConfig
    max_length: int
    dtype: Any = jnp.float32

    def setup(self):
        config, width = self.config.language_model, self.config.language_model.width
        self.embed = nn.Embed(self.config.vocab_size, width, dtype=self.dtype)
        self.position = self.param("position", nn.initializers.normal(0.02), (self.max_length, width))
        self.attention = [CausalAttentionBlock(width, self._heads, self.dtype) for _ in range(config.layers)]
        self.feed = [FeedForwardBlock(width, 2 * width, self.dtype) for _ in range(config.layers)]
        self.norm = nn.LayerNorm(dtype=self.dtype)
        self.head = nn.Dense(self.config.vocab_size, dtype=self.dtype)

    @property
    def _heads(self) -> int:
        return max(1, self.config.language_model.width // 32)

    @property
    def width(self) -> int:
        """Of the state that `advance` gives."""
        return self.config.language_model.width

    def __call__(self, ids: Int[Array, "b l"]) -> Float[Array, "b l v"]:
        x = self.embed(ids) + self.position[None, : ids.shape[1]].astype(self.dtype)
        for attention, feed in zip(self.attention, self.feed, strict=True):
            x = feed(attention(x))
        return self.logits(self.norm(x))

    def empty_caches(self, batch: int) -> tuple[Cache, ...]:
        """One cache a block."""
        return tuple(empty_cache(batch, self.max_length, self._heads, self.width, self.dtype) for _ in self.attention)

    def advance(
        self, ids: Int[Array, "b 1"], caches: tuple[Cache, ...], position: Any
    ) -> tuple[Float[Array, "b 1 d"], tuple[Cache, ...]]:
        """The state after one position; `caches` gain that position."""
        here = jax.lax.dynamic_slice_in_dim(self.position, position, 1)[None].astype(self.dtype)
        x, written = self.embed(ids) + here, []
        for attention, feed, cache in zip(self.attention, self.feed, caches, strict=True):
            x, cache = attention.step(x, cache, position)
            x = feed(x)
            written.append(cache)
        return self.norm(x), tuple(written)

    def logits(self, state: Float[Array, "b l d"]) -> Float[Array, "b l v"]:
        """Logits of the next word."""
        return self.head(state).astype(jnp.float32)


class PublishedLanguageModel(nn.Module):
    """A published causal LM behind our special ids: our id n + 4 is its id n.

    Our [BOS] goes in as the token that stands before its texts. Its end-of-text token comes out as our [EOS]; that
    token's own row, [PAD], [BOS], [UNK] and the rows of our table past its vocabulary are never written. So the
    probabilities are its own, row for row.
    """

    config: ModelConfig
    max_length: int
    dtype: Any = jnp.float32

    def setup(self):
        config = self.config
        self.model = CausalLM(self.sizes, self.dtype, remat=config.language_model.remat, scan=config.scan_blocks)

    @property
    def sizes(self) -> CausalLMConfig:
        """Of the published model."""
        return VARIANTS[self.config.language_model.variant]

    @property
    def width(self) -> int:
        """Of the state that `advance` gives."""
        return self.sizes.width

    def __call__(self, ids: Int[Array, "b l"]) -> Float[Array, "b l v"]:
        return self._ours(self.model(self._theirs(ids))["logits"])

    def empty_caches(self, batch: int) -> tuple[Cache, ...]:
        """One cache a block."""
        return self.model.empty_caches(batch, self.max_length)

    def advance(
        self, ids: Int[Array, "b 1"], caches: tuple[Cache, ...], position: Any
    ) -> tuple[Float[Array, "b 1 d"], tuple[Cache, ...]]:
        """The state after one position; `caches` gain that position."""
        return self.model.advance(self._theirs(ids), caches, position)

    def logits(self, state: Float[Array, "b l d"]) -> Float[Array, "b l v"]:
        """Logits of the next word."""
        return self._ours(self.model.logits(state))

    def _theirs(self, ids: Int[Array, "b l"]) -> Int[Array, "b l"]:
        sizes, theirs = self.sizes, ids - OFFSET
        known = (theirs >= 0) & (theirs < sizes.vocab_size)
        return jnp.where(known, theirs, jnp.where(ids == BOS, sizes.start_id, sizes.end_id))

    def _ours(self, logits: Float[Array, "b l n"]) -> Float[Array, "b l v"]:
        end, rest = self.sizes.end_id, self.config.vocab_size - OFFSET - self.sizes.vocab_size
        special = jnp.full((*logits.shape[:2], OFFSET), NEVER).at[..., EOS].set(logits[..., end])
        past = jnp.full((*logits.shape[:2], rest), NEVER)
        return jnp.concatenate([special, logits.at[..., end].set(NEVER), past], axis=-1)


class LanguageModelState(NamedTuple):
    """What is carried from word to word. Rows are sentences; `seen` belongs to all."""

    caches: tuple
    ids: Any  # int32 [b, l]: the words so far
    seen: Any  # int32 []: how many of them stand in the caches


def start(lm: nn.Module, batch: int) -> LanguageModelState:
    """Before the first word."""
    return LanguageModelState(lm.empty_caches(batch), jnp.zeros((batch, lm.max_length), jnp.int32), jnp.int32(0))


def read_up_to(
    lm: nn.Module, state: LanguageModelState, ids: Int[Array, "b 1"], position: Any, needed: Bool[Array, ""]
) -> tuple[Float[Array, "b 1 d"], LanguageModelState]:
    """Notes the words at `position`; where the LM is needed, it reads all it has not read, these words included.

    Returns its state after them, zeros where it is not needed. That is one loop from the first unread position, of no
    rounds where it is not needed: the caches stay in place.
    """
    ids = jax.lax.dynamic_update_slice_in_dim(state.ids, ids.astype(jnp.int32), position, axis=1)
    end = jnp.where(needed, position + 1, state.seen).astype(jnp.int32)

    def unread(carry: tuple) -> Array:
        return carry[0] < end

    def read(carry: tuple) -> tuple:
        place, _, caches = carry
        here = jax.lax.dynamic_slice_in_dim(ids, place, 1, axis=1)
        return place + 1, *lm.advance(here, caches, place)

    nothing = jnp.zeros((ids.shape[0], 1, lm.width), lm.dtype)
    _, hidden, caches = jax.lax.while_loop(unread, read, (state.seen, nothing, state.caches))
    return hidden, LanguageModelState(caches, ids, end)


def joined(
    local: Float[Array, "b l v"],
    lm_logits: Callable[[], Float[Array, "b l v"]],
    gate: Float[Array, "b l 1"],
    needed: Bool[Array, ""],
) -> Float[Array, "b l v"]:
    """`mixed` where the LM is needed; `lm_logits` is called in that branch alone."""
    return jax.lax.cond(needed, lambda: mixed(local, lm_logits(), gate), lambda: jax.nn.log_softmax(local))


def mixed(
    local: Float[Array, "b l v"], lm_logits: Float[Array, "b l v"], gate: Float[Array, "b l 1"]
) -> Float[Array, "b l v"]:
    """log((1 - g) p_local + g p_lm) from the logits of both; the LM learns nothing from it."""
    lm = jax.nn.log_softmax(jax.lax.stop_gradient(lm_logits))
    local = jax.nn.log_softmax(local)
    tiny = 1e-9  # keeps a gate of 0 finite, and its gradient
    both = jnp.logaddexp(local + jnp.log1p(-gate + tiny), lm + jnp.log(gate + tiny))
    return jnp.where(gate > 0, both, local)
