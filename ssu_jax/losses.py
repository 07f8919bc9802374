"""The loss terms, each a mean over what it is defined on, and their weighted sum.

total = sum of weight x term over LossConfig; terms of parts that are switched off are absent.
"""

from typing import Any, NamedTuple

import einops
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, Shaped

from ssu_jax.config.losses import LossConfig
from ssu_jax.layers.moe import losses as moe
from ssu_jax.tokenizer import PAD
from ssu_jax.types import Batch, Outputs

SEMANTIC_STRIDE = 4  # the map on which pixel classes and the masks of single queries are learned
MOST_SOURCES = 16  # classes that sound in one frame; frames with more are left out of the set terms
MASK_SCALE = 10.0  # few pixels sound, so the mean over all of them is small


def total_loss(outputs: Outputs, batch: Batch, config: LossConfig) -> tuple[Float[Array, ""], dict[str, Any]]:
    """The weighted sum and every term unweighted, by its name in LossConfig.

    With experts, under "router", what adds up over parts of a batch (layers/moe/losses.py's `sums`), a row a layer.
    """
    terms: dict[str, Array] = {}
    if outputs.mask_logits is not None:
        terms |= mask_terms(outputs.mask_logits, batch, config)
        terms["semantic"] = semantic_loss(outputs.semantic_logits, batch.semantic, batch.mask_known)
    if outputs.query_mask_logits is not None:
        terms |= set_terms(outputs.query_class_logits, outputs.query_mask_logits, batch, config)
    if outputs.text_logits is not None:
        gamma = config.focal_gamma if config.focal else 0.0
        targets, valid = batch.text_ids[..., 1:], batch.text_known[..., None]
        mask = (targets != PAD) & valid
        terms["caption"] = caption_loss(outputs.text_logits, targets, mask, gamma)
        if outputs.lm_logits is not None:
            terms["language_model"] = caption_loss(outputs.lm_logits, targets, mask, 0.0)
    if outputs.region_embedding is not None:
        terms |= consistency_terms(outputs, batch, with_contrastive=config.contrastive > 0)
    terms["audible"] = audible_loss(outputs.audible_logits, batch.audible_labels, batch.source_known)
    if outputs.scene_logits is not None:
        terms["scene"] = scene_loss(outputs.scene_logits, batch.scene_label)
    if outputs.router is not None:
        terms["balance"], terms["router_z"] = outputs.router["balance"].mean(), outputs.router["z"].mean()
    total = sum(getattr(config, name) * value for name, value in terms.items())
    return total, terms | ({} if outputs.router is None else {"router": moe.sums(outputs.router)})


def mask_terms(logits: Float[Array, "b t y x"], batch: Batch, config: LossConfig) -> dict[str, Array]:
    """`mask`: (focal) binary cross-entropy of every pixel; `dice`: 1 - 2 |P T| / (|P| + |T|) of sounding frames.

    Focal: (1 - p_t)^gamma weighs the pixels (arXiv 1708.02002, without alpha).
    """
    truth = batch.masks.astype(jnp.float32)
    valid = batch.mask_known.astype(jnp.float32)
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


class Sources(NamedTuple):
    """What the queries of f = b t frames are to find: up to k classes that sound in the picture, one mask a class."""

    classes: Any  # int32 [f, k]
    present: Any  # bool [f, k]: the class has a pixel; the others fill the shape
    masks: Any  # float32 [f, k, y / 4, x / 4]: share of the cell that sounds
    known: Any  # bool [f]: False for a frame without labels and where the sources cannot be told apart


def sounding_sources(batch: Batch, num_queries: int) -> Sources:
    """The pixels that sound, divided by class. k = min(q, u, MOST_SOURCES).

    Where the class of pixels is unknown (-1) and one class alone sounds in the picture, they are its pixels. A
    frame stays unknown, and costs nothing here, where a sounding pixel belongs to no class, or where a sounding
    class has no pixel and may lie among the unknown ones. Silent frames are known: there is nothing to find.
    """
    labels = batch.source_labels.reshape(-1, batch.source_labels.shape[-1]) > 0
    sounds = (batch.masks > 0).reshape(-1, 1, *batch.masks.shape[2:])
    semantic = batch.semantic.reshape(sounds.shape).astype(jnp.int32)
    named, classes = jax.lax.top_k(labels.astype(jnp.int32), min(num_queries, labels.shape[-1], MOST_SOURCES))
    alone = labels.sum(axis=-1)[:, None, None, None] == 1
    theirs = (semantic == classes[..., None, None] + 1) | ((semantic < 0) & alone)
    theirs &= sounds & (named > 0)[..., None, None]
    present = theirs.any(axis=(2, 3))
    divided = (theirs.any(axis=1, keepdims=True) == sounds).all(axis=(1, 2, 3))
    hidden = ((named > 0) & ~present).any(axis=1) & (semantic < 0).any(axis=(1, 2, 3))
    masks = einops.reduce(theirs.astype(jnp.float32), "f k (y i) (x j) -> f k y x", "mean",
                          i=SEMANTIC_STRIDE, j=SEMANTIC_STRIDE)  # fmt: skip
    labelled = (batch.mask_known & batch.source_known).reshape(-1)
    return Sources(classes, present, masks, divided & ~hidden & labelled)


def set_terms(
    class_logits: Float[Array, "b t q u1"], mask_logits: Float[Array, "b t q y4 x4"], batch: Batch, config: LossConfig
) -> dict[str, Array]:
    """Set prediction (arXiv 2107.06278): each source of a frame is matched with one query, at the least cost.

    `query_class`: cross-entropy of every query, `no_object` the weight of those without a source;
    `query_mask`, `query_dice`: binary cross-entropy and Dice of the matched masks, on all pixels at stride 4.
    """
    class_logits = class_logits.reshape(-1, *class_logits.shape[2:])
    sources = sounding_sources(batch, class_logits.shape[1])
    probability = jax.nn.softmax(class_logits)
    pairs = {"query_class": -jnp.take_along_axis(probability, sources.classes[:, None], axis=2)}
    pairs |= mask_pairs(mask_logits.reshape(len(class_logits), *mask_logits.shape[2:]), sources.masks)
    query = match(sum(getattr(config, name) * cost for name, cost in pairs.items()), sources.present)
    chosen = {name: jnp.take_along_axis(pairs[name], query[:, None], axis=1)[:, 0] for name in pairs}
    weight = (sources.present & sources.known[:, None]).astype(jnp.float32)
    nothing = class_logits.shape[-1] - 1
    found = (query[:, None] == jnp.arange(class_logits.shape[1])[None, :, None]) & sources.present[:, None]
    target = jnp.where(found.any(axis=2), (found * sources.classes[:, None]).sum(axis=2), nothing)
    entropy = optax.softmax_cross_entropy_with_integer_labels(class_logits, target)
    share = jnp.where(target == nothing, config.no_object, 1.0) * sources.known[:, None].astype(jnp.float32)
    return {
        "query_class": (share * entropy).sum() / jnp.maximum(share.sum(), 1e-6),
        "query_mask": _mean(chosen["query_mask"], weight),
        "query_dice": _mean(chosen["query_dice"], weight),
    }


def mask_pairs(logits: Float[Array, "f q y4 x4"], masks: Float[Array, "f k y4 x4"]) -> dict[str, Float[Array, "f q k"]]:
    """Cross-entropy (mean over pixels) and Dice of every query with every source."""
    logits, masks = (x.reshape(*x.shape[:2], -1) for x in (logits, masks))
    probability = jax.nn.sigmoid(logits)
    entropy = jax.nn.softplus(logits).mean(axis=2)[..., None]
    entropy = entropy - jnp.einsum("fqn,fkn->fqk", logits, masks) / logits.shape[2]
    overlap = jnp.einsum("fqn,fkn->fqk", probability, masks)
    total = probability.sum(axis=2)[..., None] + masks.sum(axis=2)[:, None]
    return {"query_mask": entropy, "query_dice": 1.0 - (2.0 * overlap + 1.0) / (total + 1.0)}


def match(cost: Float[Array, "f q k"], present: Bool[Array, "f k"]) -> Int[Array, "f k"]:
    """The query of each source, all different, so that the sum over the sources that are present is least.

    Absent sources cost the same everywhere, so that they choose last. Costs are kept within bounds, else the search
    might not end; one that is no number is the least of all, so that it is chosen and shows in the loss.
    """
    bounded = jnp.clip(jnp.nan_to_num(jax.lax.stop_gradient(cost), nan=-1e6), -1e6, 1e6)
    query, source = jax.vmap(optax.assignment.hungarian_algorithm)(jnp.where(present[:, None], bounded, 0.0))
    return jnp.take_along_axis(query, jnp.argsort(source, axis=1), axis=1)


def caption_loss(
    logits: Float[Array, "b t l v"], targets: Int[Array, "b t l"], mask: Bool[Array, "b t l"], gamma: float
) -> Float[Array, ""]:
    """Cross-entropy a word, times (1 - p)^gamma: rare and hard words, [EOS] in silence among them, keep weight."""
    entropy = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
    if gamma:
        entropy = entropy * (1.0 - jnp.exp(-entropy)) ** gamma
    return _mean(entropy, mask.astype(jnp.float32))


def audible_loss(
    logits: Float[Array, "b t u"], labels: Shaped[Array, "b t u"], known: Bool[Array, "b t"]
) -> Float[Array, ""]:
    """Binary cross-entropy of the classes heard each second, summed over classes."""
    entropy = optax.sigmoid_binary_cross_entropy(logits, labels.astype(jnp.float32)).sum(axis=-1)
    return _mean(entropy, known.astype(jnp.float32))


def semantic_loss(
    logits: Float[Array, "b t y4 x4 u1"], labels: Shaped[Array, "b t y x"], known: Bool[Array, "b t"]
) -> Float[Array, ""]:
    """Cross-entropy of the pixel's class at stride 4; background and objects weigh the same in all.

    A pixel of class -1 is unknown and counts for nothing.
    """
    half = SEMANTIC_STRIDE // 2
    labels = labels[..., half::SEMANTIC_STRIDE, half::SEMANTIC_STRIDE].astype(jnp.int32)
    entropy = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.maximum(labels, 0))
    valid = known[..., None, None]
    background = _mean(entropy, ((labels == 0) & valid).astype(jnp.float32))
    return 0.5 * background + 0.5 * _mean(entropy, ((labels > 0) & valid).astype(jnp.float32))


def scene_loss(logits: Float[Array, "b u"], labels: Int[Array, "b"]) -> Float[Array, ""]:
    """Cross-entropy of the clip's class where it is known."""
    entropy = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.maximum(labels, 0))
    return _mean(entropy, (labels >= 0).astype(jnp.float32))


def consistency_terms(outputs: Outputs, batch: Batch, with_contrastive: bool = True) -> dict[str, Array]:
    """`rcc`: || region - text ||_2 of sounding frames (the paper's CLIPLoss figure).

    `contrastive`: symmetric cross-entropy over the frames of the batch, equal sentences sharing the target. The one
    term in which every clip meets all others: what a device computes and is sent for it grows with the batch.
    """
    seen = outputs.region_embedding.reshape(-1, outputs.region_embedding.shape[-1])
    written = outputs.text_embedding.reshape(seen.shape)
    sounding = ((batch.masks.max(axis=(2, 3)) > 0) & batch.mask_known & batch.text_known).reshape(-1)
    weight = sounding.astype(jnp.float32)
    distance = jnp.sqrt(((seen - written) ** 2).sum(axis=-1) + 1e-6)
    terms = {"rcc": _mean(distance, weight)}
    if not with_contrastive:
        return terms
    ids = batch.text_ids.reshape(seen.shape[0], -1)
    same = (ids[:, None] == ids[None]).all(axis=-1) & sounding[None]
    target = same / jnp.maximum(same.sum(axis=-1, keepdims=True), 1)
    blocked = jnp.where(sounding, 0.0, -1e9)[None]
    logits = outputs.embedding_scale * (seen @ written.T)
    both = [optax.softmax_cross_entropy(side + blocked, target) for side in (logits, logits.T)]
    return terms | {"contrastive": _mean(0.5 * (both[0] + both[1]), weight)}


def _mean(values: Float[Array, "..."], weights: Float[Array, "..."]) -> Float[Array, ""]:
    """Weighted mean; 0 where all weights are 0."""
    weights = jnp.broadcast_to(weights, values.shape)
    return (values * weights).sum() / jnp.maximum(weights.sum(), 1.0)
