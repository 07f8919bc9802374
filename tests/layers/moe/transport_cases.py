"""Every transport on meshes of eight devices against the dense oracle; prints a line a case. Run by test_transport.py.

The oracle runs every expert on every token and drops what numpy, counting by hand, finds beyond the capacity.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType

from ssu_jax import sharding
from ssu_jax.config.model import MoEConfig
from ssu_jax.layers.moe import dispatch, transport
from ssu_jax.layers.moe.experts import MixtureOfExperts
from ssu_jax.layers.moe.network import Network
from ssu_jax.layers.moe.router import Routing
from ssu_jax.types import UserError

TOKENS, EXPERTS, TOP_K, WIDTH, HIDDEN = 48, 8, 2, 8, 16
MESHES = [(1, 1), (2, 4), (8, 1), (1, 8)]  # data, expert


def inputs(case: str):
    """x, ids, weights and a network: padding, experts that nobody chooses, or one that everybody does."""
    rng = np.random.default_rng(1)
    ids = np.argsort(rng.random((TOKENS, EXPERTS)), axis=1)[:, :TOP_K]
    if case == "empty":
        ids = np.argsort(rng.random((TOKENS, 2)), axis=1)[:, :TOP_K] + 3
    if case == "hot":
        ids[:, 0], ids[:, 1] = 5, np.where(ids[:, 1] == 5, 6, ids[:, 1])
    if case != "hot":
        ids[rng.random(TOKENS) < 0.25] = EXPERTS
    keys = jax.random.split(jax.random.key(0), 6)
    weights = jnp.where(jnp.asarray(ids) < EXPERTS, jax.random.uniform(keys[0], ids.shape), 0.0)
    shapes = (EXPERTS, WIDTH, HIDDEN), (EXPERTS, HIDDEN), (EXPERTS, HIDDEN, WIDTH), (EXPERTS, WIDTH)
    network = Network(*(jax.random.normal(key, shape) / 3 for key, shape in zip(keys[1:5], shapes, strict=True)))
    return jax.random.normal(keys[5], (TOKENS, WIDTH)), jnp.asarray(ids, jnp.int32), weights, network


def routing_of(ids, weights) -> Routing:
    return Routing(ids, weights, jnp.zeros((ids.shape[0], EXPERTS)), None)


def kept_by_hand(ids, parts: int, factor: float) -> np.ndarray:
    """Which assignments find a slot when each of `parts` stretches of tokens has its own lines before the experts."""
    kept = np.zeros(ids.shape, bool)
    for rows in np.split(np.arange(TOKENS), parts):
        capacity = dispatch.capacity_of(len(rows), EXPERTS, TOP_K, factor)
        for expert in range(EXPERTS):
            line = [(choice, row) for choice in range(TOP_K) for row in rows if ids[row, choice] == expert]
            for choice, row in line[:capacity]:
                kept[row, choice] = True
    return kept


def emulated(rows, output, starts, sizes, places, received, *, axis_name):
    """What `jax.lax.ragged_all_to_all` is documented to do, by gathering everything."""
    everything = [jax.lax.all_gather(each, axis_name) for each in (rows, starts, sizes, places)]
    me, row = jax.lax.axis_index(axis_name), jnp.arange(output.shape[0])
    for source in range(jax.lax.axis_size(axis_name)):
        theirs, start, size, place = everything[0][source], *(each[source, me] for each in everything[1:])
        own = (row >= place) & (row < place + size)
        moved = jnp.take(theirs, row - place + start, axis=0, mode="clip")
        output = jnp.where(own[:, None], moved, output)
    del received
    return output


def gap(ours, theirs) -> float:
    pairs = zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True)
    return max(float(np.max(np.abs(a - b)) / max(1e-9, np.max(np.abs(b)))) for a, b in pairs)


def compare(mesh_shape, case, plan, tensor=1, fsdp=1) -> None:
    """Prints the largest gap of loss and gradients from the oracle's, relative to the largest entry, and the drops."""
    data, expert = mesh_shape
    devices = jax.devices()[: data * expert * tensor * fsdp]
    names = ("rows", "cut", "holders", "units")  # any names: the layer takes them as arguments
    mesh = jax.make_mesh((data, fsdp, expert, tensor), names, axis_types=(AxisType.Auto,) * 4, devices=devices)
    placement = transport.Placement(mesh, ("rows", "cut", "holders"), "holders", "cut", "units")
    x, ids, weights, network = inputs(case)
    dropless = plan.dropless or plan.transport == "ragged" or plan.dispatch in ("blocks", "ragged", "dense")
    dropless = dropless and not (plan.transport == "all_to_all" and not plan.dropless)
    parts = data * fsdp * (1 if plan.transport == "ring" else expert)
    kept = np.asarray(ids) < EXPERTS if dropless else kept_by_hand(np.asarray(ids), parts, plan.capacity_factor)

    def loss(x, weights, network):
        y, dropped = transport.across(x, routing_of(ids, weights), network, plan, placement)
        return jnp.mean(jnp.sin(y) ** 2), dropped

    def oracle(x, weights, network):
        y, _ = dispatch.dense(x, routing_of(ids, jnp.where(kept, weights, 0.0)), network)
        return jnp.mean(jnp.sin(y) ** 2)

    (value, dropped), slopes = jax.jit(jax.value_and_grad(loss, (0, 1, 2), has_aux=True))(x, weights, network)
    expected, expected_slopes = jax.jit(jax.value_and_grad(oracle, (0, 1, 2)))(x, weights, network)
    drops = int(np.sum((np.asarray(ids) < EXPERTS) & ~kept))
    ok = abs(float(value) - float(expected)) < 1e-6 and gap(slopes, expected_slopes) < 1e-5 and int(dropped) == drops
    print(
        "ok" if ok else "WRONG", mesh_shape, case, *plan, f"loss {abs(float(value - expected)):.1e}",
        f"gradients {gap(slopes, expected_slopes):.1e}", f"dropped {int(dropped)} of {drops}", flush=True,
    )  # fmt: skip


def compare_layer(**changes) -> None:
    """The layer with its parameters under a mesh of (2, 1, 4, 1) against itself on one device, nothing dropped."""
    config = MoEConfig(num_experts=EXPERTS, top_k=TOP_K, hidden=HIDDEN, capacity_factor=8.0, **changes)
    layer = MixtureOfExperts(config, WIDTH)
    x, router_input = (jax.random.normal(jax.random.key(seed), (TOKENS, WIDTH)) for seed in (1, 2))
    mask = jnp.arange(TOKENS) % 5 != 0
    params = jax.jit(layer.init)(jax.random.key(0), x, router_input, mask)

    def loss(params, x, router_input):
        y, statistics = layer.apply(params, x, router_input, mask, train=True)
        return jnp.mean(jnp.sin(y) ** 2) + 0.01 * statistics["balance"] + 0.01 * statistics["z"], statistics

    expected = jax.jit(jax.value_and_grad(loss, (0, 1, 2), has_aux=True))(params, x, router_input)
    mesh = sharding.make_mesh((2, 1, 4, 1))
    params = jax.device_put(params, sharding.shardings_of(params, mesh))
    tokens = jax.device_put((x, router_input), sharding.batch_sharding(mesh))
    run = sharding.within(mesh, jax.jit(jax.value_and_grad(loss, (0, 1, 2), has_aux=True)))
    ours = run(params, *tokens)
    text = "all-to-all" if config.transport == "all_to_all" else "all-gather"
    with sharding.using(mesh):
        moved = text in jax.jit(loss).lower(params, *tokens).compile().as_text()
    ok = abs(float(ours[0][0] - expected[0][0])) < 1e-6 and gap(ours[1], expected[1]) < 1e-5 and moved
    slopes = gap(ours[1], expected[1])
    print("ok" if ok else "WRONG", "layer", config.transport, f"gradients {slopes:.1e}", "dropped 0 of 0", flush=True)


def main() -> None:
    refused = transport.Placement(jax.make_mesh((8,), ("e",), axis_types=(AxisType.Auto,)), ("e",), "e")
    try:
        transport.check(transport.Plan("ragged"), refused, EXPERTS)
    except UserError as error:
        print("refused:", error)
    for mesh_shape, way in itertools.product(MESHES, ("none", "all_to_all", "ring")):
        compare(mesh_shape, "overflow", transport.Plan(way, "gather", 0.6))
    for case, way in itertools.product(("empty", "hot"), ("all_to_all", "ring")):
        compare((2, 4), case, transport.Plan(way, "gather", 1.0))
    compare((2, 4), "overflow", transport.Plan("all_to_all", "gather", 4.0, True))  # nothing overflows
    compare((2, 4), "hot", transport.Plan("all_to_all", "gather", 1.0, True))  # the ring's branch
    compare((2, 4), "overflow", transport.Plan("all_to_all", "ragged", 0.6))
    for kind in ("einsum", "ragged", "dense"):
        compare((2, 4), "empty", transport.Plan("ring", kind, 4.0))
    compare((1, 2), "overflow", transport.Plan("all_to_all", "gather", 0.6), tensor=2, fsdp=2)
    compare_layer(transport="all_to_all")
    transport.check, transport.exchange_rows = lambda *_: None, emulated
    for mesh_shape, case in (((2, 4), "hot"), ((1, 8), "empty")):
        compare(mesh_shape, case, transport.Plan("ragged", "dense"))


if __name__ == "__main__":
    main()
