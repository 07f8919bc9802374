"""A small residual pyramid: four feature maps at strides 4, 8, 16 and 32 (our design, for `nano`)."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from ssu_jax.config.model import VisualEncoderConfig
from ssu_jax.layers.convolution import ResidualBlock, merge_patches


class PyramidEncoder(nn.Module):
    """Convolutions with layer norm over channels: no statistics over the batch, so frames stay independent.

    Returns "stem" [b, y / 2, x / 2, c0], for sharp outlines, and "stage_1" ... "stage_4" [b, y / s, x / s, c] with
    s = 4, 8, 16, 32.
    """

    config: VisualEncoderConfig
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, frames: Float[Array, "b y x 3"]) -> dict[str, Array]:
        config = self.config
        x = nn.Conv(config.stem_width, (3, 3), strides=(2, 2), dtype=self.dtype, name="stem")(frames.astype(self.dtype))
        features = {"stem": x}
        for stage, (width, depth) in enumerate(zip(config.widths, config.depths, strict=True)):
            x = nn.relu(x if stage == 0 else nn.LayerNorm(dtype=self.dtype, name=f"norm_{stage}")(x))
            x = nn.Dense(width, dtype=self.dtype, name=f"merge_{stage}")(merge_patches(x, 2))
            for block in range(depth):
                x = ResidualBlock(width, self.dtype, name=f"stage_{stage}_block_{block}")(x)
            features[f"stage_{stage + 1}"] = x
        return features
