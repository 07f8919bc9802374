"""How tokens reach their experts and come back, on one device.

`gather` (our design after published measurements: scatters of activations are slow forward and backward)
sorts the small ids, gathers activations into one fixed buffer [e, p, d], and gathers the results back; a
custom derivative keeps the way back free of scatters as well. `blocks` and `ragged` gather the activations in
the order of their experts, without slots, and drop nothing (grouped.py). `einsum` moves tokens by products with
one-hot matrices (GShard, arXiv 2006.16668), the baseline. `dense` runs every expert on every token: the oracle of
the tests, and exact whatever a token's neighbours are.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float, Int

from ssu_jax.layers.moe import grouped
from ssu_jax.layers.moe.network import Network
from ssu_jax.layers.moe.router import Routing

ExpertFn = Callable[[Array], Array]  # [e, p, d] -> [e, p, d], row by row: a Network, whatever the way
DISPATCHED = "moe_dispatched"  # for a remat policy: the experts' input
EINSUM_GROUP = 512  # tokens of a group of `einsum`: its cost grows with the square


def capacity_of(num_tokens: int, num_experts: int, top_k: int, capacity_factor: float) -> int:
    """Slots of one expert: its even share times the factor, rounded up; never more than there are tokens."""
    # The tiny subtraction keeps 1.1 * 100 = 110.00000000000001 from asking for a 111th slot.
    share = math.ceil(capacity_factor * num_tokens * top_k / num_experts - 1e-6)
    return max(1, min(share, num_tokens))


def gather(
    x: Float[Array, "s d"], routing: Routing, expert_fn: ExpertFn, capacity: int | None
) -> tuple[Float[Array, "s d"], Int[Array, ""]]:
    """Weighted sum of each token's experts, float32, and the number of dropped assignments.

    An expert takes its first `capacity` assignments (all first choices before any second, then token order)
    and drops the rest: they add 0, the residual carries the token. `capacity` None drops none.
    """
    plan = plan_of(routing, x.shape[0] if capacity is None else capacity)
    outputs = expert_fn(checkpoint_name(to_slots(x, plan), DISPATCHED))
    return combine(outputs, plan, routing.weights), plan.dropped


def plan_of(routing: Routing, capacity: int) -> "Plan":
    """The plan of a routing: its ids, and its priority where it has one."""
    return make_plan(routing.ids, routing.probabilities.shape[1], capacity, routing.priority)


def dense(
    x: Float[Array, "s d"], routing: Routing, expert_fn: ExpertFn, capacity: int | None = None
) -> tuple[Float[Array, "s d"], Int[Array, ""]]:
    """As `gather` without a limit: `capacity` is ignored and nothing is dropped."""
    num_experts = routing.probabilities.shape[1]
    is_real = jnp.any(routing.ids < num_experts, axis=-1, keepdims=True)
    outputs = expert_fn(jnp.broadcast_to(jnp.where(is_real, x, 0), (num_experts, *x.shape)))
    chosen = jax.nn.one_hot(routing.ids, num_experts, dtype=bool)
    weights = jnp.sum(jnp.where(chosen, routing.weights[..., None], 0.0), axis=1)
    return jnp.einsum("esd,se->sd", outputs.astype(jnp.float32), weights), jnp.zeros((), jnp.int32)


def einsum(
    x: Float[Array, "s d"], routing: Routing, expert_fn: ExpertFn, capacity: int | None
) -> tuple[Float[Array, "s d"], Int[Array, ""]]:
    """As `gather`, by one-hot products in groups of tokens, each with its share of the capacity, rounded up."""
    num_tokens, num_experts = x.shape[0], routing.probabilities.shape[1]
    size = min(EINSUM_GROUP, num_tokens)
    count = -(-num_tokens // size)
    slots = size if capacity is None else min(size, -(-capacity * size // num_tokens))

    def groups(rows, value):
        filled = jnp.pad(rows, ((0, count * size - num_tokens), (0, 0)), constant_values=value)
        return filled.reshape(count, size, rows.shape[1])

    ids, priority = groups(routing.ids, num_experts), routing.priority
    priority = None if priority is None else groups(priority, 0.0)
    plans = jax.vmap(lambda ids, priority: make_plan(ids, num_experts, slots, priority))(ids, priority)
    # The one-hot row of a slot past the end, where an assignment was dropped, is zero.
    places = jax.nn.one_hot(plans.slot_of_assignment, num_experts * slots, dtype=x.dtype)  # [g, k, s, e * p]
    is_real = jnp.any(routing.ids < num_experts, axis=-1, keepdims=True)
    inputs = jnp.einsum("gksz,gsd->zgd", places, groups(jnp.where(is_real, x, 0), 0))
    outputs = expert_fn(inputs.reshape(num_experts, slots * count, -1)).reshape(-1, count, x.shape[1])
    weighted = jnp.einsum("gksz,gsk->gsz", places.astype(jnp.float32), groups(routing.weights, 0.0))
    y = jnp.einsum("gsz,zgd->gsd", weighted, outputs.astype(jnp.float32))
    return y.reshape(-1, x.shape[1])[:num_tokens], jnp.sum(plans.dropped)


def blocks(
    x: Float[Array, "s d"], routing: Routing, expert_fn: Network, capacity: int | None = None
) -> tuple[Float[Array, "s d"], Int[Array, ""]]:
    """As `dense`, at the price of the assignments on a CPU: `capacity` is ignored and nothing is dropped."""
    return _sorted(x, routing, expert_fn, grouped.blocked)


def ragged(
    x: Float[Array, "s d"], routing: Routing, expert_fn: Network, capacity: int | None = None
) -> tuple[Float[Array, "s d"], Int[Array, ""]]:
    """As `blocks`, by `jax.lax.ragged_dot`: slow on a CPU."""
    return _sorted(x, routing, expert_fn, grouped.ragged)


def _sorted(x, routing, network, product):
    num_experts = routing.probabilities.shape[1]
    plan, sizes = sorted_plan(routing.ids, num_experts)
    outputs = network.rows(checkpoint_name(to_slots(x, plan)[0], DISPATCHED), sizes, product)
    return combine(outputs[None], plan, routing.weights), plan.dropped


DISPATCHES = {"gather": gather, "einsum": einsum, "blocks": blocks, "ragged": ragged, "dense": dense}


class Plan(NamedTuple):
    """Where every assignment goes. Assignment i is choice i // s of token i % s; one past the end means none."""

    slot_of_assignment: Any  # int32 [k, s] into the flat slots e * p; e * p where dropped or padding
    assignment_of_slot: Any  # int32 [e, p] into the flat assignments k * s; k * s where the slot is empty
    token_of_slot: Any  # int32 [e, p]; s where the slot is empty
    dropped: Any  # int32 []


def make_plan(
    ids: Int[Array, "s k"], num_experts: int, capacity: int, priority: Float[Array, "s k"] | None = None
) -> Plan:
    """Slots by one stable sort of the ids (sentinel e = padding), int32 throughout.

    With `priority` the assignments of an expert stand in line by it, the highest first (batch priority routing,
    arXiv 2106.05974); without, all first choices before any second, then token order.
    """
    num_tokens, top_k = ids.shape
    flat = ids.T.reshape(-1)  # choice-major: second choices stand behind all first ones
    places = jnp.arange(flat.size, dtype=jnp.int32)
    if priority is None:
        order = _stable_order(flat, num_experts)
    else:
        by_rank = -jax.lax.stop_gradient(priority).T.reshape(-1)
        order = jax.lax.sort((flat, by_rank, places), num_keys=2, is_stable=True)[2]
    counts = jnp.sum(jax.nn.one_hot(flat, num_experts, dtype=jnp.int32), axis=0)
    starts = jnp.cumsum(counts) - counts

    slots = jnp.arange(capacity, dtype=jnp.int32)[None]
    filled = slots < counts[:, None]
    source = jnp.minimum(starts[:, None] + slots, flat.size - 1)
    assignment_of_slot = jnp.where(filled, order[source], flat.size)
    token_of_slot = jnp.where(filled, assignment_of_slot % num_tokens, num_tokens)

    rank = jnp.zeros_like(places).at[order].set(places, unique_indices=True)  # the inverse of order
    expert = jnp.minimum(flat, num_experts - 1)
    slot = rank - starts[expert]
    kept = (flat < num_experts) & (slot < capacity)
    slot_of_assignment = jnp.where(kept, expert * capacity + slot, num_experts * capacity)
    dropped = jnp.sum(jnp.maximum(counts - capacity, 0))
    return Plan(slot_of_assignment.reshape(top_k, num_tokens), assignment_of_slot, token_of_slot, dropped)


def sorted_plan(ids: Int[Array, "s k"], num_experts: int) -> tuple[Plan, Int[Array, " e"]]:
    """One long row of slots [1, s * k] in the order of the experts, padding behind; and the rows of each expert."""
    flat = ids.T.reshape(-1)
    is_real = ids < num_experts
    order = _stable_order(flat, num_experts)
    places = jnp.arange(flat.size, dtype=jnp.int32)
    rank = jnp.zeros_like(places).at[order].set(places, unique_indices=True)
    sizes = jnp.sum(jax.nn.one_hot(flat, num_experts, dtype=jnp.int32), axis=0)
    filled = places < jnp.sum(sizes)
    assignment = jnp.where(filled, order, flat.size)
    token = jnp.where(filled, order % ids.shape[0], ids.shape[0])
    slot = jnp.where(is_real.T.reshape(-1), rank, flat.size).reshape(ids.shape[::-1])
    return Plan(slot, assignment[None], token[None], jnp.zeros((), jnp.int32)), sizes


def _stable_order(ids: Int[Array, " n"], largest: int) -> Int[Array, " n"]:
    """Stable argsort of ids in 0..largest. Sorting id * n + place has no ties and takes a third of the time."""
    n = ids.size
    if (largest + 1) * n >= 2**31:
        return jnp.argsort(ids, stable=True).astype(jnp.int32)
    return jnp.sort(ids * n + jnp.arange(n, dtype=jnp.int32)) % n


@jax.custom_vjp
def to_slots(x: Float[Array, "s d"], plan: Plan) -> Float[Array, "e p d"]:
    """Activations in the order of the slots; zeros in empty ones."""
    return _rows(x, plan.token_of_slot)


def to_slots_forward(x, plan):
    return to_slots(x, plan), plan


def to_slots_backward(plan, gradient):
    flat = gradient.reshape(-1, gradient.shape[-1])
    return _sum_of_few(_rows(flat, plan.slot_of_assignment)), None


to_slots.defvjp(to_slots_forward, to_slots_backward)


@jax.custom_vjp
def combine(outputs: Float[Array, "e p d"], plan: Plan, weights: Float[Array, "s k"]) -> Float[Array, "s d"]:
    """Each token's weighted sum, float32, of what stands in its slots; dropped assignments and padding add 0."""
    rows = _rows(outputs.reshape(-1, outputs.shape[-1]), plan.slot_of_assignment).astype(jnp.float32)
    return _sum_of_few(rows * weights.T[..., None])


def combine_forward(outputs, plan, weights):
    return combine(outputs, plan, weights), (outputs, plan, weights)


def combine_backward(kept, gradient):
    outputs, plan, weights = kept
    answers = _rows(outputs.reshape(-1, outputs.shape[-1]), plan.slot_of_assignment).astype(jnp.float32)
    by_weights = jnp.einsum("ksd,sd->sk", answers, gradient)
    weight_of_slot = _rows(weights.T.reshape(-1), plan.assignment_of_slot)
    by_outputs = _rows(gradient, plan.token_of_slot) * weight_of_slot[..., None]
    return by_outputs.astype(outputs.dtype), None, by_weights


combine.defvjp(combine_forward, combine_backward)


def _sum_of_few(rows: Float[Array, "k s d"]) -> Float[Array, "s d"]:
    """The sum over k, written out: as one reduction it takes a CPU twenty times as long (measured, k = 2)."""
    return sum(rows[1:], start=rows[0])


def _rows(table: Float[Array, "n ..."], ids: Int[Array, "..."]) -> Float[Array, "..."]:
    """table[ids]; the id n gives a row of zeros. The barrier keeps it a copy of rows: fused with the sum that follows,
    a CPU looks every number up by itself, at twice the time (measured, 8192 rows of 768).
    """
    return jax.lax.optimization_barrier(jnp.take(table, ids, axis=0, mode="fill", fill_value=0))
