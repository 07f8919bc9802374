"""Query token generator and multi-modality integration (MMI): the paper's figure, first two boxes."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ssu_jax.config.model import ModelConfig
from ssu_jax.layers import embeddings
from ssu_jax.layers.attention import NEG_INF
from ssu_jax.layers.transformer import AttentionBlock, FeedForwardBlock


class QueryTokenGenerator(nn.Module):
    """Learned queries of every second attend to the audio tokens of all seconds of the clip.

    With one audio token a second softmax over that second would be constant (arXiv 2408.01708), so the keys
    are those of the whole clip with temporal position; a learned slope a head lets it stay near its second.
    """

    config: ModelConfig
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, audio: Float[Array, "b t a d"], frame_valid: Bool[Array, "b t"]) -> Float[Array, "b t q d"]:
        b, t, a, d = audio.shape
        config, q = self.config, self.config.num_queries
        seconds = embeddings.seconds_of(t, d)
        inside = embeddings.sinusoid(jnp.arange(a, dtype=jnp.float32), d)
        keys = audio + (seconds[:, None] + inside[None])[None].astype(audio.dtype)
        learned = self.param("queries", nn.initializers.normal(0.5), (q, d))
        queries = (learned[None] + seconds[:, None])[None] + audio.mean(axis=2, keepdims=True)
        x, keys = queries.reshape(b, t * q, d).astype(self.dtype), keys.reshape(b, t * a, d)
        bias = self._near_bias(t, q, a) + jnp.where(jnp.repeat(frame_valid, a, axis=1), 0.0, NEG_INF)[:, None, None]
        for _ in range(config.query_layers):
            x = AttentionBlock(d, config.num_heads, self.dtype)(x, keys, bias)
            x = FeedForwardBlock(d, int(d * config.mlp_ratio), self.dtype)(x)
        return x.reshape(b, t, q, d)

    def _near_bias(self, t: int, q: int, a: int) -> Float[Array, "1 h l n"]:
        slopes = nn.softplus(self.param("slopes", nn.initializers.constant(2.0), (self.config.num_heads,)))
        of_query, of_key = jnp.repeat(jnp.arange(t), q), jnp.repeat(jnp.arange(t), a)
        distance = jnp.abs(of_query[:, None] - of_key[None]).astype(jnp.float32)
        return (-slopes[:, None, None] * distance[None])[None]


class MultiModalityIntegration(nn.Module):
    """N rounds: self-attention in each modality, then cross-attention both ways, frame by frame.

    The two streams are joined by the caller (tokens side by side).
    """

    config: ModelConfig
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, visual: Float[Array, "b n d"], audio: Float[Array, "b q d"]
    ) -> tuple[Float[Array, "b n d"], Float[Array, "b q d"]]:
        config = self.config
        d, heads, hidden = config.width, config.num_heads, int(config.width * config.mlp_ratio)
        for layer in range(config.fusion_layers):

            def attention(name, *args, layer=layer):
                return AttentionBlock(d, heads, self.dtype, name=f"{name}_{layer}")(*args)

            visual, audio = attention("self_visual", visual), attention("self_audio", audio)
            visual, audio = attention("visual_from_audio", visual, audio), attention("audio_from_visual", audio, visual)
            visual = FeedForwardBlock(d, hidden, self.dtype, name=f"feed_visual_{layer}")(visual)
            audio = FeedForwardBlock(d, hidden, self.dtype, name=f"feed_audio_{layer}")(audio)
        return visual, audio
