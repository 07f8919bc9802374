"""How tokens reach their experts and come back, on one device.

`gather` (our design after published measurements: scatters of activations are slow forward and backward)
sorts the small ids, gathers activations into one fixed buffer [e, p, d], and gathers the results back; a
custom derivative keeps the way back free of scatters as well. `dense` runs every expert on every token:
the oracle of the tests, and exact whatever a token's neighbours are.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ssu_jax.layers.moe.router import Routing

ExpertFn = Callable[[Array], Array]  # [e, p, d] -> [e, p, d], row by row


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
    plan = make_plan(routing.ids, routing.probabilities.shape[1], x.shape[0] if capacity is None else capacity)
    outputs = expert_fn(_to_slots(x, plan))
    rows = _from_slots(outputs, plan)
    return jnp.einsum("ksd,sk->sd", rows.astype(jnp.float32), routing.weights), plan.dropped


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


DISPATCHES = {"gather": gather, "dense": dense}


class Plan(NamedTuple):
    """Where every assignment goes. Assignment i is choice i // s of token i % s; one past the end means none."""

    slot_of_assignment: Any  # int32 [k, s] into the flat slots e * p; e * p where dropped or padding
    assignment_of_slot: Any  # int32 [e, p] into the flat assignments k * s; k * s where the slot is empty
    token_of_slot: Any  # int32 [e, p]; s where the slot is empty
    dropped: Any  # int32 []


def make_plan(ids: Int[Array, "s k"], num_experts: int, capacity: int) -> Plan:
    """Slots by one stable sort of the ids (sentinel e = padding), int32 throughout."""
    num_tokens, top_k = ids.shape
    flat = ids.T.reshape(-1)  # choice-major: second choices stand behind all first ones
    places = jnp.arange(flat.size, dtype=jnp.int32)
    order = _stable_order(flat, num_experts)
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


def _stable_order(ids: Int[Array, " n"], largest: int) -> Int[Array, " n"]:
    """Stable argsort of ids in 0..largest. Sorting id * n + place has no ties and takes a third of the time."""
    n = ids.size
    if (largest + 1) * n >= 2**31:
        return jnp.argsort(ids, stable=True).astype(jnp.int32)
    return jnp.sort(ids * n + jnp.arange(n, dtype=jnp.int32)) % n


@jax.custom_vjp
def _to_slots(x: Float[Array, "s d"], plan: Plan) -> Float[Array, "e p d"]:
    """Activations in the order of the slots; zeros in empty ones."""
    return _rows(x, plan.token_of_slot)


def _to_slots_forward(x, plan):
    return _to_slots(x, plan), plan


def _to_slots_backward(plan, gradient):
    flat = gradient.reshape(-1, gradient.shape[-1])
    return jnp.sum(_rows(flat, plan.slot_of_assignment), axis=0), None


_to_slots.defvjp(_to_slots_forward, _to_slots_backward)


@jax.custom_vjp
def _from_slots(outputs: Float[Array, "e p d"], plan: Plan) -> Float[Array, "k s d"]:
    """The experts' rows back in the order of the assignments; zeros for dropped ones and padding."""
    return _rows(outputs.reshape(-1, outputs.shape[-1]), plan.slot_of_assignment)


def _from_slots_forward(outputs, plan):
    return _from_slots(outputs, plan), plan


def _from_slots_backward(plan, gradient):
    return _rows(gradient.reshape(-1, gradient.shape[-1]), plan.assignment_of_slot), None


_from_slots.defvjp(_from_slots_forward, _from_slots_backward)


def _rows(table: Float[Array, "n d"], ids: Int[Array, "*any"]) -> Float[Array, "*any d"]:
    """table[ids]; the id n gives a row of zeros."""
    return jnp.take(table, ids, axis=0, mode="fill", fill_value=0)
