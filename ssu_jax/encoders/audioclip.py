"""AudioCLIP: images, texts and sounds in one space (Guzhov et al. 2021, arXiv 2106.13043), as published."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ssu_jax.config.encoders.audioclip import AudioCLIPConfig
from ssu_jax.encoders.clip import LOGIT_SCALE, CLIPText
from ssu_jax.encoders.clip_resnet import CLIPResNet
from ssu_jax.encoders.esresnet import ESResNeXt

TOWERS = {"image": CLIPResNet, "text": CLIPText, "audio": ESResNeXt}
LARGEST_SCALE = 100.0


class AudioCLIP(nn.Module):
    """All three towers: parameters {"image", "text", "audio"} of the towers, and three scales, which are logarithms.

    Features of the towers have their names behind "image_", "text_" and "audio_". "logits_image_text",
    "logits_audio_image" and "logits_audio_text" [rows of the first, rows of the second] are cosines times
    `scale_of` "logit_scale", "logit_scale_ai" and "logit_scale_at".
    """

    config: AudioCLIPConfig
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32
    remat: bool = False

    @nn.compact
    def __call__(
        self, images: Float[Array, "b1 y x 3"], ids: Int[Array, "b2 l"], sound: Float[Array, "b3 n"]
    ) -> dict[str, Array]:
        settings, features, units = (self.dtype, self.param_dtype, self.remat), {}, {}
        for (name, tower), given in zip(TOWERS.items(), (images, ids, sound), strict=True):
            found = tower(getattr(self.config, name), *settings, name=name)(given)
            features |= {f"{name}_{key}": value for key, value in found.items()}
            embedding = found["embedding"].astype(jnp.float32)
            units[name] = embedding / jnp.linalg.norm(embedding, axis=-1, keepdims=True)
        initial = {"logit_scale": LOGIT_SCALE, "logit_scale_ai": np.log(LARGEST_SCALE)}
        initial["logit_scale_at"] = initial["logit_scale_ai"]
        pairs = (("image", "text"), ("audio", "image"), ("audio", "text"))
        for (one, other), (name, start) in zip(pairs, initial.items(), strict=True):
            scale = self.param(name, nn.initializers.constant(start), (), self.param_dtype)
            features[f"logits_{one}_{other}"] = scale_of(scale) * (units[one] @ units[other].T)
        return features


def scale_of(logarithm: Float[Array, ""]) -> Float[Array, ""]:
    """What cosines are multiplied by: exp, kept between 1 and 100; float32."""
    return jnp.clip(jnp.exp(logarithm.astype(jnp.float32)), 1.0, LARGEST_SCALE)
