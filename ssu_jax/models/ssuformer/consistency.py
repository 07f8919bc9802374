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

    @nn.compact
    def __call__(
        self, region: Float[Array, "b d"], ids: Int[Array, "b l"]
    ) -> tuple[Float[Array, "b k"], Float[Array, "b k"], Float[Array, ""]]:
        width = self.config.embedding_width
        seen = nn.Dense(width, dtype=self.dtype, name="region")(region)
        words = nn.Embed(self.config.vocab_size, 2 * width, dtype=self.dtype, name="words")(ids)
        # Words are paired with their neighbours, so that "red bell" differs from "bell ... red".
        words = nn.relu(nn.Conv(2 * width, (3,), dtype=self.dtype, name="phrases")(words))
        mask = (ids != PAD).astype(self.dtype)[..., None]
        total = jnp.maximum(mask.sum(axis=1), 1.0)
        written = nn.Dense(width, dtype=self.dtype, name="text")((words * mask).sum(axis=1) / total)
        scale = self.param("log_scale", nn.initializers.constant(2.3), ())
        return _unit(seen), _unit(written), jnp.exp(jnp.minimum(scale, 4.6))


def _unit(x: Float[Array, "b k"]) -> Float[Array, "b k"]:
    x = x.astype(jnp.float32)
    return x / jnp.sqrt((x * x).sum(axis=-1, keepdims=True) + 1e-6)
