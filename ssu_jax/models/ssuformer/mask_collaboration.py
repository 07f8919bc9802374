"""Mask collaboration module (MCM): predicted masks on the frames -> region tokens for the text decoder.

At the paper's size a CLIP encoder sees the masked frame (clip_regions.py); here a small one, trained along,
pools colour and pixel features under the mask in every cell of a grid. A token knows where its cell is and how
much of it sounds; the cells with the largest share become tokens, and what lies outside the mask is as good as
invisible to the decoder through the attention bias.
"""

from typing import Any, NamedTuple

import einops
import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ssu_jax.config.model import ModelConfig
from ssu_jax.layers import embeddings
from ssu_jax.layers.transformer import FeedForwardBlock

CELL = 8  # pixels a side of a region cell
EPSILON = 1e-4  # share of a cell; below it a cell counts as outside the mask


class Region(NamedTuple):
    """What MCM knows of the masked region of a frame."""

    tokens: Any  # [b, r + 1, d], the null token last
    bias: Any  # float32 [b, r + 1]: log share of the cell under the mask; 0 for the null token
    summary: Any  # [b, d]: mean over the region; the null token where the mask is empty
    embedding: Any = None  # float32 [b, k], unit length: the region in CLIP's space, where CLIP looks at it


class MaskCollaboration(nn.Module):
    """Frames, pixel features and masks of b frames -> Region."""

    config: ModelConfig
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        frames: Float[Array, "b y x 3"],
        features: Float[Array, "b y4 x4 c"],
        masks: Float[Array, "b y x"],
    ) -> Region:
        d, rows = self.config.width, frames.shape[1] // CELL
        share = _cell_mean(masks[..., None], CELL)  # [b, n, 1]
        looks = [_pooled_under(masks, frames, CELL), _pooled_under(_shrink(masks), features, CELL // 4), share]
        where = jnp.broadcast_to(embeddings.grid(rows, rows, d)[None], (share.shape[0], rows * rows, d))
        # Few cells lie under a mask: the rest would cost as much and say nothing.
        count = min(self.config.region_tokens, rows * rows)
        chosen = jax.lax.top_k(jax.lax.stop_gradient(share[..., 0]), count)[1][..., None]
        looks, where, share = (
            jnp.take_along_axis(x, chosen, axis=1) for x in (jnp.concatenate(looks, axis=-1), where, share)
        )
        tokens = nn.Dense(d, dtype=self.dtype, name="look")(looks.astype(self.dtype))
        tokens = tokens + nn.Dense(d, dtype=self.dtype, name="where")(where.astype(self.dtype))
        tokens = FeedForwardBlock(d, int(d * self.config.mlp_ratio), self.dtype, name="region_encoder")(tokens)
        null = self.param("null", nn.initializers.normal(0.5), (d,)).astype(self.dtype)
        return region_of(tokens, share, null)


def region_of(tokens: Float[Array, "b n d"], share: Float[Array, "b n 1"], null: Float[Array, "d"]) -> Region:
    """Tokens of cells, each with the share of its cell that sounds, and the null token behind them."""
    summary = _mean_or_null(tokens, share, null)
    tokens = jnp.concatenate([tokens, jnp.broadcast_to(null, (tokens.shape[0], 1, null.shape[0]))], axis=1)
    bias = jnp.log(jnp.concatenate([share[..., 0], jnp.ones_like(share[:, :1, 0])], axis=1) + EPSILON)
    return Region(tokens, bias, summary)


def _shrink(masks: Float[Array, "b y x"]) -> Float[Array, "b y4 x4"]:
    return einops.reduce(masks, "b (y i) (x j) -> b y x", "mean", i=4, j=4)


def _cell_mean(values: Float[Array, "b y x c"], cell: int) -> Float[Array, "b n c"]:
    return einops.reduce(values, "b (y i) (x j) c -> b (y x) c", "mean", i=cell, j=cell)


def _pooled_under(masks: Float[Array, "b y x"], values: Float[Array, "b y x c"], cell: int) -> Float[Array, "b n c"]:
    """Mean of `values` in each cell, weighted by the mask; near zero where the mask is empty."""
    weights = masks[..., None]
    return _cell_mean(values.astype(jnp.float32) * weights, cell) / (_cell_mean(weights, cell) + EPSILON)


def _mean_or_null(
    tokens: Float[Array, "b n d"], share: Float[Array, "b n 1"], null: Float[Array, "d"]
) -> Float[Array, "b d"]:
    weight = share.sum(axis=1)
    total = (tokens * share.astype(tokens.dtype)).sum(axis=1).astype(jnp.float32)
    null_weight = 0.1  # cells; a region smaller than that is mostly null
    mean = (total + null_weight * null.astype(jnp.float32)[None]) / (weight + null_weight)
    return mean.astype(tokens.dtype)
