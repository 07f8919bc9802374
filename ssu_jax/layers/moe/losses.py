"""Router losses and statistics, of one expert layer. Counts are returned, never kept.

Sums run over all tokens of the call; in a partitioned program those are the global batch, which is what
the balance loss should see (arXiv 2501.11873).
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ssu_jax.layers.moe.router import Routing


def balance_loss(routing: Routing) -> Float[Array, ""]:
    """E * sum_i f_i P_i (Switch Transformer, arXiv 2101.03961): 1 when even, E when one expert has all.

    f_i is the share of assignments that chose expert i, dropped ones included; P_i its mean probability.
    In the two-step choice the mean of two such terms: over experts, and over groups.
    """
    fractions = load_of(routing)
    tokens = jnp.maximum(jnp.sum(_is_real(routing)), 1)
    means = jnp.sum(routing.probabilities, axis=0) / tokens
    balance = fractions.size * jnp.sum(fractions * means)
    if routing.group_logits is not None:
        num_groups = routing.group_logits.shape[1]
        by_group = fractions.reshape(num_groups, -1).sum(-1), means.reshape(num_groups, -1).sum(-1)
        balance = (balance + num_groups * jnp.sum(by_group[0] * by_group[1])) / 2
    return balance


def z_loss(routing: Routing) -> Float[Array, ""]:
    """Mean of logsumexp(logits)^2 over real tokens (ST-MoE, arXiv 2202.08906), summed over both steps."""
    is_real = _is_real(routing)
    total = jnp.zeros(())
    for logits in (routing.logits, routing.group_logits):
        if logits is not None:
            total += jnp.sum(jnp.where(is_real, jax.nn.logsumexp(logits, axis=-1) ** 2, 0.0))
    return total / jnp.maximum(jnp.sum(is_real), 1)


def load_of(routing: Routing) -> Float[Array, " e"]:
    """Share of the assignments that chose each expert, before drops; sums to 1 (0 without real tokens)."""
    num_experts = routing.probabilities.shape[1]
    counts = jnp.sum(jax.nn.one_hot(routing.ids, num_experts, dtype=jnp.int32), axis=(0, 1))
    return counts / jnp.maximum(jnp.sum(counts), 1)


def statistics(routing: Routing, dropped: Int[Array, ""]) -> dict[str, Array]:
    """The two losses and what to watch, as a flat dict.

    balance, z: float32 []. load: float32 [e], see `load_of`. max_load: float32 [], largest load over the mean
    load. entropy: float32 [], nats, of a token's probabilities, mean over real tokens. assigned, dropped,
    padding: int32 []; they sum to s * k exactly. dropped_share: float32 [], of the assignments that name an expert.
    tokens: int32 [], real ones.
    """
    load = load_of(routing)
    is_real = _is_real(routing)
    log_probabilities = jnp.log(jnp.maximum(routing.probabilities, 1e-30))
    entropy = -jnp.sum(routing.probabilities * log_probabilities) / jnp.maximum(jnp.sum(is_real), 1)
    padding = jnp.sum(routing.ids >= load.size, dtype=jnp.int32)
    return {
        "balance": balance_loss(routing),
        "z": z_loss(routing),
        "load": load,
        "max_load": jnp.max(load) * load.size,
        "entropy": jax.lax.stop_gradient(entropy),
        "assigned": routing.ids.size - padding - dropped,
        "dropped": dropped,
        "dropped_share": dropped / jnp.maximum(routing.ids.size - padding, 1),
        "padding": padding,
        "tokens": jnp.sum(is_real, dtype=jnp.int32),
    }


def sums(stats: dict[str, Array]) -> dict[str, Array]:
    """What of `statistics` (of one layer, or stacked) can be added up over parts of a batch; `of_sums` divides again.

    chosen: float32 [..., e], assignments that chose each expert.  dropped, tokens, entropy: float32 [...]; entropy is
    the sum over tokens. A mean of the shares themselves would weigh a part with few words like one with many.
    """
    tokens = stats["tokens"].astype(jnp.float32)
    asked = (stats["assigned"] + stats["dropped"]).astype(jnp.float32)
    return {
        "chosen": stats["load"] * asked[..., None],
        "dropped": stats["dropped"].astype(jnp.float32),
        "tokens": tokens,
        "entropy": stats["entropy"] * tokens,
    }


def of_sums(total: dict[str, Float[Array, "..."]]) -> dict[str, Float[Array, "..."]]:
    """load [..., e], max_load, entropy and dropped_share [...] as `statistics` means them, from (weighted) `sums`."""
    asked = jnp.sum(total["chosen"], axis=-1)
    load = total["chosen"] / jnp.where(asked > 0, asked, 1.0)[..., None]
    return {
        "load": load,
        "max_load": jnp.max(load, axis=-1) * load.shape[-1],
        "entropy": total["entropy"] / jnp.where(asked > 0, total["tokens"], 1.0),
        "dropped_share": total["dropped"] / jnp.where(asked > 0, asked, 1.0),
    }


def updated_bias(bias: Float[Array, "*b e"], load: Float[Array, "*b e"], rate: float) -> Float[Array, "*b e"]:
    """The choice's bias after a step (arXiv 2408.15664): up by `rate` where the load was below the mean, else down.

    Zeros to begin with; no gradient reaches it and no optimizer moves it. In the two-step choice with one group a token
    it evens the experts of each group, not the groups.
    """
    return bias + rate * jnp.sign(jnp.mean(load, axis=-1, keepdims=True) - load)


def _is_real(routing: Routing):
    return routing.ids[:, 0] < routing.probabilities.shape[1] if routing.is_real is None else routing.is_real
