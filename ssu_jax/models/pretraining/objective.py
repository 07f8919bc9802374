"""What pre-training makes small, clip by clip, so that training and validation tell the same numbers."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float

from ssu_jax.config.pretraining import PretrainingConfig
from ssu_jax.models.pretraining.pretraining import Hidden, Views

TERMS = ("pairs", "pictures", "sounds")  # of the loss, by their weights' names
_BLOCKED = -1e9


class Term(NamedTuple):
    """A mean over clips, still to be taken: sum(value * weight) / sum(weight)."""

    value: Float[Array, "b"]
    weight: Float[Array, "b"]


def total_loss(views: Views, config: PretrainingConfig) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """The weighted sum of `pairs`, `pictures` and `sounds`, and each of them unweighted."""
    found = terms(views)
    means = {name: _mean(found[name]) for name in TERMS}
    return sum(getattr(config, name) * value for name, value in means.items()), means


def terms(views: Views) -> dict[str, Term]:
    """Every clip's part of

    pairs              cross-entropy of its picture among the pictures, and of its sound among the sounds, averaged
    pictures, sounds   mean squared error of its hidden squares, those alone
    recall             share of the two questions whose right answer is the likeliest (no loss)
    """
    pairs, recall = contrast(views.similarity, views.paired)
    paired, valid = views.paired.astype(jnp.float32), views.valid.astype(jnp.float32)
    return {
        "pairs": Term(pairs, paired),
        "pictures": Term(hidden_error(views.pictures), valid),
        "sounds": Term(hidden_error(views.sounds), valid),
        "recall": Term(recall, paired),
    }


def make_measure(model: Any) -> Callable[..., dict[str, Float[Array, "b 2"]]]:
    """A jitted `measure(params, frames, log_mel, frame_valid)`: of every clip and term value * weight and weight."""

    def measure(params, frames, log_mel, frame_valid):
        found = terms(model.apply({"params": params}, frames, log_mel, frame_valid, method="views"))
        return {name: jnp.stack([term.value * term.weight, term.weight], axis=1) for name, term in found.items()}

    return jax.jit(measure)


def contrast(similarity: Float[Array, "b b"], paired: Bool[Array, "b"]) -> tuple[Float[Array, "b"], Float[Array, "b"]]:
    """(cross-entropy, hits) of each clip among those that are `paired`, averaged over both directions.

    InfoNCE (arXiv 1807.03748): -log(exp(s_ii) / sum_j exp(s_ij)) over j and the same over i. A tie is no hit.
    """
    own = jnp.eye(len(paired), dtype=bool)
    rivals = ~own & paired[None] & paired[:, None]
    logits, rival = (jnp.where(allowed, similarity, _BLOCKED) for allowed in (own | rivals, rivals))
    entropy = [optax.losses.softmax_cross_entropy(side, own.astype(jnp.float32)) for side in (logits, logits.T)]
    hits = [(rival.max(axis=axis) < jnp.diagonal(similarity)).astype(jnp.float32) for axis in (0, 1)]
    return 0.5 * (entropy[0] + entropy[1]), 0.5 * (hits[0] + hits[1])


def hidden_error(squares: Hidden) -> Float[Array, "b"]:
    """Mean squared error of the hidden squares of each image; what the model sees costs nothing."""
    error = ((squares.predicted - squares.wanted) ** 2).mean(axis=2)
    weight = squares.hidden.astype(jnp.float32)
    return (error * weight).sum(axis=1) / weight.sum(axis=1)


def _mean(term: Term) -> Float[Array, ""]:
    return (term.value * term.weight).sum() / jnp.maximum(term.weight.sum(), 1.0)
