"""The encoders that a configuration asks for, and the colours each of them wants."""

from typing import Any

import flax.linen as nn
from jaxtyping import Array, Float, UInt8

from ssu_jax.config.encoders import pvt_v2 as pvt_v2_sizes
from ssu_jax.config.encoders import vggish as vggish_sizes
from ssu_jax.config.model import AudioEncoderConfig, VisualEncoderConfig
from ssu_jax.encoders.audio_patches import AudioPatchEncoder
from ssu_jax.encoders.pvt_v2 import PVTv2
from ssu_jax.encoders.pyramid import PyramidEncoder
from ssu_jax.encoders.vggish import VGGish
from ssu_jax.layers import images

COLOURS = {"pyramid": images.CENTRED, "pvt_v2": images.IMAGENET}


def visual_encoder(config: VisualEncoderConfig, dtype: Any, scan: bool = False) -> nn.Module:
    """Pictures -> "stage_1" ... "stage_4" at strides 4 to 32, and what else the encoder gives."""
    if config.kind == "pvt_v2":
        return PVTv2(pvt_v2_sizes.VARIANTS[config.variant], dtype, remat=config.remat, scan=scan)
    return PyramidEncoder(config, dtype)


def pictures_for(config: VisualEncoderConfig, frames: UInt8[Array, "b y x 3"]) -> Float[Array, "b y x 3"]:
    """Frames in the colours that the visual encoder was trained on."""
    return images.standardized(frames, COLOURS[config.kind])


def audio_encoder(config: AudioEncoderConfig, width: int, dtype: Any) -> nn.Module:
    """Log-mel patches [b, m, f] -> tokens [b, a, d]."""
    if config.kind == "vggish":
        return VGGishTokens(config, width, dtype)
    return AudioPatchEncoder(config, width, dtype)


class VGGishTokens(nn.Module):
    """VGGish's embedding of a patch, projected: one token a second."""

    config: AudioEncoderConfig
    width: int
    dtype: Any

    @nn.compact
    def __call__(self, log_mel: Float[Array, "b m f"]) -> Float[Array, "b 1 d"]:
        vggish = VGGish(vggish_sizes.VARIANTS[self.config.variant], self.dtype, name="vggish")
        embedding = vggish(log_mel)["embedding"]
        x = nn.LayerNorm(dtype=self.dtype, name="norm")(embedding)
        return nn.Dense(self.width, dtype=self.dtype, name="project")(x)[:, None]
