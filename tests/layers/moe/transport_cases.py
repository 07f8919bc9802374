"""Every transport on meshes of eight devices against the dense oracle; prints a line a case. Run by test_transport.py.

    transport_cases.py chosen               a covering set, eight forced devices of one process
    transport_cases.py product              every dispatch by every transport on every mesh
    transport_cases.py process ID N PORT [all]   this process's part of a run over N processes (gloo); all: more plans

The oracle runs every expert on every token and drops what numpy, counting by hand, finds beyond the capacity. A
program is compiled once a mesh and plan; which tokens go where is its input, so that the cases share it.
"""

import functools
import itertools
import sys

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from ssu_jax import sharding
from ssu_jax.config.model import MoEConfig
from ssu_jax.layers.moe import dispatch, transport
from ssu_jax.layers.moe.experts import MixtureOfExperts
from ssu_jax.layers.moe.network import Network
from ssu_jax.layers.moe.router import Routing
from ssu_jax.types import UserError

TOKENS, EXPERTS, TOP_K, WIDTH, HIDDEN = 46, 8, 2, 8, 16  # 46: on eight devices the last one is filled up
MESHES = [(1, 1), (2, 4), (8, 1), (1, 8)]  # data, expert
CASES = ("masked", "empty", "hot")  # at a small capacity factor all of them overflow
DROPLESS = ("blocks", "ragged", "dense")
SLOTTED = ("gather", "blocks", "ragged")  # what all_to_all takes
Plan = transport.Plan


def choices(case: str) -> np.ndarray:
    """ids [s, k]: a quarter of padding, experts that nobody chooses, or one that everybody does."""
    rng = np.random.default_rng(1)
    ids = np.argsort(rng.random((TOKENS, EXPERTS)), axis=1)[:, :TOP_K]
    if case == "empty":
        ids = np.argsort(rng.random((TOKENS, 2)), axis=1)[:, :TOP_K] + 3
    if case == "hot":
        ids[:, 0], ids[:, 1] = 5, np.where(ids[:, 1] == 5, 6, ids[:, 1])
    else:
        ids[rng.random(TOKENS) < 0.25] = EXPERTS
    return ids.astype(np.int32)


def network_shapes(e: int, d: int, h: int) -> dict[str, tuple[int, ...]]:
    shapes = {"expand": (e, d, h), "expand_bias": (e, h), "contract": (e, h, d)}
    return {name: shapes.get(name, (e, d)) for name in Network._fields}


def numbers(ids: np.ndarray):
    """x [s, d], weights [s, k] and a network."""
    rng = np.random.default_rng(2)
    weights = np.where(ids < EXPERTS, rng.uniform(size=ids.shape), 0.0)
    shapes = network_shapes(EXPERTS, WIDTH, HIDDEN)
    network = Network(**{name: rng.normal(size=shape) / 3 for name, shape in shapes.items()})
    return jax.tree.map(np.float32, (rng.normal(size=(TOKENS, WIDTH)), weights, network))


def routing_of(ids, weights) -> Routing:
    return Routing(ids, weights, jnp.zeros((ids.shape[0], EXPERTS)), None)


def kept_by_hand(ids: np.ndarray, shards: int, parts: int, factor: float) -> np.ndarray:
    """Which assignments find a slot when each of `parts` stretches of tokens has its own lines before the experts."""
    filled = np.concatenate([ids, np.full((-len(ids) % shards, TOP_K), EXPERTS)])
    kept = np.zeros(filled.shape, bool)
    for rows in np.split(np.arange(len(filled)), parts):
        capacity = dispatch.capacity_of(len(rows), EXPERTS, TOP_K, factor)
        for expert in range(EXPERTS):
            line = [(choice, row) for choice in range(TOP_K) for row in rows if filled[row, choice] == expert]
            for choice, row in line[:capacity]:
                kept[row, choice] = True
    return kept[: len(ids)]


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
    pairs = [(np.asarray(a), np.asarray(b)) for a, b in pairs]
    return max(float(np.max(np.abs(a - b)) / max(1e-9, np.max(np.abs(b)))) for a, b in pairs)


def spread(sharding, tree):
    """Arrays that every process has, as arrays of all their devices."""
    return jax.tree.map(lambda a: jax.make_array_from_callback(a.shape, sharding, a.__getitem__), tree)


def score(y):
    return jnp.mean(jnp.sin(y) ** 2)


@functools.cache
def oracle():
    def loss(x, weights, network, ids, kept):
        return score(dispatch.dense(x, routing_of(ids, jnp.where(kept, weights, 0.0)), network)[0])

    return jax.jit(jax.value_and_grad(loss, (0, 1, 2)))


def compare(mesh_shape, plan: Plan, cases=CASES, tensor=1, fsdp=1) -> None:
    """Prints the largest gap of loss and gradients from the oracle's, relative to the largest entry, and the drops."""
    data, expert = mesh_shape
    devices = jax.devices()[: data * expert * tensor * fsdp]
    names = ("rows", "cut", "holders", "units")  # any names: the layer takes them as arguments
    mesh = jax.make_mesh((data, fsdp, expert, tensor), names, axis_types=(AxisType.Auto,) * 4, devices=devices)
    everywhere = NamedSharding(mesh, PartitionSpec())  # so that every process holds all of what is compared
    placement = transport.Placement(mesh, ("rows", "cut", "holders"), "holders", "cut", "units")

    def loss(x, weights, network, ids):
        y, dropped = transport.across(x, routing_of(ids, weights), network, plan, placement)
        return score(y), dropped

    run = jax.jit(jax.value_and_grad(loss, (0, 1, 2), has_aux=True), out_shardings=everywhere)
    never_drops = plan.dropless or plan.transport == "ragged"
    never_drops |= plan.dispatch in DROPLESS and plan.transport != "all_to_all"  # it sends slots whatever fills them
    shards = data * fsdp * expert
    for case in cases:
        ids = choices(case)
        parts = data * fsdp if plan.transport == "ring" else shards
        kept = ids < EXPERTS if never_drops else kept_by_hand(ids, shards, parts, plan.capacity_factor)
        inputs = numbers(ids)
        spread = jax.tree.map(
            lambda a: jax.make_array_from_callback(a.shape, everywhere, a.__getitem__), (*inputs, ids)
        )
        (value, dropped), slopes = jax.tree.map(np.asarray, run(*spread))
        expected, expected_slopes = oracle()(*inputs, ids, kept)
        drops = int(np.sum((ids < EXPERTS) & ~kept))
        away, apart = abs(float(value) - float(expected)), gap(slopes, expected_slopes)
        ok = away < 1e-6 and apart < 1e-5 and int(dropped) == drops
        print("ok" if ok else "WRONG", mesh_shape, case, *plan, f"loss {away:.1e} gradients {apart:.1e}",
              f"dropped {int(dropped)} of {drops}", flush=True)  # fmt: skip


def compare_layer(**changes) -> None:
    """The layer with its parameters under a mesh of (2, 1, 4, 1) against itself on one device, nothing dropped."""
    config = MoEConfig(num_experts=EXPERTS, top_k=TOP_K, hidden=HIDDEN, capacity_factor=8.0, **changes)
    layer = MixtureOfExperts(config, WIDTH)
    x, router_input = (jax.random.normal(jax.random.key(seed), (48, WIDTH)) for seed in (1, 2))
    mask = jnp.arange(48) % 5 != 0
    params = jax.jit(layer.init)(jax.random.key(0), x, router_input, mask)

    def loss(params, x, router_input):
        y, statistics = layer.apply(params, x, router_input, mask, train=True)
        return score(y) + 0.01 * statistics["balance"] + 0.01 * statistics["z"], statistics

    slope = jax.value_and_grad(loss, (0, 1, 2), has_aux=True)
    expected = jax.jit(slope)(params, x, router_input)
    mesh = sharding.make_mesh((2, 1, 4, 1))
    params = jax.device_put(params, sharding.shardings_of(params, mesh))
    tokens = jax.device_put((x, router_input), sharding.batch_sharding(mesh))
    with sharding.using(mesh):
        program = jax.jit(slope).lower(params, *tokens).compile()
    ours = program(params, *tokens)
    text = "all-to-all" if config.transport == "all_to_all" else "all-gather"
    slopes = gap(ours[1], expected[1])
    ok = abs(float(ours[0][0] - expected[0][0])) < 1e-6 and slopes < 1e-5 and text in program.as_text()
    print("ok" if ok else "WRONG", "layer", config.transport, f"gradients {slopes:.1e} dropped 0 of 0", flush=True)


def refuse() -> None:
    """Prints why each of these pairs cannot run here."""
    mesh = jax.make_mesh((jax.device_count(),), ("e",), axis_types=(AxisType.Auto,))
    for plan in (Plan("ragged"), Plan("all_to_all", "einsum"), Plan("all_to_all", "dense")):
        try:
            transport.check(plan, transport.Placement(mesh, ("e",), "e"), EXPERTS)
        except UserError as error:
            print("refused:", error)


def emulate(meshes, dispatches) -> None:
    """The ragged transport with its exchange played by gathers: all but the exchange itself, which no CPU has."""
    transport.check, transport.exchange_rows = lambda *_: None, emulated
    for mesh_shape, kind in itertools.product(meshes, dispatches):
        compare(mesh_shape, Plan("ragged", kind))


def chosen() -> None:
    """Every mesh, transport and dispatch at least once, and what each transport does that no other does."""
    refuse()
    compare((1, 1), Plan("all_to_all", "gather", 0.6))
    compare((2, 4), Plan("all_to_all", "gather", 0.6))
    compare((8, 1), Plan("ring", "gather", 0.6), CASES[:1])
    compare((1, 8), Plan("ring", "gather", 0.6))
    compare((2, 4), Plan("none", "einsum", 0.6), CASES[:1])
    compare((2, 4), Plan("all_to_all", "gather", 1.4, True))  # masked fits, the others take the ring's branch
    compare((1, 8), Plan("ring", "blocks"), CASES[1:])
    compare((2, 4), Plan("ring", "ragged"), CASES[1:2])
    compare((1, 2), Plan("all_to_all", "gather", 0.6), CASES[:1], tensor=2, fsdp=2)
    compare_layer(transport="all_to_all")
    emulate([(2, 4)], ["dense"])


def product() -> None:
    refuse()
    kinds = tuple(dispatch.DISPATCHES)
    pairs = [
        *itertools.product(("none", "ring"), kinds),
        *itertools.product(["all_to_all"], ("gather", "blocks", "ragged")),
    ]
    for mesh_shape, (way, kind), dropless in itertools.product(MESHES, pairs, (False, True)):
        compare(mesh_shape, Plan(way, kind, 0.6, dropless))
    compare((2, 4), Plan("all_to_all", "gather", 4.0, True))  # nothing overflows anywhere
    for way in ("none", "all_to_all", "ring"):
        compare((1, 2), Plan(way, "gather", 0.6), tensor=2, fsdp=2)
    compare_layer(transport="all_to_all")
    compare_layer(transport="ring")
    emulate(MESHES, kinds)


def process(index: str, count: str, port: str, *more: str) -> None:
    """Four devices a process; on (1, 8) the expert axis crosses the processes, on (2, 4) the data axis does."""
    address = f"127.0.0.1:{port}"
    jax.distributed.initialize(address, int(count), int(index), coordinator_bind_address=address)
    assert jax.process_count() == int(count)
    assert jax.local_device_count() < jax.device_count() == 8
    for way in ("all_to_all", "ring"):
        compare((1, 8), Plan(way, "gather", 0.6))
    if more:
        for mesh_shape, way in itertools.product(((2, 4), (8, 1)), ("none", "all_to_all", "ring")):
            compare(mesh_shape, Plan(way, "gather", 0.6))
        for kind in ("blocks", "ragged"):
            compare((1, 8), Plan("ring", kind))
        compare((1, 8), Plan("all_to_all", "gather", 1.4, True))


if __name__ == "__main__":
    {"chosen": chosen, "product": product, "process": process}[sys.argv[1]](*sys.argv[2:])
