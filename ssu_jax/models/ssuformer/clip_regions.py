"""Mask collaboration with CLIP: what a published image encoder says of the region under the mask.

Two forms, one output:

* masked (the paper's figure): CLIP sees the frame multiplied by its mask. Each patch gives a token.
* pooled (after Osprey, arXiv 2312.10032): CLIP sees the whole frame. Its features of four depths, averaged under
  the mask, are summed to one token; a second one holds the outline of the mask.

The picture that CLIP sees carries no gradient to the mask (a backward pass through CLIP would cost twice its
forward one); the shares under the mask and what is averaged with them do. The region's place in CLIP's joint
space, for the consistency with the sentence (RCC), is the average of CLIP's dense features (MaskCLIP, arXiv
2112.01071) under the predicted mask, so its gradient moves the mask.
"""

from typing import Any

import einops
import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

from ssu_jax.config.model import ModelConfig
from ssu_jax.layers import embeddings, images
from ssu_jax.layers.transformer import FeedForwardBlock
from ssu_jax.models.ssuformer.mask_collaboration import Region, region_of

OUTLINE = 112  # pixels a side of the mask whose outline becomes a token (Osprey's)
NUM_LEVELS = 4


def clip_pictures(
    frames: UInt8[Array, "b y x 3"], masks: Float[Array, "b y x"], size: int, masked: bool
) -> Float[Array, "b size size 3"]:
    """What CLIP sees: the frames, black outside the mask if `masked`, at its size and in its colours."""
    pixels = images.resized(frames.astype(jnp.float32), size, size)
    if masked:
        pixels = pixels * images.resized(jax.lax.stop_gradient(masks)[..., None], size, size)
    return images.standardized(pixels, images.CLIP)


def levels_of(depth: int) -> tuple[int, ...]:
    """Blocks, from 0, after a quarter, a half, three quarters and all of the depth."""
    return tuple(sorted({max(depth * quarter // NUM_LEVELS, 1) - 1 for quarter in range(1, NUM_LEVELS + 1)}))


class CLIPRegions(nn.Module):
    """CLIP's features of b frames and their masks -> Region.

    features: "tokens" [b, n + 1, w] and "dense" [b, n, k], for the pooled form also "block_{i}" [b, n + 1, w].
    masks: what the words are written from. predicted: what RCC moves; the same but early in training.
    """

    config: ModelConfig
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, features: dict[str, Array], masks: Float[Array, "b y x"], predicted: Float[Array, "b y x"]
    ) -> Region:
        d = self.config.width
        rows = int((features["tokens"].shape[1] - 1) ** 0.5)
        share = share_of_patches(masks, rows)
        null = self.param("null", nn.initializers.normal(0.5), (d,)).astype(self.dtype)
        if self.config.region_encoder == "clip_pooled":
            tokens = self._pooled(features, masks, share)
            covered = (
                share.mean(axis=1, keepdims=True) * rows**2
            )  # in patches, as large regions weigh in the other form
            region = region_of(tokens, jnp.broadcast_to(jnp.minimum(covered, 1.0), (*tokens.shape[:2], 1)), null)
        else:
            region = region_of(self._patches(features["tokens"], rows), share, null)
        dense = features["dense"].astype(jnp.float32)
        return region._replace(embedding=unit(mean_under(share_of_patches(predicted, rows), dense)))

    def _patches(self, tokens: Float[Array, "b n1 w"], rows: int) -> Float[Array, "b n d"]:
        """A token for each patch; what the class token says of the whole is added to all."""
        d = self.config.width
        x = nn.Dense(d, dtype=self.dtype, name="look")(nn.LayerNorm(dtype=self.dtype, name="norm")(tokens))
        where = nn.Dense(d, dtype=self.dtype, name="where")(embeddings.grid(rows, rows, d).astype(self.dtype))
        x = x[:, 1:] + x[:, :1] + where[None]
        return FeedForwardBlock(d, int(d * self.config.mlp_ratio), self.dtype, name="region_encoder")(x)

    def _pooled(
        self, features: dict[str, Array], masks: Float[Array, "b y x"], share: Float[Array, "b n 1"]
    ) -> Float[Array, "b 2 d"]:
        d = self.config.width
        levels = sorted((name for name in features if name.startswith("block_")), key=lambda name: int(name[6:]))
        looks = [mean_under(share, features[name][:, 1:].astype(jnp.float32)) for name in levels]
        norms = [nn.LayerNorm(dtype=self.dtype, name=f"norm_{number}")(look) for number, look in enumerate(looks)]
        look = sum(nn.Dense(d, dtype=self.dtype, name=f"look_{number}")(x) for number, x in enumerate(norms))
        outline = images.resized(masks[..., None], OUTLINE, OUTLINE)
        outline = nn.Dense(d, dtype=self.dtype, name="outline")(outline.reshape(masks.shape[0], -1).astype(self.dtype))
        tokens = jnp.stack([look, outline], axis=1)
        return FeedForwardBlock(d, int(d * self.config.mlp_ratio), self.dtype, name="region_encoder")(tokens)


def share_of_patches(masks: Float[Array, "b y x"], rows: int) -> Float[Array, "b n 1"]:
    """Share of every patch of a rows x rows grid that lies under the mask."""
    if masks.shape[1] % rows:
        return images.resized(masks[..., None], rows, rows).reshape(masks.shape[0], -1, 1)
    cell = masks.shape[1] // rows
    return einops.reduce(masks, "b (y i) (x j) -> b (y x) 1", "mean", i=cell, j=cell)


def mean_under(share: Float[Array, "b n 1"], values: Float[Array, "b n k"]) -> Float[Array, "b k"]:
    """Mean of the patches, weighted by their share; near zero where the mask is empty."""
    return (values * share).sum(axis=1) / (share.sum(axis=1) + 1e-4)


def unit(x: Float[Array, "*b k"]) -> Float[Array, "*b k"]:
    """At unit length, float32; zero stays zero."""
    x = x.astype(jnp.float32)
    return x / jnp.sqrt((x * x).sum(axis=-1, keepdims=True) + 1e-6)
