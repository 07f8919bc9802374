"""Mask decoder, MaskFormer-style: mask embeddings of the fused queries times upsampled pixel features."""

from typing import Any, NamedTuple

import einops
import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ssu_jax.config.model import ModelConfig
from ssu_jax.encoders.pyramid import Features


class PixelFeatures(NamedTuple):
    """What the mask decoder sees of a frame, and what MCM pools under the mask."""

    quarter: Any  # [b, y / 4, x / 4, c]
    half: Any  # [b, y / 2, x / 2, c]


class PixelDecoder(nn.Module):
    """Top-down path from the fused visual tokens to stride 2 (the figure's "reshape & upsample")."""

    config: ModelConfig
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, features: Features, fused: Float[Array, "b n d"]) -> PixelFeatures:
        width = self.config.pixel_width
        rows, columns = features.maps[-1].shape[1:3]
        x = _project(width, self.dtype, "top")(fused.reshape(fused.shape[0], rows, columns, -1))
        x = x + _project(width, self.dtype, "lateral_3")(features.maps[3])
        for level in (2, 1, 0):
            x = _double(x) + _project(width, self.dtype, f"lateral_{level}")(features.maps[level])
            x = nn.relu(nn.LayerNorm(dtype=self.dtype, name=f"norm_{level}")(x))
            if level < 2:
                x = nn.Conv(width, (3, 3), dtype=self.dtype, name=f"smooth_{level}")(x)
        # Four sub-pixels a cell cost a fraction of a convolution at stride 2; the stem adds the outlines.
        fine = width // 2
        half = einops.rearrange(
            _project(4 * fine, self.dtype, "sub_pixels")(nn.relu(x)), "b y x (i j c) -> b (y i) (x j) c", i=2, j=2
        )
        return PixelFeatures(x, nn.relu(half + _project(fine, self.dtype, "outlines")(features.stem)))


class MaskHead(nn.Module):
    """Union of the queries' masks: a smooth maximum over the products query x pixel.

    Single-mask form; frames without sound push every product below zero.
    """

    config: ModelConfig
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, pixels: PixelFeatures, queries: Float[Array, "b q d"], size: int) -> Float[Array, "b y x"]:
        width = pixels.half.shape[-1]
        hidden = nn.relu(nn.Dense(self.config.width, dtype=self.dtype, name="hidden")(queries))
        embedding = nn.Dense(width + 1, dtype=self.dtype, name="embedding")(hidden)
        # Most pixels are silent: start there.
        bias = embedding[:, None, None, :, width].astype(jnp.float32) - 2.0
        logits = jnp.einsum("byxc,bqc->byxq", pixels.half, embedding[..., :width]).astype(jnp.float32)
        union = jax.nn.logsumexp(logits * width**-0.5 + bias, axis=-1)
        return jax.image.resize(union, (union.shape[0], size, size), "bilinear")


def _project(width: int, dtype: Any, name: str) -> nn.Dense:
    return nn.Dense(width, dtype=dtype, name=name)


def _double(x: Float[Array, "b y x c"]) -> Float[Array, "b y2 x2 c"]:
    return jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
