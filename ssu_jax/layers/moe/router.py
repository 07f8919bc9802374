"""Which experts a token visits, and how much each of them counts.

Our design: top-k of a softmax, after the Switch Transformer for k = 1 (arXiv 2101.03961); the two-step
choice limits a token to one group of experts, which lie contiguously on the expert axis.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


class Routing(NamedTuple):
    """The choice of every token. Rows of padding tokens hold the sentinel expert e and zeros."""

    ids: Any  # int32 [s, k], best first, no expert twice in a row; e where the token is padding
    weights: Any  # float32 [s, k]
    probabilities: Any  # float32 [s, e], a row sums to 1
    logits: Any  # float32 [s, e]
    group_logits: Any = None  # float32 [s, g] in the two-step choice
    priority: Any = None  # float32 [s, k]: who stands first in an expert's line; None: by choice, then by token
    is_real: Any = None  # bool [s]; None: a token is padding where its first expert is the sentinel


def route(
    logits: Float[Array, "s e"],
    mask: Bool[Array, " s"],
    top_k: int,
    group_logits: Float[Array, "s g"] | None = None,
    groups_per_token: int = 1,
    *,
    bias: Float[Array, " e"] | None = None,
    noise: Float[Array, "s e"] | None = None,
) -> Routing:
    """Top-k experts of each token; with `group_logits`, of the token's best `groups_per_token` groups.

    bias: added to the probabilities where experts are chosen, and nowhere else (arXiv 2408.15664).
    noise: added to the logits where experts are chosen, and nowhere else.

    Weights: for k = 1 the softmax probability over all experts, so that the router has a gradient and one
    expert has weight exactly 1; for k > 1 the probabilities of the chosen, made to sum to 1. In the two-step
    choice they are those inside the groups, times the groups' own probability.
    Raises ValueError when the pool of a token is smaller than top_k, or groups do not divide the experts.
    """
    num_experts = logits.shape[1]
    num_groups = 1 if group_logits is None else group_logits.shape[1]
    _check(num_experts, num_groups, groups_per_token, top_k)
    # Padding rows may hold anything, NaN included: cleared before the softmax so that gradients are clean too.
    logits = jnp.where(mask[:, None], logits.astype(jnp.float32), 0.0)
    if group_logits is None:
        allowed, group_probabilities = jnp.ones((mask.shape[0], 1), bool), jnp.ones((mask.shape[0], 1), jnp.float32)
    else:
        group_logits = jnp.where(mask[:, None], group_logits.astype(jnp.float32), 0.0)
        best = jax.lax.top_k(jax.lax.stop_gradient(group_logits), groups_per_token)[1]
        allowed = jnp.any(jax.nn.one_hot(best, num_groups, dtype=bool), axis=1)
        group_probabilities = jax.nn.softmax(group_logits)

    inside = jax.nn.softmax(logits.reshape(-1, num_groups, num_experts // num_groups))
    probabilities = (inside * group_probabilities[..., None]).reshape(logits.shape)
    scores = logits if noise is None else logits + noise
    if groups_per_token > 1 or bias is not None:  # inside one group logits stand in the order of probabilities
        grouped = jax.nn.softmax(scores.reshape(inside.shape)) * group_probabilities[..., None]
        scores = grouped.reshape(logits.shape)
    scores = scores if bias is None else scores + bias[None]
    ids = _best(scores, jnp.repeat(allowed, num_experts // num_groups, axis=1), top_k)
    if groups_per_token == 1:
        weights = _pick(inside.reshape(logits.shape), ids)
        share = jnp.sum(jnp.where(allowed, group_probabilities, 0.0), axis=-1, keepdims=True)
    else:
        weights = _pick(probabilities, ids)
        chosen = jnp.where(allowed, group_probabilities, 0.0)
        share = jnp.sum(chosen, axis=-1, keepdims=True) if top_k > 1 else jnp.ones_like(weights)
    if top_k > 1:
        weights /= jnp.sum(weights, axis=-1, keepdims=True)
    weights *= share
    return Routing(
        ids=jnp.where(mask[:, None], ids, num_experts),
        weights=jnp.where(mask[:, None], weights, 0.0),
        probabilities=jnp.where(mask[:, None], probabilities, 0.0),
        logits=logits,
        group_logits=group_logits,
    )


def _check(num_experts: int, num_groups: int, groups_per_token: int, top_k: int) -> None:
    """Raises ValueError as `route` does."""
    if num_experts % num_groups:
        raise ValueError(f"experts must divide into equal groups: got {num_experts} experts, {num_groups} groups")
    reachable = num_experts // num_groups * groups_per_token
    if not 1 <= groups_per_token <= num_groups:
        raise ValueError(f"groups_per_token must be 1..{num_groups} (the groups), got {groups_per_token}")
    if not 1 <= top_k <= reachable:
        raise ValueError(f"top_k must be 1..{reachable} (experts a token can reach), got {top_k}")


def _best(scores: Float[Array, "s e"], allowed: Bool[Array, "s e"], top_k: int) -> Int[Array, "s {top_k}"]:
    """Ids of the top_k largest scores among the allowed, best first; the lower id wins a tie."""
    return jax.lax.top_k(jnp.where(allowed, jax.lax.stop_gradient(scores), -jnp.inf), top_k)[1].astype(jnp.int32)


def _pick(values: Float[Array, "s n"], ids: Int[Array, "s k"]) -> Float[Array, "s k"]:
    """values[s, ids[s, k]], by comparison: its gradient is then a product and not a scatter."""
    chosen = jax.nn.one_hot(ids, values.shape[1], dtype=bool)
    return jnp.sum(jnp.where(chosen, values[:, None, :], 0.0), axis=-1)


def expert_choice(
    logits: Float[Array, "s e"], mask: Bool[Array, " s"], capacity: int, most: int | None = None
) -> Routing:
    """Every expert takes the `capacity` tokens that suit it best (arXiv 2202.09368): even load, no drops.

    A row holds a token's experts, best first, and sentinels; `most` limits them (None: all). Weights are softmax
    probabilities over all experts. An expert sees all tokens when it chooses: in a decoder, later words too.
    """
    num_experts = logits.shape[1]
    logits = jnp.where(mask[:, None], logits.astype(jnp.float32), 0.0)
    probabilities = jnp.where(mask[:, None], jax.nn.softmax(logits), 0.0)
    scores = jnp.where(mask[:, None], jax.lax.stop_gradient(probabilities), -1.0)
    taken = jax.lax.top_k(scores.T, min(capacity, mask.shape[0]))[1]
    chosen = jnp.any(jax.nn.one_hot(taken, mask.shape[0], dtype=bool), axis=1).T & mask[:, None]
    ranked = jnp.where(chosen, scores, -1.0)
    best, ids = jax.lax.top_k(ranked, num_experts if most is None else most)
    ids = jnp.where(best >= 0, ids, num_experts).astype(jnp.int32)
    return Routing(ids, _pick(probabilities, ids), probabilities, logits, is_real=mask)


def forced(routing: Routing, kind: str, key: Array) -> Routing:
    """The routing with its experts replaced, for benchmarks: "uniform" loads all experts alike, "zipf" expert i by
    1 / (i + 1). Weights stay those of a top-k choice: the probabilities of the experts, made to sum to 1 for k > 1.
    """
    num_tokens, top_k = routing.ids.shape
    num_experts = routing.probabilities.shape[1]
    if kind == "uniform":
        ids = (jnp.arange(num_tokens)[:, None] * top_k + jnp.arange(top_k)[None]) % num_experts
        ids = jax.random.permutation(key, ids)
    elif kind == "zipf":
        shares = -jnp.log(jnp.arange(1.0, num_experts + 1))
        ids = jax.lax.top_k(jax.random.gumbel(key, (num_tokens, num_experts)) + shares[None], top_k)[1]
    else:
        raise ValueError(f"forced routing must be uniform or zipf, got {kind!r}")
    ids = jnp.where(routing.ids < num_experts, ids, num_experts).astype(jnp.int32)
    weights = _pick(routing.probabilities, ids)
    if top_k > 1:
        weights /= jnp.maximum(jnp.sum(weights, axis=-1, keepdims=True), 1e-30)
    return routing._replace(ids=ids, weights=weights)
