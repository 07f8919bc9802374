"""Frame-level text decoder: one sentence a frame, word after word, from the tokens of that frame."""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ssu_jax.config.model import ModelConfig
from ssu_jax.layers.attention import empty_cache
from ssu_jax.layers.moe import network, transport
from ssu_jax.layers.transformer import CausalAttentionBlock, ContextAttentionBlock, FeedForwardBlock
from ssu_jax.models.ssuformer import language_model
from ssu_jax.models.ssuformer.prompted_experts import PromptedExperts, Prompts
from ssu_jax.tokenizer import EOS, PAD

# What blocks keep under `text_remat`: with the experts' answers and hidden units at hand nothing is exchanged again.
KEPT = jax.checkpoint_policies.save_only_these_names(network.HIDDEN, transport.RECEIVED, transport.ANSWERED)


class Context(NamedTuple):
    """What the sentence of a frame is written from."""

    tokens: Any  # [b, n, d]: region, fusion and prompt tokens
    bias: Any  # float32 [b, n], added to the attention logits
    prompts: Prompts | None


class Words(NamedTuple):
    """Logits of the next word, and what the losses need beside them."""

    logits: Any  # float32 [b, l, v]
    lm_logits: Any  # float32 [b, l, v] or None
    stats: tuple  # router statistics of each block


class DecoderState(NamedTuple):
    """What is carried from word to word."""

    self_caches: tuple
    context_caches: tuple
    language_model: Any  # LanguageModelState, () without one


class TextDecoder(nn.Module):
    """Causal transformer with cross-attention; its feed-forward parts are experts where MoHE is on.

    With the language-model expert, a learned gate mixes the two next-word distributions (language_model.py). The LM's
    own weights learn from its own loss alone.
    """

    config: ModelConfig
    max_length: int
    dtype: Any = jnp.float32

    def setup(self):
        config, d = self.config, self.config.width
        blocks = range(config.text_layers)
        self.embed = nn.Embed(config.vocab_size, d, dtype=self.dtype)
        self.position = self.param("position", nn.initializers.normal(0.02), (self.max_length, d))
        self.self_attention = [CausalAttentionBlock(d, config.num_heads, self.dtype) for _ in blocks]
        self.context_attention = [ContextAttentionBlock(d, config.num_heads, self.dtype) for _ in blocks]
        if config.mohe:
            self.experts = [PromptedExperts(config, self.dtype) for _ in blocks]
            self.expert_norms = [nn.LayerNorm(dtype=self.dtype) for _ in blocks]
        else:
            self.feed = [FeedForwardBlock(d, int(d * config.mlp_ratio), self.dtype) for _ in blocks]
        self.norm = nn.LayerNorm(dtype=self.dtype)
        if config.tied_head:
            self.head_bias = self.param("head_bias", nn.initializers.zeros, (config.vocab_size,))
        else:
            self.head = nn.Dense(config.vocab_size, dtype=self.dtype)
        if self.has_lm:
            self.lm = language_model.expert(config, self.max_length, self.dtype)
            self.gate = nn.Dense(1, bias_init=nn.initializers.constant(-2.0))

    @property
    def has_lm(self) -> bool:
        return self.config.mohe and self.config.language_model.enabled

    def __call__(self, ids: Int[Array, "b l"], context: Context, mask: Bool[Array, "b l"], train: bool) -> Words:
        x = self.embed(ids) + self.position[None, : ids.shape[1]].astype(self.dtype)
        stats = []
        for layer in range(self.config.text_layers):

            def block(decoder, x, context, mask, layer=layer):
                return decoder._block(layer, x, context, mask, train)

            x, stat = (nn.remat(block, policy=KEPT) if self.config.text_remat else block)(self, x, context, mask)
            stats.append(stat)
        x = self.norm(x)
        local = self._local_logits(x)
        if not self.has_lm:
            return Words(local, None, tuple(stats))
        lm_logits = self.lm(ids)
        return Words(language_model.mixed(local, lm_logits, self._gate(x, ids, train)), lm_logits, tuple(stats))

    def _block(
        self, layer: int, x: Float[Array, "b l d"], context: Context, mask: Bool[Array, "b l"], train: bool
    ) -> tuple[Float[Array, "b l d"], dict]:
        x, look = self.self_attention[layer](x), self.context_attention[layer]
        x = look(x, look.keys_values(context.tokens), context.bias[:, None, None])
        return self._feed(layer, x, context.prompts, mask, train)

    def start(self, context: Context) -> DecoderState:
        """Empty caches, and the keys and values of the context, computed once for all words."""
        b, config = context.tokens.shape[0], self.config
        empty = tuple(
            empty_cache(b, self.max_length, config.num_heads, config.width, self.dtype) for _ in self.self_attention
        )
        keys_values = tuple(block.keys_values(context.tokens) for block in self.context_attention)
        return DecoderState(empty, keys_values, language_model.start(self.lm, b) if self.has_lm else ())

    def step(
        self, ids: Int[Array, "b 1"], context: Context, state: DecoderState, position: Any
    ) -> tuple[Float[Array, "b 1 v"], DecoderState]:
        """Log-probabilities of the word after `position`; equal to that row of `__call__`.

        `ids` may hold several sentences of every frame, those of one frame side by side (beam search).
        """
        here = jax.lax.dynamic_slice_in_dim(self.position, position, 1)[None].astype(self.dtype)
        x, caches = self.embed(ids) + here, []
        rows, frames = ids.shape[0], context.tokens.shape[0]
        for layer, attention in enumerate(self.self_attention):
            x, cache = attention.step(x, state.self_caches[layer], position)
            caches.append(cache)
            # The sentences of a frame share its keys and values: they stand side by side, as positions do.
            x = x.reshape(frames, rows // frames, -1)
            x = self.context_attention[layer](x, state.context_caches[layer], context.bias[:, None, None])
            x, _ = self._feed(layer, x, context.prompts, jnp.ones(x.shape[:2], bool), False)
            x = x.reshape(rows, 1, -1)
        x = self.norm(x)
        logits, lm_state = self._local_logits(x), ()
        if self.has_lm:
            gate = self._gate(x, ids, False)
            needed = (gate > 0).any()
            hidden, lm_state = language_model.read_up_to(self.lm, state.language_model, ids, position, needed)
            logits = language_model.joined(logits, lambda: self.lm.logits(hidden), gate, needed)
        return logits, DecoderState(tuple(caches), state.context_caches, lm_state)

    def _feed(
        self, layer: int, x: Float[Array, "b l d"], prompts: Prompts | None, mask: Bool[Array, "b l"], train: bool
    ) -> tuple[Float[Array, "b l d"], dict]:
        if not self.config.mohe:
            return self.feed[layer](x), {}
        y, stats = self.experts[layer](self.expert_norms[layer](x), prompts, mask, train)
        return x + y, stats

    def _local_logits(self, x: Float[Array, "b l d"]) -> Float[Array, "b l v"]:
        if self.config.tied_head:
            return self.embed.attend(x).astype(jnp.float32) + self.head_bias[None, None]
        return self.head(x).astype(jnp.float32)

    def _gate(self, x: Float[Array, "b l d"], ids: Int[Array, "b l"], train: bool) -> Float[Array, "b l 1"]:
        """Share of the language model. At inference 0 below the threshold, and where a sentence has ended."""
        gate = jax.nn.sigmoid(self.gate(x).astype(jnp.float32))
        self.sow("intermediates", "language_model_share", gate)
        if train:
            return gate
        ended = (ids == EOS) | (ids == PAD)
        low = gate < self.config.language_model.gate_threshold
        return jnp.where(low | ended[..., None], 0.0, gate)
