"""Region-caption consistency (RCC): the masked region and its sentence in one embedding space.

The paper's loss is the L2 distance between MaskCLIP's embeddings of the region and of the text. `nano` has
no CLIP: two small heads are trained along, and a contrastive term (losses.py) keeps them from agreeing on a
constant.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ssu_jax.config.model import ModelConfig
from ssu_jax.tokenizer import PAD


class RegionCaptionConsistency(nn.Module):
    """Region summary [b, d] and sentence ids [b, l] -> unit vectors of both, and the contrastive scale."""

    config: ModelConfig
    dtype: Any = jnp.float32

    def setup(self):
        width, vocabulary = self.config.embedding_width, self.config.vocab_size
        self.region = nn.Dense(width, dtype=self.dtype)
        self.words = nn.Embed(vocabulary, 2 * width, dtype=self.dtype)
        # Words are paired with their neighbours, so that "red bell" differs from "bell ... red".
        self.phrases = nn.Conv(2 * width, (3,), dtype=self.dtype)
        self.text = nn.Dense(width, dtype=self.dtype)
        self.log_scale = self.param("log_scale", nn.initializers.constant(2.3), ())

    def __call__(
        self, region: Float[Array, "b d"], ids: Int[Array, "b l"]
    ) -> tuple[Float[Array, "b k"], Float[Array, "b k"], Float[Array, ""]]:
        return self.of_region(region), self.of_text(ids), jnp.exp(jnp.minimum(self.log_scale, 4.6))

    def of_region(self, region: Float[Array, "b d"]) -> Float[Array, "b k"]:
        """The place of regions in the shared space."""
        return _unit(self.region(region))

    def of_text(self, ids: Int[Array, "b l"]) -> Float[Array, "b k"]:
        """The place of texts in the shared space."""
        words = nn.relu(self.phrases(self.words(ids)))
        mask = (ids != PAD).astype(self.dtype)[..., None]
        total = jnp.maximum(mask.sum(axis=1), 1.0)
        return _unit(self.text((words * mask).sum(axis=1) / total))


def _unit(x: Float[Array, "b k"]) -> Float[Array, "b k"]:
    x = x.astype(jnp.float32)
    return x / jnp.sqrt((x * x).sum(axis=-1, keepdims=True) + 1e-6)
