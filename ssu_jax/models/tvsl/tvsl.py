"""T-VSL (arXiv 2404.01751): from pictures and a mixture of sounds, for each word a heat map of what makes its sound.

    words --------------------+-----------------------+
    picture -trio-> places ---+-> those of the word --+-> mean -> P_vc, which class is it?
    sound --trio-> moments ---+-> those of the word --+-> mean -> P_ac, which class is it?
                                  heat = places of the word, seen by P_va, against the sound of the word, by P_av
    detection: does the word sound?  means, seen by P_v and P_a, fused, against the word

The trio is frozen; six projections and the fusion learn (33.58 M numbers at AudioCLIP's width of 1024). A projection is
w x + (1 - w) MLP(x) with a learned w that begins at 1, so that training begins with what the trio knows.

Two modes. "released" is what the public code does, from the facts that are known of it:

1. AudioCLIP hears sound in [-1, 1], 90 dB below what it was trained on; its dense positions are stretched (trio.py).
2. A word guides by s = cos(place, word), divided by its L2 norm over the places, as a factor of the places. Means are
   over all places. Where s is negative a place is turned around, and the length it is given is lost again in the
   cosine with the query.
3. One fused vector of the unguided means is compared with all words: scale x cos, the scale learned from 100 on.
4. In the contrast all other pairs of the batch are rivals, those of the same class too.
5. The heat map is scaled to [0, 1] and inverted: 1 - x.
6. Words are the true classes; nothing says whether a word sounds at all.
7. MUSIC's boxes are read as corners, training pictures are enlarged, cut and mirrored (data/mixtures.py); maps are
   enlarged bicubically and cut at 0.3, and the mean overlap is called CIoU (localization.py).

"corrected" is our design where it differs:

1. Sound comes in the range the encoder knows, positions as a grid.
2. Means are weighted by softmax(scale cos(place, word)), so that a small object is not lost among all places. In the
   heat map a place counts by max(cos(place, word), 0) times its cosine with the query.
3. Detection looks at the guided means of each word. The fusion is blended like the projections (its first half stays
   the picture, the second the sound), and a threshold is learned: words that training never had work too.
4. Pairs of one class are no rivals, they share the target.
5. The map stands upright: scaled to [0, 1], times the probability that the word sounds. A wrong word gives nothing.
6. Words are given or found by detection.
7. Boxes are read as what they are, pictures change in training as SSUFormer's do (data/transforms.py); maps are
   enlarged bilinearly and cut at `tvsl.threshold`, and CIoU@t is the share of sources whose overlap is above t.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ssu_jax.config.model import ModelConfig
from ssu_jax.config.tvsl import TVSLConfig
from ssu_jax.encoders.audioclip import LARGEST_SCALE, scale_of
from ssu_jax.models.ssuformer.clip_regions import unit
from ssu_jax.models.tvsl.trio import make_trio
from ssu_jax.types import Mixtures

_EPS = 1e-6


class Encoded(NamedTuple):
    """What the frozen trio gives of b mixtures."""

    places: Any  # float32 [b, y, x, d]
    moments: Any  # float32 [b, a, d]


class Guided(NamedTuple):
    """What each of k words takes out of b mixtures."""

    seen: Any  # float32 [b, k, d]: mean of its places
    heard: Any  # float32 [b, k, d]: mean of its moments
    agreement: Any  # float32 [b, k, n]: how much each place is the word's


class Answers(NamedTuple):
    """What training looks at. u classes, k sources."""

    detection: Any  # float32 [b, u] logits: the class sounds in a picture of the mixture
    image_classes: Any  # float32 [b, k, u] logits, of what each source's word took out of the pictures
    sound_classes: Any  # float32 [b, k, u] likewise, out of the sound
    image_pairs: Any  # float32 [b, k, d] of unit length
    sound_pairs: Any  # float32 [b, k, d] of unit length
    pair_scale: Any  # float32 []


class TVSL(nn.Module):
    """class_ids: of every class of the configuration its word's ids [u, l], padded."""

    model: ModelConfig
    config: TVSLConfig
    class_ids: tuple[tuple[int, ...], ...]

    def setup(self):
        self.trio = make_trio(self.model, self.config)
        self.P_v, self.P_a, self.P_vc, self.P_ac, self.P_va, self.P_av = (Blend() for _ in range(6))
        self.fusion = Fusion(self.config.mode == "corrected")

    def __call__(self, batch: Mixtures, mask_mix: Any = 0.0, train: bool = False) -> Answers:
        """`mask_mix` and `train` are what a step gives any model."""
        words = self.class_words()
        encoded = self.encode(batch.pictures, batch.sound)
        guided = self.guide(encoded, words[jnp.maximum(batch.sources, 0)])
        scales = self.trio.scales()
        seen, heard = unit(self.P_vc(guided.seen)), unit(self.P_ac(guided.heard))
        everyone = jnp.broadcast_to(words[None], (len(batch.sources), *words.shape))
        return Answers(
            detection=self.detect(encoded, everyone),
            image_classes=scales.image_text * jnp.einsum("bkd,ud->bku", seen, words),
            sound_classes=scales.sound_text * jnp.einsum("bkd,ud->bku", heard, words),
            image_pairs=unit(self.P_va(guided.seen)),
            sound_pairs=unit(self.P_av(guided.heard)),
            pair_scale=scales.sound_image,
        )

    def class_words(self) -> Float[Array, "u d"]:
        """The classes' words, of unit length."""
        return self.read(jnp.asarray(np.array(self.class_ids, np.int32)))

    def read(self, ids: Int[Array, "u l"]) -> Float[Array, "u d"]:
        """Words of unit length."""
        return unit(self.trio.read(ids))

    def encode(self, pictures: Any, sound: Any) -> Encoded:
        """As in types.Mixtures."""
        return Encoded(self.trio.look(pictures), self.trio.listen(sound))

    def guide(self, encoded: Encoded, words: Float[Array, "b k d"]) -> Guided:
        """What each word takes out of pictures and sound; without text guidance everything, whatever the word."""
        b, k, d = words.shape
        places, scales = encoded.places.reshape(b, -1, d), self.trio.scales()
        if not self.config.text_guidance:
            seen, heard = (jnp.broadcast_to(x.mean(axis=1)[:, None], (b, k, d)) for x in (places, encoded.moments))
            return Guided(seen, heard, jnp.ones((b, k, places.shape[1])))
        take = _released_share if self.config.mode == "released" else _attention
        seen_share, agreement = take(places, words, scales.image_text)
        heard_share, _ = take(encoded.moments, words, scales.sound_text)
        seen = jnp.einsum("bkn,bnd->bkd", seen_share, places)
        return Guided(seen, jnp.einsum("bka,bad->bkd", heard_share, encoded.moments), agreement)

    def detect(self, encoded: Encoded, words: Float[Array, "b k d"]) -> Float[Array, "b k"]:
        """Logits: the word's class sounds, and what makes the sound is seen."""
        if self.config.mode == "released":
            b, d = len(words), words.shape[-1]
            seen, heard = encoded.places.reshape(b, -1, d).mean(axis=1), encoded.moments.mean(axis=1)
            joined = jnp.concatenate([self.P_v(seen), self.P_a(heard)], axis=-1)[:, None]
        else:
            guided = self.guide(encoded, words)
            joined = jnp.concatenate([unit(self.P_v(guided.seen)), unit(self.P_a(guided.heard))], axis=-1)
        return self.fusion(joined, jnp.concatenate([words, words], axis=-1))

    def heat(self, encoded: Encoded, words: Float[Array, "b k d"]) -> Float[Array, "b k y x"]:
        """Heat maps in [0, 1], on the grid of the trio's places."""
        guided = self.guide(encoded, words)
        b, y, x, d = encoded.places.shape
        places, query = encoded.places.reshape(b, -1, d), unit(self.P_av(guided.heard))
        if self.config.mode == "released":
            conditioned = places[:, None] * guided.agreement[..., None]
            cosine = jnp.einsum("bknd,bkd->bkn", unit(self.P_va(conditioned)), query)
            return (1.0 - _to_unit(cosine)).reshape(b, -1, y, x)
        cosine = jnp.einsum("bnd,bkd->bkn", unit(self.P_va(places)), query)
        sounds = jax.nn.sigmoid(self.detect(encoded, words))
        return (sounds[..., None] * _to_unit(guided.agreement * cosine)).reshape(b, -1, y, x)


class Blend(nn.Module):
    """w x + (1 - w) MLP(x); MLP is d - 2 d - d with GELU. w, learned, begins at 1. float32."""

    @nn.compact
    def __call__(self, x: Float[Array, "... d"]) -> Float[Array, "... d"]:
        width = x.shape[-1]
        weight = self.param("weight", nn.initializers.ones, ())
        return weight * x + (1.0 - weight) * nn.Dense(width, name="out")(nn.gelu(nn.Dense(2 * width, name="hidden")(x)))


class Fusion(nn.Module):
    """Picture and sound, joined, against a word twice -> logits. MLP is 2 d - 2 d - 2 d with GELU.

    blended: a part of the input that begins as all of it is kept, and a threshold is learned.
    """

    blended: bool

    @nn.compact
    def __call__(self, joined: Float[Array, "b i e"], words: Float[Array, "b k e"]) -> Float[Array, "b k"]:
        """i is k, or 1 where all words are compared with the same."""
        width = joined.shape[-1]
        fused = nn.Dense(width, name="out")(nn.gelu(nn.Dense(width, name="hidden")(joined)))
        threshold = jnp.zeros(())
        if self.blended:
            weight = self.param("weight", nn.initializers.ones, ())
            threshold = self.param("threshold", nn.initializers.constant(0.5), ())
            fused = weight * joined + (1.0 - weight) * fused
        scale = scale_of(self.param("log_scale", nn.initializers.constant(np.log(LARGEST_SCALE)), ()))
        return scale * ((unit(fused) * unit(words)).sum(axis=-1) - threshold)


def _attention(
    tokens: Float[Array, "b n d"], words: Float[Array, "b k d"], scale: Float[Array, ""]
) -> tuple[Float[Array, "b k n"], Float[Array, "b k n"]]:
    """(share of each token in the word's mean, how much it agrees with the word)."""
    cosine = jnp.einsum("bnd,bkd->bkn", unit(tokens), words)
    return jax.nn.softmax(scale * cosine, axis=-1), jax.nn.relu(cosine)


def _released_share(
    tokens: Float[Array, "b n d"], words: Float[Array, "b k d"], scale: Float[Array, ""]
) -> tuple[Float[Array, "b k n"], Float[Array, "b k n"]]:
    """Cosines over their norm among the tokens: as factors of the mean, and as factors of the tokens."""
    cosine = jnp.einsum("bnd,bkd->bkn", unit(tokens), words)
    factor = cosine / jnp.sqrt((cosine**2).sum(axis=-1, keepdims=True) + _EPS)
    return factor / tokens.shape[1], factor


def _to_unit(x: Float[Array, "b k n"]) -> Float[Array, "b k n"]:
    """Each map from 0 to 1; one that is the same everywhere is 0."""
    low = x.min(axis=-1, keepdims=True)
    return (x - low) / jnp.maximum(x.max(axis=-1, keepdims=True) - low, _EPS)
