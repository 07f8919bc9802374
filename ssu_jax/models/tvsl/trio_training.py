"""The small trio learns image, sound and text together, from words alone: which classes are seen and which are heard.

    places  x words -> is the class in the picture?      a smooth maximum over the places
    moments x words -> is the class in the sound?        over the moments
    places  x sound -> do a picture and a sound share a class?   every picture of the batch with every sound

Each is a sigmoid contrast (arXiv 2303.15343): a picture may show, and a sound hold, several classes. That the maximum
is over places (multiple instances) is what makes places, not whole pictures, carry the words. Our design.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float

from ssu_jax.config.model import ModelConfig
from ssu_jax.config.tvsl import TVSLConfig
from ssu_jax.models.ssuformer.clip_regions import unit
from ssu_jax.models.tvsl.objective import weighted_mean
from ssu_jax.models.tvsl.trio import SmallTrio
from ssu_jax.types import Batch

TERMS = ("image_text", "sound_text", "sound_image")
_FIRST_THRESHOLD = -3.0  # few of the classes are in a picture


class Similarities(NamedTuple):
    """Logits: of a picture or a sound with a word, and of a picture with a sound. n = b t seconds."""

    image_text: Any  # float32 [n, u]
    sound_text: Any  # float32 [n, u]
    sound_image: Any  # float32 [n, n], sounds in the columns


class TrioTraining(nn.Module):
    """Pictures and sound of b clips -> Similarities of their seconds. class_ids: as TVSL's."""

    model: ModelConfig
    config: TVSLConfig
    class_ids: tuple[tuple[int, ...], ...]

    def setup(self):
        self.trio = SmallTrio(self.model, self.config)
        self.thresholds = [
            self.param(f"threshold_{name}", nn.initializers.constant(_FIRST_THRESHOLD), ()) for name in TERMS
        ]

    def __call__(self, batch: Batch, mask_mix: Any = 0.0, train: bool = False) -> Similarities:
        """`mask_mix` and `train` are what a step gives any model."""
        return self.similarities(batch.frames, batch.log_mel)

    def similarities(self, frames: Any, log_mel: Float[Array, "b t m f"]) -> Similarities:
        """frames: uint8 [b, t, y, x, 3]."""
        places = self.trio.look(frames.reshape(-1, *frames.shape[2:]))
        moments = self.trio.listen(log_mel.reshape(-1, 1, *log_mel.shape[2:]))
        places, moments = unit(places.reshape(len(places), -1, places.shape[-1])), unit(moments)
        words = unit(self.trio.read(jnp.asarray(np.array(self.class_ids, np.int32))))
        scales = self.trio.scales()
        heard = unit(moments.mean(axis=1))
        cosines = (
            (scales.image_text, jnp.einsum("nsd,ud->nsu", places, words)),
            (scales.sound_text, jnp.einsum("nad,ud->nau", moments, words)),
            (scales.sound_image, jnp.einsum("nsd,cd->nsc", places, heard)),
        )
        return Similarities(*(
            smooth_maximum(scale * cosine + threshold)
            for (scale, cosine), threshold in zip(cosines, self.thresholds, strict=True)
        ))  # fmt: skip


def smooth_maximum(x: Float[Array, "n s c"]) -> Float[Array, "n c"]:
    """log mean exp over s."""
    return jax.nn.logsumexp(x, axis=1) - jnp.log(x.shape[1])


def terms(similarities: Similarities, batch: Batch) -> dict[str, Float[Array, ""]]:
    """Binary cross-entropy of the three, summed over the words (`sound_image`: averaged over the batch).

    Seconds that are not valid, and labels that are not known, do not count.
    """
    u = batch.source_labels.shape[-1]
    semantic = batch.semantic.reshape(-1, 1, batch.semantic.shape[2] * batch.semantic.shape[3])
    seen = (semantic == jnp.arange(1, u + 1)[None, :, None]).any(axis=-1)
    heard = batch.audible_labels.reshape(-1, u) > 0
    looked = batch.frame_valid.reshape(-1) & (semantic >= 0).all(axis=(1, 2))
    listened = (batch.frame_valid & batch.source_known).reshape(-1)
    shared = jnp.einsum("nu,cu->nc", seen.astype(jnp.float32), heard.astype(jnp.float32)) > 0
    both = (looked[:, None] & listened[None]).astype(jnp.float32)
    entropies = {
        "image_text": (_entropy(similarities.image_text, seen).sum(axis=1), looked),
        "sound_text": (_entropy(similarities.sound_text, heard).sum(axis=1), listened),
        "sound_image": (_entropy(similarities.sound_image, shared), both),
    }
    return {name: weighted_mean(value, weight.astype(jnp.float32)) for name, (value, weight) in entropies.items()}


def make_measure(model: TrioTraining) -> Callable[..., dict[str, Float[Array, ""]]]:
    """A jitted `measure(params, batch)`: the three terms."""
    return jax.jit(lambda params, batch: terms(model.apply({"params": params}, batch), batch))


def total_loss(similarities: Similarities, batch: Batch) -> tuple[Float[Array, ""], dict[str, Any]]:
    """The sum of the three terms, and each."""
    means = terms(similarities, batch)
    return sum(means.values()), means


def _entropy(logits: Float[Array, "n c"], truth: Bool[Array, "n c"]) -> Float[Array, "n c"]:
    return optax.sigmoid_binary_cross_entropy(logits, truth.astype(jnp.float32))
