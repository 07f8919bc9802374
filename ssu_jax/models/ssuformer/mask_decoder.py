"""Mask decoder, MaskFormer-style: mask embeddings of the fused queries times upsampled pixel features."""

from typing import Any

import einops
import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ssu_jax.config.model import ModelConfig
from ssu_jax.layers.convolution import merge_patches

STRIDE = 4  # of the pixel features


class PixelDecoder(nn.Module):
    """Top-down path from the fused visual tokens to stride 4 (the figure's "reshape & upsample")."""

    config: ModelConfig
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, features: dict[str, Array], fused: Float[Array, "b n d"]) -> Float[Array, "b y4 x4 c"]:
        width = self.config.pixel_width
        rows, columns = features["stage_4"].shape[1:3]
        x = _project(width, self.dtype, "top")(fused.reshape(fused.shape[0], rows, columns, -1))
        x = x + _project(width, self.dtype, "lateral_3")(features["stage_4"])
        for level in (2, 1, 0):
            x = _double(x) + _project(width, self.dtype, f"lateral_{level}")(features[f"stage_{level + 1}"])
            if level == 0 and "stem" in features:  # outlines finer than the stride, as channels
                x = x + _project(width, self.dtype, "outlines")(merge_patches(features["stem"], 2))
            elif level:
                x = nn.LayerNorm(dtype=self.dtype, name=f"norm_{level}")(x)
            if level < 2:
                x = nn.Conv(width, (3, 3), dtype=self.dtype, name=f"smooth_{level}")(nn.relu(x))
        return nn.relu(x)


class MaskHead(nn.Module):
    """Union of the queries' masks: a smooth maximum over the products query x pixel (single-mask form).

    A query writes one embedding for each of the 4 x 4 sub-pixels of a position, so that the product is at full
    resolution at the cost of stride 4 (our design). In silence every product is below zero.
    """

    config: ModelConfig
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, pixels: Float[Array, "b y4 x4 c"], queries: Float[Array, "b q d"]) -> Float[Array, "b y x"]:
        width, q = pixels.shape[-1], queries.shape[1]
        hidden = nn.relu(nn.Dense(self.config.width, dtype=self.dtype, name="hidden")(queries))
        embedding = nn.Dense(STRIDE**2 * (width + 1), dtype=self.dtype, name="embedding")(hidden)
        embedding = embedding.reshape(-1, q * STRIDE**2, width + 1)
        # Most pixels are silent: start there.
        bias = embedding[:, None, None, :, width].astype(jnp.float32) - 2.0
        logits = jnp.einsum("byxc,bqc->byxq", pixels, embedding[..., :width]).astype(jnp.float32) * width**-0.5
        logits = (logits + bias).reshape(*logits.shape[:-1], q, STRIDE**2)
        union = jax.nn.logsumexp(logits, axis=-2)
        return einops.rearrange(union, "b y x (i j) -> b (y i) (x j)", i=STRIDE)


def _project(width: int, dtype: Any, name: str) -> nn.Dense:
    return nn.Dense(width, dtype=dtype, name=name)


def _double(x: Float[Array, "b y x c"]) -> Float[Array, "b y2 x2 c"]:
    return jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
