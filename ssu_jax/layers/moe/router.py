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


def route(
    logits: Float[Array, "s e"],
    mask: Bool[Array, " s"],
    top_k: int,
    group_logits: Float[Array, "s g"] | None = None,
) -> Routing:
    """Top-k experts of each token; with `group_logits`, of the token's best group.

    Weights: for k = 1 the softmax probability over all experts, so that the router has a gradient and one
    expert has weight exactly 1; for k > 1 the probabilities of the chosen, made to sum to 1. In the two-step
    choice they are those inside the group, times the group's own probability.
    Raises ValueError when the pool of a token is smaller than top_k, or groups do not divide the experts.
    """
    num_experts = logits.shape[1]
    num_groups = 1 if group_logits is None else group_logits.shape[1]
    if num_experts % num_groups:
        raise ValueError(f"experts must divide into equal groups: got {num_experts} experts, {num_groups} groups")
    if not 1 <= top_k <= num_experts // num_groups:
        raise ValueError(f"top_k must be 1..{num_experts // num_groups} (experts a token can reach), got {top_k}")

    # Padding rows may hold anything, NaN included: cleared before the softmax so that gradients are clean too.
    logits = jnp.where(mask[:, None], logits.astype(jnp.float32), 0.0)
    if group_logits is None:
        group_of, group_probabilities = jnp.zeros(mask.shape, jnp.int32), jnp.ones((mask.shape[0], 1), jnp.float32)
    else:
        group_logits = jnp.where(mask[:, None], group_logits.astype(jnp.float32), 0.0)
        group_of = jnp.argmax(group_logits, axis=-1).astype(jnp.int32)
        group_probabilities = jax.nn.softmax(group_logits)

    inside = jax.nn.softmax(logits.reshape(-1, num_groups, num_experts // num_groups))
    ids = _best(logits, group_of, num_groups, top_k)
    weights = _pick(inside.reshape(logits.shape), ids)
    if top_k > 1:
        weights /= jnp.sum(weights, axis=-1, keepdims=True)
    weights *= _pick(group_probabilities, group_of[:, None])
    probabilities = (inside * group_probabilities[..., None]).reshape(logits.shape)
    return Routing(
        ids=jnp.where(mask[:, None], ids, num_experts),
        weights=jnp.where(mask[:, None], weights, 0.0),
        probabilities=jnp.where(mask[:, None], probabilities, 0.0),
        logits=logits,
        group_logits=group_logits,
    )


def _best(
    logits: Float[Array, "s e"], group_of: Int[Array, " s"], num_groups: int, top_k: int
) -> Int[Array, "s {top_k}"]:
    """Ids of the top_k largest logits in each token's group, best first; the lower id wins a tie."""
    per_group = logits.shape[1] // num_groups
    in_group = jnp.arange(logits.shape[1])[None] // per_group == group_of[:, None]
    return jax.lax.top_k(jnp.where(in_group, jax.lax.stop_gradient(logits), -jnp.inf), top_k)[1].astype(jnp.int32)


def _pick(values: Float[Array, "s n"], ids: Int[Array, "s k"]) -> Float[Array, "s k"]:
    """values[s, ids[s, k]], by comparison: its gradient is then a product and not a scatter."""
    chosen = jax.nn.one_hot(ids, values.shape[1], dtype=bool)
    return jnp.sum(jnp.where(chosen, values[:, None, :], 0.0), axis=-1)
