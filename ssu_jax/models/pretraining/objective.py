"""What pre-training makes small, second by second, so that training and validation tell the same numbers.

Of the contrast, the negatives of a second are all seconds of *other* clips: the seconds of one clip are near-duplicates
(the same room, the same objects), and pushing them apart would teach what tells them apart by chance. A second without
any sound, and one beyond the end of a clip, is in no pair.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float

from ssu_jax.config.pretraining import PretrainingConfig
from ssu_jax.models.pretraining import squares
from ssu_jax.models.pretraining.pretraining import Views
from ssu_jax.types import Batch

TERMS = ("pairs", "pictures", "sounds")  # of the loss, by their weights' names
_LOUDER = 4.0  # log-mel values over it are near [-1, 1], as pixels are
_BLOCKED = -1e9


class Term(NamedTuple):
    """A mean over seconds, still to be taken: sum(value * weight) / sum(weight)."""

    value: Float[Array, "b t"]
    weight: Float[Array, "b t"]


def total_loss(
    views: Views, batch: Batch, config: PretrainingConfig
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """The weighted sum of `pairs`, `pictures` and `sounds`, and each of them unweighted."""
    found = terms(views, batch.frames, batch.log_mel, batch.frame_valid)
    means = {name: _mean(found[name]) for name in TERMS}
    return sum(getattr(config, name) * value for name, value in means.items()), means


def terms(
    views: Views, frames: Array, log_mel: Float[Array, "b t m f"], frame_valid: Bool[Array, "b t"]
) -> dict[str, Term]:
    """Every second's part of

    pairs            cross-entropy of its picture among the pictures, and of its sound among the sounds, averaged
    pictures, sounds mean squared error of its hidden squares, those alone
    recall           share of the two questions whose right answer is the likeliest (no loss)
    """
    valid = frame_valid.astype(jnp.float32)
    heard = log_mel.max(axis=(2, 3)) - log_mel.min(axis=(2, 3)) > 1e-3
    paired = frame_valid & heard
    pairs, recall = contrast(views.similarity, paired)
    pictures = frames.reshape(-1, *frames.shape[2:]).astype(jnp.float32) / 255.0
    sounds = log_mel.reshape(-1, *log_mel.shape[2:], 1) / _LOUDER
    weight = paired.astype(jnp.float32)
    return {
        "pairs": Term(pairs.reshape(valid.shape), weight),
        "pictures": Term(
            hidden_error(views.picture_squares, pictures, views.picture_hidden).reshape(valid.shape), valid
        ),
        "sounds": Term(hidden_error(views.sound_squares, sounds, views.sound_hidden).reshape(valid.shape), weight),
        "recall": Term(recall.reshape(valid.shape), weight),
    }


def make_measure(model: Any) -> Callable[..., dict[str, Float[Array, "b 2"]]]:
    """A jitted `measure(params, frames, log_mel, frame_valid)`: of every clip and term the sums of value and weight."""

    def measure(params, frames, log_mel, frame_valid):
        views = model.apply({"params": params}, frames, log_mel, method="views")
        found = terms(views, frames, log_mel, frame_valid)
        return {name: jnp.stack([(term.value * term.weight).sum(axis=1), term.weight.sum(axis=1)], axis=1)
                for name, term in found.items()}  # fmt: skip

    return jax.jit(measure)


def contrast(
    similarity: Float[Array, "f f"], paired: Bool[Array, "b t"]
) -> tuple[Float[Array, " f"], Float[Array, " f"]]:
    """(cross-entropy, hits) of each second, averaged over both directions (InfoNCE, arXiv 1807.03748)."""
    clip = jnp.repeat(jnp.arange(paired.shape[0]), paired.shape[1])
    own = jnp.eye(len(clip), dtype=bool)
    others = (clip[:, None] != clip[None]) & paired.reshape(1, -1) & paired.reshape(-1, 1)
    logits = jnp.where(own | others, similarity, _BLOCKED)
    right = jnp.diagonal(similarity)
    entropy = [optax.losses.softmax_cross_entropy(side, own.astype(jnp.float32)) for side in (logits, logits.T)]
    rival = jnp.where(others, similarity, _BLOCKED)
    hits = [(rival.max(axis=axis) < right).astype(jnp.float32) for axis in (0, 1)]
    return 0.5 * (entropy[0] + entropy[1]), 0.5 * (hits[0] + hits[1])


def hidden_error(
    predicted: Float[Array, "f n k"], images: Float[Array, "f y x c"], hidden: Bool[Array, "f n"]
) -> Float[Array, " f"]:
    """Mean squared error of the hidden squares of each image; what the model sees costs nothing."""
    error = ((predicted - squares.targets(images)) ** 2).mean(axis=2)
    weight = hidden.astype(jnp.float32)
    return (error * weight).sum(axis=1) / weight.sum(axis=1)


def _mean(term: Term) -> Float[Array, ""]:
    return (term.value * term.weight).sum() / jnp.maximum(term.weight.sum(), 1.0)
