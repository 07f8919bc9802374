"""Audio-visual pre-training: SSUFormer's two encoders, under the same names, and small parts on top for this alone.

    the loudest second of a clip, whole          -> encoders          -> similarity of every picture with every sound
    another second of it, with hidden squares    -> the same encoders -> what the hidden squares hold

Contrast and masked prediction together are those of CAV-MAE (arXiv 2210.07839), hidden squares and their form those of
MAE (arXiv 2111.06377). Our design:

- One second of a clip is contrasted, its loudest: where nothing sounds there is nothing to find in the picture, and the
  seconds of one clip, near-duplicates, never stand against each other. A step costs the same however long clips are.
- Convolutional encoders see the hidden squares filled, and the contrast sees whole pictures.
- A picture is as near to a sound as its nearest places are (a smooth maximum; arXiv 1712.06651 takes the maximum).
- Embeddings are centred over the batch: else all of them soon point one way, and it takes long to come back from there.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Shaped, UInt8

from ssu_jax.config.model import ModelConfig
from ssu_jax.config.pretraining import PretrainingConfig
from ssu_jax.models.pretraining import squares
from ssu_jax.models.ssuformer import backbones
from ssu_jax.models.ssuformer.clip_regions import unit
from ssu_jax.types import Batch

COLOURS = 3
_AUDIBLE = 1e-3  # least range of a log-mel patch that holds any sound


class Hidden(NamedTuple):
    """Squares that were hidden, and what the decoder says of all squares."""

    hidden: Any  # bool [b, n]
    predicted: Any  # float32 [b, n, k]
    wanted: Any  # float32 [b, n, k]


class Views(NamedTuple):
    """What the model says of b clips, and what it should have said."""

    similarity: Any  # float32 [b, b], picture by sound, over the temperature
    paired: Any  # bool [b]: the clip has a second with sound
    pictures: Any  # Hidden, k = 768
    sounds: Any  # Hidden, n = 24, k = 256
    valid: Any  # bool [b]: the clip has a second


class PreTraining(nn.Module):
    """Pictures and sound of b clips -> Views. Labels of the batch are not looked at."""

    config: ModelConfig
    options: PretrainingConfig

    def setup(self):
        config, options, dtype = self.config, self.options, jnp.dtype(self.config.dtype)
        self.visual_encoder = backbones.visual_encoder(config.visual, dtype, config.scan_blocks)
        self.audio_encoder = backbones.audio_encoder(config.audio, config.width, dtype)
        self.picture_places = PicturePlaces(options.width, dtype)
        self.picture_embedding = Head(options.embedding_width, options.width, dtype)
        self.sound_embedding = Head(options.embedding_width, options.width, dtype)
        self.picture_decoder = Head(squares.SIDE**2 * COLOURS, options.width, dtype)
        self.sound_decoder = SoundDecoder(options.width, dtype)

    def __call__(self, batch: Batch, mask_mix: Any = 0.0, train: bool = False) -> Views:
        """`mask_mix` and `train` are what a step gives any model; what is hidden comes from its stream "mask"."""
        return self.views(batch.frames, batch.log_mel, batch.frame_valid)

    def views(
        self, frames: UInt8[Array, "b t y x 3"], log_mel: Float[Array, "b t m f"], frame_valid: Bool[Array, "b t"]
    ) -> Views:
        """Without a stream "mask" the same seconds and squares are always taken."""
        key = self.make_rng("mask") if self.has_rng("mask") else jax.random.key(0)
        keys = jax.random.split(key, 3)
        loudest = jnp.where(frame_valid, log_mel.mean(axis=(2, 3)), -jnp.inf).argmax(axis=1)
        drawn = jnp.where(frame_valid, jax.random.uniform(keys[0], frame_valid.shape), -1.0).argmax(axis=1)
        pictures, sounds = self._pictures(_second(frames, loudest)), _second(log_mel, loudest)
        valid = frame_valid.any(axis=1)
        paired = valid & (sounds.max(axis=(1, 2)) - sounds.min(axis=(1, 2)) > _AUDIBLE)
        return Views(
            self._similarity(pictures, sounds, paired),
            paired,
            self._hidden_pictures(_second(frames, drawn), keys[1]),
            self._hidden_sounds(_second(log_mel, drawn), keys[2]),
            valid,
        )

    def _pictures(self, frames: UInt8[Array, "b y x 3"]) -> Float[Array, "b y x 3"]:
        return backbones.pictures_for(self.config.visual, frames)

    def _similarity(
        self, pictures: Float[Array, "b y x 3"], sounds: Float[Array, "b m f"], paired: Bool[Array, "b"]
    ) -> Float[Array, "b b"]:
        seen = self.picture_embedding(self.picture_places(self.visual_encoder(pictures)))
        heard = self.sound_embedding(self.audio_encoder(sounds).mean(axis=1))[:, None]
        seen, heard = (unit(_centred(x.astype(jnp.float32), paired)) for x in (seen, heard))
        places = jnp.einsum("bnd,cd->bcn", seen, heard[:, 0]) / self.options.temperature
        return jax.nn.logsumexp(places, axis=2) - jnp.log(places.shape[2])

    def _hidden_pictures(self, frames: UInt8[Array, "b y x 3"], key: Any) -> Hidden:
        x = self._pictures(frames)
        hidden = self._chosen(x, key)
        predicted = self.picture_decoder(self.picture_places(self.visual_encoder(squares.hide(x, hidden))))
        return Hidden(hidden, predicted.astype(jnp.float32), squares.targets(frames.astype(jnp.float32) / 255.0))

    def _hidden_sounds(self, log_mel: Float[Array, "b m f"], key: Any) -> Hidden:
        x = log_mel[..., None]
        hidden = self._chosen(x, key)
        predicted = self.sound_decoder(self.audio_encoder(squares.hide(x, hidden)[..., 0]))
        return Hidden(hidden, predicted, squares.targets(x / 4.0))  # about as wide as [0, 1], as pixels are

    def _chosen(self, x: Float[Array, "b y x c"], key: Any) -> Bool[Array, "b n"]:
        return squares.chosen(key, len(x), x.shape[1] * x.shape[2] // squares.SIDE**2, self.options.mask_share)


def _second(x: Shaped[Array, "b t ..."], second: Int[Array, "b"]) -> Shaped[Array, "b ..."]:
    """Of every clip the row of one second."""
    return jnp.take_along_axis(x, second.reshape(-1, *[1] * (x.ndim - 1)), axis=1)[:, 0]


def _centred(x: Float[Array, "b n d"], counts: Bool[Array, "b"]) -> Float[Array, "b n d"]:
    """Less the mean, place by place, over those clips that count: what all pictures have there is gone."""
    weight = counts.astype(x.dtype)[:, None, None]
    return x - (x * weight).sum(axis=0, keepdims=True) / jnp.maximum(weight.sum(), 1.0)


class Head(nn.Module):
    """Dense, GELU, dense."""

    out: int
    hidden: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "... d"]) -> Float[Array, "... k"]:
        return nn.Dense(self.out, dtype=self.dtype)(nn.gelu(nn.Dense(self.hidden, dtype=self.dtype)(x)))


class PicturePlaces(nn.Module):
    """The encoder's maps at strides 16 and 32 joined: a vector for each square of the picture, in row order."""

    width: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, features: dict[str, Array]) -> Float[Array, "b n d"]:
        fine, coarse = (nn.Dense(self.width, dtype=self.dtype, name=name)(features[stage])
                        for name, stage in (("fine", "stage_3"), ("coarse", "stage_4")))  # fmt: skip
        x = fine + jnp.repeat(jnp.repeat(coarse, 2, axis=1), 2, axis=2)
        return nn.LayerNorm(dtype=self.dtype, name="norm")(x.reshape(len(x), -1, self.width))


class SoundDecoder(nn.Module):
    """Tokens along the time of a patch -> its 6 x 4 squares: the token of that time, and which band is asked for."""

    width: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, tokens: Float[Array, "b a d"], times: int = 6, bands: int = 4) -> Float[Array, "b 24 256"]:
        x = nn.Dense(self.width, dtype=self.dtype, name="project")(tokens)
        x = jax.image.resize(x, (len(x), times, self.width), "linear")[:, :, None]
        band = self.param("band", nn.initializers.normal(1.0), (bands, self.width)).astype(self.dtype)
        x = nn.LayerNorm(dtype=self.dtype, name="norm")(x + band[None, None]).reshape(len(x), -1, self.width)
        return Head(squares.SIDE**2, self.width, self.dtype, name="feed")(x).astype(jnp.float32)
