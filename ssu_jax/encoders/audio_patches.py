"""A small convolution stack on log-mel patches: VGGish's part at `nano` size (our design)."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from ssu_jax.config.model import AudioEncoderConfig
from ssu_jax.layers.convolution import ResidualBlock, merge_patches


class AudioPatchEncoder(nn.Module):
    """One 0.96 s patch -> a few tokens along its time; mel bands are folded into the channels at the end.

    Folding keeps pitch apart from timbre, which an average over the bands would lose.
    """

    config: AudioEncoderConfig
    width: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, log_mel: Float[Array, "b m f"]) -> Float[Array, "b a d"]:
        # The log of the offset (0.01) is -4.6 and loud sound reaches about 3: bring that near [-1, 1].
        x = ((log_mel + 1.0) / 4.0)[..., None].astype(self.dtype)
        for stage, width in enumerate(self.config.widths):
            x = merge_patches(x, 4 if stage == 0 else 2)
            x = nn.Dense(width, dtype=self.dtype, name=f"merge_{stage}")(x)
            x = ResidualBlock(width, self.dtype, name=f"stage_{stage}")(x)
        x = nn.relu(nn.LayerNorm(dtype=self.dtype, name="norm")(x))
        x = x.reshape(*x.shape[:2], -1)
        return nn.Dense(self.width, dtype=self.dtype, name="project")(x)
