"""The three encoders under T-VSL: image places, moments of sound and words as vectors of one space.

`SmallTrio` is our own, for the made world (trio_training.py trains it); `PublishedTrio` is AudioCLIP. Both give, not of
unit length and in float32,

    look    pictures -> [b, y, x, d]     listen    sound -> [b, a, d]     read    ids of texts -> [u, d]

and `scales`, what cosines are multiplied by. T-VSL keeps them frozen.
"""

import dataclasses
import math
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, UInt8

from ssu_jax.config.encoders.audioclip import VARIANTS
from ssu_jax.config.model import ModelConfig
from ssu_jax.config.tvsl import TVSLConfig
from ssu_jax.encoders import audioclip
from ssu_jax.encoders.clip import LOGIT_SCALE, CLIPText
from ssu_jax.encoders.clip_resnet import CLIPResNet
from ssu_jax.encoders.esresnet import SOUND_SCALE, ESResNeXt
from ssu_jax.layers import images
from ssu_jax.layers.convolution import ResidualBlock
from ssu_jax.models.ssuformer import backbones
from ssu_jax.tokenizer import PAD

FINEST, COARSEST = 1, 3  # stages of the visual encoder that the small trio's places are made of: strides 4 to 16
_SMALL_SCALE = math.log(10.0)


def make_trio(model: ModelConfig, config: TVSLConfig) -> nn.Module:
    """The encoders that a configuration asks for."""
    return (PublishedTrio if config.trio == "audioclip" else SmallTrio)(model, config)


class Scales(NamedTuple):
    """What the cosines of two modalities are multiplied by; float32 []."""

    image_text: Any
    sound_text: Any
    sound_image: Any


class SmallTrio(nn.Module):
    """Our design: SSUFormer's small encoders, and a bag of words.

    look: a place for every 4 x 4 pixels, from the maps at strides 4, 8 and 16. listen: a few moments a second of
    log-mel patches. read: the mean of the words' vectors through two layers.
    """

    model: ModelConfig
    config: TVSLConfig

    def setup(self):
        model, dtype = self.model, jnp.dtype(self.model.dtype)
        self.visual_encoder = backbones.visual_encoder(model.visual, dtype, model.scan_blocks)
        self.audio_encoder = backbones.audio_encoder(model.audio, model.width, dtype)
        self.places = Places(model.width, self.config.width, dtype)
        self.moments = nn.Dense(self.config.width, dtype=dtype)
        self.words = nn.Embed(model.vocab_size, model.width, dtype=dtype)
        self.text_hidden = nn.Dense(model.width, dtype=dtype)
        self.text = nn.Dense(self.config.width, dtype=dtype)
        names = ("image_text", "sound_text", "sound_image")
        self.logarithms = [self.param(name, nn.initializers.constant(_SMALL_SCALE), ()) for name in names]

    def look(self, pictures: UInt8[Array, "b y x 3"]) -> Float[Array, "b y4 x4 d"]:
        return self.places(self.visual_encoder(backbones.pictures_for(self.model.visual, pictures)))

    def listen(self, sound: Float[Array, "b t m f"]) -> Float[Array, "b a d"]:
        b, t = sound.shape[:2]
        x = self.moments(nn.gelu(self.audio_encoder(sound.reshape(b * t, *sound.shape[2:]))))
        return x.reshape(b, -1, x.shape[-1]).astype(jnp.float32)

    def read(self, ids: Int[Array, "u l"]) -> Float[Array, "u d"]:
        is_word = (ids != PAD).astype(jnp.float32)[..., None]
        mean = (self.words(ids) * is_word).sum(axis=1) / jnp.maximum(is_word.sum(axis=1), 1.0)
        return self.text(nn.gelu(self.text_hidden(mean))).astype(jnp.float32)

    def scales(self) -> Scales:
        return Scales(*map(audioclip.scale_of, self.logarithms))


class Places(nn.Module):
    """Maps at strides 4, 8 and 16 -> a vector of the shared space for each place of the finest."""

    hidden: int
    width: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, features: dict[str, Array]) -> Float[Array, "b y x d"]:
        x = jnp.zeros((), self.dtype)
        for stage in range(FINEST, COARSEST + 1):
            map_ = nn.Dense(self.hidden, dtype=self.dtype, name=f"stage_{stage}")(features[f"stage_{stage}"])
            times = 2 ** (stage - FINEST)
            x = x + jnp.repeat(jnp.repeat(map_, times, axis=1), times, axis=2)
        x = ResidualBlock(self.hidden, self.dtype, name="block")(
            nn.relu(nn.LayerNorm(dtype=self.dtype, name="norm")(x))
        )
        x = nn.relu(nn.LayerNorm(dtype=self.dtype, name="final_norm")(x))
        return nn.Dense(self.width, dtype=self.dtype, name="project")(x).astype(jnp.float32)


class PublishedTrio(nn.Module):
    """AudioCLIP's towers, under the names of its converted weights (encoders/audioclip.py).

    look: CLIP's attention pool at every place, one for 32 x 32 pixels. listen: every place of the spectrum's last map.
    `config.mode` "released" runs that pool as T-VSL's release does (CLIPResNet's `dense_positions`) and gives sound in
    [-1, 1] to an encoder that wants the range of 16-bit numbers; "corrected" gives it that.
    """

    model: ModelConfig
    config: TVSLConfig

    def setup(self):
        sizes, types = VARIANTS["audioclip"], {"dtype": jnp.dtype(self.model.dtype)}
        positions = "released" if self.config.mode == "released" else "grid"
        self.image = CLIPResNet(dataclasses.replace(sizes.image, dense_positions=positions), **types)
        self.text = CLIPText(sizes.text, **types)
        self.audio = ESResNeXt(sizes.audio, **types)
        log_largest = math.log(audioclip.LARGEST_SCALE)
        starts = {"logit_scale": LOGIT_SCALE, "logit_scale_at": log_largest, "logit_scale_ai": log_largest}
        self.logarithms = [self.param(name, nn.initializers.constant(start), ()) for name, start in starts.items()]

    def look(self, pictures: UInt8[Array, "b y x 3"]) -> Float[Array, "b y32 x32 d"]:
        return self.image(images.standardized(pictures, images.CLIP))["dense"].astype(jnp.float32)

    def listen(self, sound: Float[Array, "b n"]) -> Float[Array, "b a d"]:
        dense = self.audio(sound * (SOUND_SCALE if self.config.mode == "corrected" else 1.0))["dense"]
        return dense.reshape(len(dense), -1, dense.shape[-1]).astype(jnp.float32)

    def read(self, ids: Int[Array, "u l"]) -> Float[Array, "u d"]:
        return self.text(ids)["embedding"].astype(jnp.float32)

    def scales(self) -> Scales:
        return Scales(*map(audioclip.scale_of, self.logarithms))
