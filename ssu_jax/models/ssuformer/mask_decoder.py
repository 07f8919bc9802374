"""Mask decoder, MaskFormer-style: mask embeddings of the fused queries times upsampled pixel features.

Two forms of one interface. *Single*: the queries together draw one mask a frame. *Multi* (arXiv 2107.06278,
2112.01527): every query names a class, or "no object", and draws its own mask; the frame's mask is derived.
"""

from typing import Any, NamedTuple

import einops
import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ssu_jax.config.model import ModelConfig
from ssu_jax.layers import images
from ssu_jax.layers.convolution import merge_patches

STRIDE = 4  # of the pixel features
SURE = -1e-6  # largest log-probability of a pixel: its logit stays finite, below 13.9


class Masks(NamedTuple):
    """Masks of b frames. A single-mask head knows no queries."""

    union: Any  # float32 [b, y, x], logits: all that sounds
    class_logits: Any = None  # float32 [b, q, u + 1], "no object" last
    mask_logits: Any = None  # float32 [b, q, y / 4, x / 4]


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
    def __call__(self, pixels: Float[Array, "b y4 x4 c"], queries: Float[Array, "b q d"]) -> Masks:
        width, q = pixels.shape[-1], queries.shape[1]
        hidden = nn.relu(nn.Dense(self.config.width, dtype=self.dtype, name="hidden")(queries))
        embedding = nn.Dense(STRIDE**2 * (width + 1), dtype=self.dtype, name="embedding")(hidden)
        embedding = embedding.reshape(-1, q * STRIDE**2, width + 1)
        # Most pixels are silent: start there.
        bias = embedding[:, None, None, :, width].astype(jnp.float32) - 2.0
        logits = jnp.einsum("byxc,bqc->byxq", pixels, embedding[..., :width]).astype(jnp.float32) * width**-0.5
        logits = (logits + bias).reshape(*logits.shape[:-1], q, STRIDE**2)
        union = jax.nn.logsumexp(logits, axis=-2)
        return Masks(einops.rearrange(union, "b y x (i j) -> b (y i) (x j)", i=STRIDE))


class QueryMaskHead(nn.Module):
    """A class and a mask at stride 4 for every query (multi-mask form), and the union at full resolution."""

    config: ModelConfig
    num_classes: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, pixels: Float[Array, "b y4 x4 c"], queries: Float[Array, "b q d"]) -> Masks:
        width = pixels.shape[-1]
        queries = nn.LayerNorm(dtype=self.dtype, name="norm")(queries)
        # In float32, as every class head is: a small part of the work.
        class_logits = nn.Dense(self.num_classes + 1, name="classes")(queries.astype(jnp.float32))
        hidden = nn.relu(nn.Dense(self.config.width, dtype=self.dtype, name="hidden_0")(queries))
        hidden = nn.relu(nn.Dense(self.config.width, dtype=self.dtype, name="hidden_1")(hidden))
        embedding = nn.Dense(width + 1, dtype=self.dtype, name="embedding")(hidden)
        logits = jnp.einsum("byxc,bqc->bqyx", pixels, embedding[..., :width]).astype(jnp.float32) * width**-0.5
        # Most pixels are silent: start there.
        logits = logits + embedding[..., width, None, None].astype(jnp.float32) - 2.0
        union = union_of(class_logits, logits)[..., None]
        full = images.resized(union, STRIDE * union.shape[1], STRIDE * union.shape[2])
        return Masks(full[..., 0], class_logits, logits)


def union_of(class_logits: Float[Array, "b q u1"], mask_logits: Float[Array, "b q y4 x4"]) -> Float[Array, "b y4 x4"]:
    """Logit of max over the queries of p(any class but "no object") sigmoid(mask).

    The maximum, and not 1 - prod(1 - p): the set loss wants one query a source and tells the others to find no
    object, so covers are not independent, and a hundred queries at 1 % each would add up to a mask.
    """
    log_object = jax.nn.logsumexp(class_logits[..., :-1], axis=-1) - jax.nn.logsumexp(class_logits, axis=-1)
    covered = (log_object[..., None, None] + jax.nn.log_sigmoid(mask_logits)).max(axis=1)
    covered = jnp.minimum(covered, SURE)
    return covered - jnp.log(-jnp.expm1(covered))


def _project(width: int, dtype: Any, name: str) -> nn.Dense:
    return nn.Dense(width, dtype=dtype, name=name)


def _double(x: Float[Array, "b y x c"]) -> Float[Array, "b y2 x2 c"]:
    return jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
