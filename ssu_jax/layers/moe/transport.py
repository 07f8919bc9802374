"""Experts on several devices: how tokens reach the device that holds their expert, in one `jax.shard_map`.

All mesh axes are manual there: tokens are split over some of them, experts over one, and an expert's weights may be
split further, over `fsdp` (gathered before use) and `tensor` (each device a part of the hidden units). `none` gathers
all experts on every device. `all_to_all` sends slots to the experts' devices and back: the fewest bytes where experts
are many. `ring` gathers the tokens of all devices of the expert axis, runs the own experts on them and scatters the
sums: any load fits. `ragged` sends exactly the assignments (`jax.lax.ragged_all_to_all`: TPU, GPU).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import AbstractMesh, Mesh
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int

from ssu_jax.layers.moe import dispatch, grouped
from ssu_jax.layers.moe.network import Network
from ssu_jax.layers.moe.router import Routing
from ssu_jax.types import UserError

TRANSPORTS = ("none", "all_to_all", "ring", "ragged")
# For a remat policy that repeats no exchange: what `all_to_all` brings to the experts, and their answers back.
RECEIVED, ANSWERED = "moe_received", "moe_answered"


class Placement(NamedTuple):
    """The mesh, and which of its axes what is split over. Axes of size 1 are allowed."""

    mesh: Mesh | AbstractMesh
    tokens: tuple[str, ...]  # the axes of a batch; `expert` and `fsdp` should be among them
    expert: str
    fsdp: str | None = None
    tensor: str | None = None

    def size(self, axis: str | None) -> int:
        return 1 if axis is None else self.mesh.shape[axis]

    @property
    def platform(self) -> str | None:
        if isinstance(self.mesh, Mesh):
            return self.mesh.devices.flat[0].platform
        return self.mesh.abstract_device.platform if self.mesh.abstract_device else None


class Plan(NamedTuple):
    """What of the configuration the way of the tokens depends on."""

    transport: str = "none"
    dispatch: str = "gather"
    capacity_factor: float = 1.0
    dropless: bool = False


def local(
    x: Float[Array, "s d"], routing: Routing, network: Network, plan: Plan, platform: str | None = None
) -> tuple[Float[Array, "s d"], Int[Array, ""]]:
    """Weighted sum of each token's experts and the number of dropped assignments, all experts being here.

    platform: of the devices that it is compiled for; None: those of this process.
    """
    num_experts, top_k = routing.probabilities.shape[1], routing.ids.shape[1]
    kind = plan.dispatch
    if plan.dropless and kind in ("gather", "einsum"):  # slots for the worst case would be E times the work
        kind = "blocks" if (platform or jax.default_backend()) == "cpu" else "ragged"
    capacity = dispatch.capacity_of(x.shape[0], num_experts, top_k, plan.capacity_factor)
    return dispatch.DISPATCHES[kind](x, routing, network, capacity)


def across(
    x: Float[Array, "s d"], routing: Routing, network: Network, plan: Plan, placement: Placement
) -> tuple[Float[Array, "s d"], Int[Array, ""]]:
    """As `local`, over the devices of a mesh; `dropped` counts all of them.

    Capacity is counted where tokens are dispatched: per device (`none`, `all_to_all`) or per expert axis (`ring`).
    `ragged`, and any transport with `dropless`, drops nothing. Raises UserError for what a mesh cannot run.
    """
    num_tokens, num_experts = x.shape[0], routing.probabilities.shape[1]
    check(plan, placement, num_experts)
    num_shards = 1
    for axis in placement.tokens:
        num_shards *= placement.size(axis)
    missing = -num_tokens % num_shards

    def padded(rows, value=0):
        return jnp.pad(rows, ((0, missing), (0, 0)), constant_values=value)

    priority = None if routing.priority is None else padded(routing.priority)
    tokens = padded(x), padded(routing.ids, num_experts), padded(routing.weights), priority
    rows, specs = P(placement.tokens), _weight_specs(network, placement)

    def shard(x, ids, weights, priority, network):
        sent = Routing(ids, weights, jnp.zeros((1, num_experts)), None, priority=priority)
        network = _whole(network, specs, placement, plan.transport == "none")
        y, dropped = _WAYS[plan.transport](x, sent, network, plan, placement)
        if placement.size(placement.tensor) > 1:
            y = jax.lax.psum(y, placement.tensor)
        return y, jax.lax.psum(dropped, placement.tokens)

    # Unchecked: the loops of grouped.py carry zeros, which are typed as the same on every device.
    run = jax.shard_map(
        shard, mesh=placement.mesh, in_specs=(rows, rows, rows, rows, specs), out_specs=(rows, P()), check_vma=False
    )
    y, dropped = run(*tokens, network)
    return y[:num_tokens], dropped


def check(plan: Plan, placement: Placement, num_experts: int) -> None:
    """Raises UserError, in one line, for what cannot run on this mesh."""
    size = placement.size(placement.expert)
    if num_experts % size:
        raise UserError(f"moe: {num_experts} experts do not divide over {size} devices: take a multiple of {size}")
    if plan.transport == "all_to_all" and plan.dispatch in ("einsum", "dense"):
        raise UserError(
            f"moe: transport all_to_all moves slots, which dispatch {plan.dispatch} has none of: take dispatch gather"
        )
    if plan.transport == "ragged" and placement.platform == "cpu":
        raise UserError(
            "moe: transport ragged wants a TPU or GPU, XLA has no ragged-all-to-all for CPUs: take transport all_to_all"
        )


def _weight_specs(network: Network, placement: Placement) -> Network:
    """Where the weights lie. An axis that does not divide a width leaves it whole."""

    def over(axis, length):
        return axis if placement.size(axis) > 1 and length % placement.size(axis) == 0 else None

    _, width, hidden = network.expand.shape
    fsdp, tensor, expert = over(placement.fsdp, width), over(placement.tensor, hidden), placement.expert
    rows = P(expert, fsdp)
    return Network(P(expert, fsdp, tensor), P(expert, tensor), P(expert, tensor, fsdp), rows, prompts=rows)


def _whole(network: Network, specs: Network, placement: Placement, all_experts: bool) -> Network:
    """The weights of this device's experts (or of all), gathered over fsdp; over tensor they stay in parts."""

    def gathered(weight, spec):
        for dimension, axis in enumerate(spec):
            if axis is not None and (axis == placement.fsdp or (axis == placement.expert and all_experts)):
                weight = jax.lax.all_gather(weight, axis, axis=dimension, tiled=True)
        return weight

    network = Network(*map(gathered, network, specs))
    if placement.size(placement.tensor) == 1:
        return network
    # The parts are summed: the bias counts once, and where the hidden units are whole, so do they.
    share = (jax.lax.axis_index(placement.tensor) == 0).astype(network.contract.dtype)
    if specs.contract[1] is None:
        network = network._replace(contract=network.contract * share)
    return network._replace(contract_bias=network.contract_bias * share)


def _none(x, routing, network, plan, placement):
    return local(x, routing, network, plan, placement.platform)


def _all_to_all(x, routing, network, plan, placement):
    """Slots to the devices of their experts and back; with `dropless` the ring where a buffer would overflow."""
    num_experts, top_k = routing.probabilities.shape[1], routing.ids.shape[1]
    capacity = dispatch.capacity_of(x.shape[0], num_experts, top_k, plan.capacity_factor)
    slots = dispatch.plan_of(routing, capacity)

    def exchange():
        outputs = _exchanged(dispatch.to_slots(x, slots), network, plan, placement)
        return dispatch.combine(outputs, slots, routing.weights), slots.dropped

    if not plan.dropless:
        return exchange()
    # All devices take one branch: a collective inside it must meet its peers.
    overflow = jax.lax.psum(slots.dropped, placement.tokens) > 0
    return jax.lax.cond(overflow, lambda: _ring(x, routing, network, plan, placement), exchange)


def _exchanged(slots, network, plan, placement):
    """[e, p, d] -> [e, p, d], each expert's slots of all devices answered where the expert is."""
    size, (num_experts, capacity, width) = placement.size(placement.expert), slots.shape
    here = num_experts // size
    slots = jax.lax.all_to_all(slots, placement.expert, split_axis=0, concat_axis=1, tiled=True)  # [here, size * p, d]
    slots = checkpoint_name(slots, RECEIVED)
    if plan.dispatch in ("blocks", "ragged"):
        product = grouped.blocked if plan.dispatch == "blocks" else grouped.ragged
        rows = jnp.full((here,), size * capacity, jnp.int32)
        outputs = network.rows(slots.reshape(-1, width), rows, product).reshape(slots.shape)
    else:
        outputs = network(slots)
    outputs = jax.lax.all_to_all(outputs, placement.expert, split_axis=1, concat_axis=0, tiled=True)
    return checkpoint_name(outputs, ANSWERED)


def _ring(x, routing, network, plan, placement):
    """The own experts on the tokens of all devices of the expert axis, the sums back where they belong."""
    axis, num_experts = placement.expert, routing.probabilities.shape[1]
    here = num_experts // placement.size(axis)
    first = jax.lax.axis_index(axis) * here

    def everyones(rows):
        return None if rows is None else jax.lax.all_gather(rows, axis, axis=0, tiled=True)

    ids = everyones(routing.ids) - first
    ids = jnp.where((ids >= 0) & (ids < here), ids, here)
    mine = Routing(ids, everyones(routing.weights), jnp.zeros((1, here)), None, priority=everyones(routing.priority))
    # An expert's slots are its even share of all these tokens, as they would be with all experts here.
    shares = plan._replace(capacity_factor=plan.capacity_factor * here / num_experts)
    y, dropped = local(everyones(x), mine, network, shares, placement.platform)
    return jax.lax.psum_scatter(y, axis, scatter_dimension=0, tiled=True), dropped


def _ragged(x, routing, network, plan, placement):
    """Rows sorted by expert to the experts' devices and back; buffers hold the worst case, all rows of all devices."""
    axis, num_experts = placement.expert, routing.probabilities.shape[1]
    size = placement.size(axis)
    here, me = num_experts // size, jax.lax.axis_index(axis)
    order, sizes = dispatch.sorted_plan(routing.ids, num_experts)
    rows = dispatch.to_slots(x, order)[0]
    counts = jax.lax.all_gather(sizes, axis).reshape(size, size, here)  # from, to, expert
    between = counts.sum(axis=2)

    send_starts, receive_starts = _before(between[me]), _before(between[:, me])
    there = jnp.cumsum(between, axis=0) - between  # where a device's rows begin at their destination
    back = jnp.cumsum(between, axis=1) - between  # and where they stood at home
    buffer = jnp.zeros_like(rows, shape=(size * rows.shape[0], rows.shape[1]))
    received = exchange_rows(rows, buffer, send_starts, between[me], there[me], between[:, me], axis_name=axis)
    ends = jnp.cumsum(counts[:, me].reshape(-1))
    segment = jnp.searchsorted(ends, jnp.arange(buffer.shape[0]), side="right", method="compare_all")
    ids = jnp.where(segment < size * here, segment % here, here).astype(jnp.int32)[:, None]
    arrived = Routing(ids, jnp.ones(ids.shape), jnp.zeros((1, here)), None)
    kind = plan.dispatch if plan.dispatch in ("blocks", "ragged", "dense") else "gather"
    plan = plan._replace(dispatch=kind, dropless=True)
    y, _ = local(received, arrived, network, plan, placement.platform)
    y = y.astype(rows.dtype)
    home = jnp.zeros_like(rows)
    answers = exchange_rows(y, home, receive_starts, between[:, me], back[:, me], between[me], axis_name=axis)
    return dispatch.combine(answers[None], order, routing.weights), order.dropped


def exchange_rows(*operands: Any, axis_name: str) -> Array:
    """`jax.lax.ragged_all_to_all`, by a name of its own: a CPU has none, and tests put their own in its place."""
    return jax.lax.ragged_all_to_all(*operands, axis_name=axis_name)


def _before(counts: Int[Array, " n"]) -> Int[Array, " n"]:
    return jnp.cumsum(counts) - counts


_WAYS: dict[str, Callable] = {"none": _none, "all_to_all": _all_to_all, "ring": _ring, "ragged": _ragged}
