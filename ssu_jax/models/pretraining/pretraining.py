"""Audio-visual pre-training: SSUFormer's two encoders, under the same names, and small parts on top for this alone.

    picture, sound                      -> encoders          -> similarity of every picture with every sound
    picture, sound with hidden squares  -> the same encoders -> what the hidden squares hold

Contrast and masked prediction together are those of CAV-MAE (arXiv 2210.07839), hidden squares and their form those of
MAE (arXiv 2111.06377). Our design: convolutional encoders see the hidden squares filled; the contrast sees whole
pictures; and a picture is as near to a sound as the nearest of its places is (as in arXiv 1712.06651), so that the
features say where the source is.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

from ssu_jax.config.model import ModelConfig
from ssu_jax.config.pretraining import PretrainingConfig
from ssu_jax.layers.transformer import FeedForward
from ssu_jax.models.pretraining import squares
from ssu_jax.models.ssuformer import backbones
from ssu_jax.models.ssuformer.clip_regions import unit
from ssu_jax.types import Batch

COLOURS = 3


class Views(NamedTuple):
    """What the model says of f = b t seconds."""

    similarity: Any  # float32 [f, f], picture by sound, over the temperature
    picture_squares: Any  # float32 [f, n, 768]
    picture_hidden: Any  # bool [f, n]
    sound_squares: Any  # float32 [f, 24, 256]
    sound_hidden: Any  # bool [f, 24]


class PreTraining(nn.Module):
    """Pictures and sound of b clips -> Views. Labels of the batch are not looked at."""

    config: ModelConfig
    options: PretrainingConfig

    def setup(self):
        config, options, dtype = self.config, self.options, jnp.dtype(self.config.dtype)
        self.visual_encoder = backbones.visual_encoder(config.visual, dtype, config.scan_blocks)
        self.audio_encoder = backbones.audio_encoder(config.audio, config.width, dtype)
        self.picture_places = PicturePlaces(options.width, dtype)
        self.picture_embedding = FeedForward(options.embedding_width, options.width, dtype)
        self.sound_embedding = FeedForward(options.embedding_width, options.width, dtype)
        self.picture_decoder = FeedForward(squares.SIDE**2 * COLOURS, options.width, dtype)
        self.sound_decoder = SoundDecoder(options.width, dtype)

    def __call__(self, batch: Batch, mask_mix: Any = 0.0, train: bool = False) -> Views:
        """`mask_mix` and `train` are what a step gives any model; the hidden squares come from its stream "mask"."""
        return self.views(batch.frames, batch.log_mel)

    def views(self, frames: UInt8[Array, "b t y x 3"], log_mel: Float[Array, "b t m f"]) -> Views:
        """Without a stream "mask" always the same squares are hidden."""
        key = self.make_rng("mask") if self.has_rng("mask") else jax.random.key(0)
        picture_key, sound_key = jax.random.split(key)
        pictures = backbones.pictures_for(self.config.visual, frames.reshape(-1, *frames.shape[2:]))
        sounds = log_mel.reshape(-1, *log_mel.shape[2:], 1)
        hidden = [
            squares.chosen(key, len(x), x.shape[1] * x.shape[2] // squares.SIDE**2, self.options.mask_share)
            for key, x in ((picture_key, pictures), (sound_key, sounds))
        ]
        places = self.picture_places(self.visual_encoder(squares.hide(pictures, hidden[0])))
        tokens = self.audio_encoder(squares.hide(sounds, hidden[1])[..., 0])
        return Views(
            self._similarity(pictures, sounds[..., 0]),
            self.picture_decoder(places).astype(jnp.float32),
            hidden[0],
            self.sound_decoder(tokens),
            hidden[1],
        )

    def _similarity(self, pictures: Float[Array, "f y x 3"], sounds: Float[Array, "f m b"]) -> Float[Array, "f f"]:
        seen = unit(self.picture_embedding(self.picture_places(self.visual_encoder(pictures))))
        heard = unit(self.sound_embedding(self.audio_encoder(sounds).mean(axis=1)))
        each = jnp.einsum("fnd,gd->fgn", seen, heard, preferred_element_type=jnp.float32)
        return each.max(axis=2) / self.options.temperature


class PicturePlaces(nn.Module):
    """The encoder's maps at strides 16 and 32 joined: a vector for each square of the picture, in row order."""

    width: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, features: dict[str, Array]) -> Float[Array, "f n d"]:
        fine, coarse = (nn.Dense(self.width, dtype=self.dtype, name=name)(features[stage])
                        for name, stage in (("fine", "stage_3"), ("coarse", "stage_4")))  # fmt: skip
        x = fine + jnp.repeat(jnp.repeat(coarse, 2, axis=1), 2, axis=2)
        return nn.LayerNorm(dtype=self.dtype, name="norm")(x.reshape(len(x), -1, self.width))


class SoundDecoder(nn.Module):
    """Tokens along the time of a patch -> its 6 x 4 squares: the token of that time, and which band is asked for."""

    width: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, tokens: Float[Array, "f a d"], times: int = 6, bands: int = 4) -> Float[Array, "f 24 256"]:
        x = nn.Dense(self.width, dtype=self.dtype, name="project")(tokens)
        x = jax.image.resize(x, (len(x), times, self.width), "linear")[:, :, None]
        band = self.param("band", nn.initializers.normal(1.0), (bands, self.width)).astype(self.dtype)
        x = nn.LayerNorm(dtype=self.dtype, name="norm")(x + band[None, None]).reshape(len(x), -1, self.width)
        return FeedForward(squares.SIDE**2, self.width, self.dtype, name="feed")(x).astype(jnp.float32)
