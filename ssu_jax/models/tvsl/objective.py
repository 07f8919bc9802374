"""What T-VSL makes small: four losses of unit weight, over all clips of the batch, whatever devices they lie on.

`detection`  binary cross-entropy of every class: does it sound in a picture of the mixture?
`image`      cross-entropy of what each source's word took out of the pictures, among all classes
`sound`      the same of the sound
`pairs`      symmetric InfoNCE (arXiv 1807.03748) between the picture and the sound of every source of the batch

Classes that are held out of training (`tvsl.held_out`) are neither targets nor rivals.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int

from ssu_jax.config import Config
from ssu_jax.models.tvsl.tvsl import Answers
from ssu_jax.types import Mixtures

TERMS = ("detection", "image", "sound", "pairs")
_BLOCKED = -1e9


def total_loss(answers: Answers, batch: Mixtures, config: Config) -> tuple[Float[Array, ""], dict[str, Any]]:
    """The sum of the four terms, and each."""
    allowed = jnp.asarray(np.array([name not in config.tvsl.held_out for name in config.data.classes]))
    means = terms(answers, batch.sources, allowed, rivals_of_one_class=config.tvsl.mode == "released")
    return sum(means.values()), means


def terms(
    answers: Answers, sources: Int[Array, "b k"], allowed: Bool[Array, "u"], rivals_of_one_class: bool = False
) -> dict[str, Float[Array, ""]]:
    """The four means; rows whose sources are -1 do not count.

    rivals_of_one_class: pairs of the same class are rivals too, as T-VSL's release has it; else they share the target.
    """
    valid = sources >= 0
    sounding = jax.nn.one_hot(sources, len(allowed)).max(axis=1)
    entropy = optax.sigmoid_binary_cross_entropy(answers.detection, sounding)
    rows = (valid.any(axis=1)[:, None] & allowed[None]).astype(jnp.float32)
    blocked = jnp.where(allowed, 0.0, _BLOCKED)[None, None]
    targets = jnp.maximum(sources, 0)
    named = [optax.softmax_cross_entropy_with_integer_labels(logits + blocked, targets)
             for logits in (answers.image_classes, answers.sound_classes)]  # fmt: skip
    pairs = contrast(answers, sources.reshape(-1), rivals_of_one_class)
    values = {"image": named[0], "sound": named[1], "pairs": pairs.reshape(sources.shape)}
    weight = valid.astype(jnp.float32)
    return {"detection": weighted_mean(entropy, rows)} | {
        name: weighted_mean(value, weight) for name, value in values.items()
    }


def contrast(answers: Answers, sources: Int[Array, "n"], rivals_of_one_class: bool) -> Float[Array, "n"]:
    """InfoNCE of each of the n = b k pairs, averaged over both directions."""
    seen, heard = (each.reshape(len(sources), -1) for each in (answers.image_pairs, answers.sound_pairs))
    valid, own = sources >= 0, jnp.eye(len(sources), dtype=bool)
    same = own if rivals_of_one_class else own | ((sources[:, None] == sources[None]) & (valid[:, None] & valid[None]))
    target = same / same.sum(axis=1, keepdims=True)
    logits = answers.pair_scale * (seen @ heard.T)
    blocked = jnp.where(own | valid[None], 0.0, _BLOCKED)
    both = [optax.softmax_cross_entropy(side + blocked, target) for side in (logits, logits.T)]
    return 0.5 * (both[0] + both[1])


def weighted_mean(values: Float[Array, "..."], weights: Float[Array, "..."]) -> Float[Array, ""]:
    """0 where all weights are 0."""
    return (values * weights).sum() / jnp.maximum(weights.sum(), 1.0)
