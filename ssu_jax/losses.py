"""The loss terms, each a mean over what it is defined on, and their weighted sum.

total = sum of weight x term over LossConfig; terms of parts that are switched off are absent.
"""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, Shaped

from ssu_jax.config.losses import LossConfig
from ssu_jax.tokenizer import PAD
from ssu_jax.types import Batch, Outputs

SEMANTIC_STRIDE = 4  # the map on which pixel classes are learned
MASK_SCALE = 10.0  # few pixels sound, so the mean over all of them is small


def total_loss(outputs: Outputs, batch: Batch, config: LossConfig) -> tuple[Float[Array, ""], dict[str, Array]]:
    """The weighted sum and every term unweighted, by its name in LossConfig."""
    terms: dict[str, Array] = {}
    if outputs.mask_logits is not None:
        terms |= mask_terms(outputs.mask_logits, batch, config)
        terms["semantic"] = semantic_loss(outputs.semantic_logits, batch.semantic, batch.frame_valid)
    if outputs.text_logits is not None:
        gamma = config.focal_gamma if config.focal else 0.0
        targets, valid = batch.text_ids[..., 1:], batch.frame_valid[..., None]
        mask = (targets != PAD) & valid
        terms["caption"] = caption_loss(outputs.text_logits, targets, mask, gamma)
        if outputs.lm_logits is not None:
            terms["language_model"] = caption_loss(outputs.lm_logits, targets, mask, 0.0)
    if outputs.region_embedding is not None:
        terms |= consistency_terms(outputs, batch)
    terms["audible"] = audible_loss(outputs.audible_logits, batch.audible_labels, batch.frame_valid)
    if outputs.scene_logits is not None:
        terms["scene"] = scene_loss(outputs.scene_logits, batch.scene_label)
    if outputs.router is not None:
        terms["balance"], terms["router_z"] = outputs.router["balance"].mean(), outputs.router["z"].mean()
    return sum(getattr(config, name) * value for name, value in terms.items()), terms


def mask_terms(logits: Float[Array, "b t y x"], batch: Batch, config: LossConfig) -> dict[str, Array]:
    """`mask`: (focal) binary cross-entropy of every pixel; `dice`: 1 - 2 |P T| / (|P| + |T|) of sounding frames.

    Focal: (1 - p_t)^gamma weighs the pixels (arXiv 1708.02002, without alpha).
    """
    truth = batch.masks.astype(jnp.float32)
    valid = batch.frame_valid.astype(jnp.float32)
    entropy = optax.sigmoid_binary_cross_entropy(logits, truth)
    probability = jax.nn.sigmoid(logits)
    if config.focal:
        right = jnp.where(truth > 0.5, probability, 1.0 - probability)
        entropy = entropy * (1.0 - right) ** config.focal_gamma
    overlap = (probability * truth).sum(axis=(2, 3))
    total = probability.sum(axis=(2, 3)) + truth.sum(axis=(2, 3))
    sounding = (truth.sum(axis=(2, 3)) > 0).astype(jnp.float32) * valid
    dice = 1.0 - (2.0 * overlap + 1.0) / (total + 1.0)
    return {"mask": MASK_SCALE * _mean(entropy.mean(axis=(2, 3)), valid), "dice": _mean(dice, sounding)}


def caption_loss(
    logits: Float[Array, "b t l v"], targets: Int[Array, "b t l"], mask: Bool[Array, "b t l"], gamma: float
) -> Float[Array, ""]:
    """Cross-entropy a word, times (1 - p)^gamma: rare and hard words, [EOS] in silence among them, keep weight."""
    entropy = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
    if gamma:
        entropy = entropy * (1.0 - jnp.exp(-entropy)) ** gamma
    return _mean(entropy, mask.astype(jnp.float32))


def audible_loss(
    logits: Float[Array, "b t u"], labels: Shaped[Array, "b t u"], frame_valid: Bool[Array, "b t"]
) -> Float[Array, ""]:
    """Binary cross-entropy of the classes heard each second, summed over classes."""
    entropy = optax.sigmoid_binary_cross_entropy(logits, labels.astype(jnp.float32)).sum(axis=-1)
    return _mean(entropy, frame_valid.astype(jnp.float32))


def semantic_loss(
    logits: Float[Array, "b t y4 x4 u1"], labels: Shaped[Array, "b t y x"], frame_valid: Bool[Array, "b t"]
) -> Float[Array, ""]:
    """Cross-entropy of the pixel's class at stride 4; background and objects weigh the same in all.

    A pixel of class -1 is unknown and counts for nothing.
    """
    half = SEMANTIC_STRIDE // 2
    labels = labels[..., half::SEMANTIC_STRIDE, half::SEMANTIC_STRIDE].astype(jnp.int32)
    entropy = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.maximum(labels, 0))
    valid = frame_valid[..., None, None]
    background = _mean(entropy, ((labels == 0) & valid).astype(jnp.float32))
    return 0.5 * background + 0.5 * _mean(entropy, ((labels > 0) & valid).astype(jnp.float32))


def scene_loss(logits: Float[Array, "b u"], labels: Int[Array, "b"]) -> Float[Array, ""]:
    """Cross-entropy of the clip's class where it is known."""
    entropy = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.maximum(labels, 0))
    return _mean(entropy, (labels >= 0).astype(jnp.float32))


def consistency_terms(outputs: Outputs, batch: Batch) -> dict[str, Array]:
    """`rcc`: || region - text ||_2 of sounding frames (the paper's CLIPLoss figure).

    `contrastive`: symmetric cross-entropy over the frames of the batch, equal sentences sharing the target.
    """
    seen = outputs.region_embedding.reshape(-1, outputs.region_embedding.shape[-1])
    written = outputs.text_embedding.reshape(seen.shape)
    ids = batch.text_ids.reshape(seen.shape[0], -1)
    sounding = ((batch.masks.max(axis=(2, 3)) > 0) & batch.frame_valid).reshape(-1)
    weight = sounding.astype(jnp.float32)
    distance = jnp.sqrt(((seen - written) ** 2).sum(axis=-1) + 1e-6)
    same = (ids[:, None] == ids[None]).all(axis=-1) & sounding[None]
    target = same / jnp.maximum(same.sum(axis=-1, keepdims=True), 1)
    blocked = jnp.where(sounding, 0.0, -1e9)[None]
    logits = outputs.embedding_scale * (seen @ written.T)
    both = [optax.softmax_cross_entropy(side + blocked, target) for side in (logits, logits.T)]
    return {"rcc": _mean(distance, weight), "contrastive": _mean(0.5 * (both[0] + both[1]), weight)}


def _mean(values: Float[Array, "..."], weights: Float[Array, "..."]) -> Float[Array, ""]:
    """Weighted mean; 0 where all weights are 0."""
    weights = jnp.broadcast_to(weights, values.shape)
    return (values * weights).sum() / jnp.maximum(weights.sum(), 1.0)
