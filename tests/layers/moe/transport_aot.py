"""A training step of the layer's transports, compiled for chips that are not there; prints a JSON line a program.

transport_aot.py TOPOLOGY TRANSPORT...      v5p:2x2x2 (needs libtpu) or cpu:8; the mesh is (data 2, expert 4)

all_to_all:again computes the forward pass a second time in the backward pass, all_to_all:kept all but what the text
decoder keeps then.
"""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from transport_cases import network_shapes

from ssu_jax.layers.moe import dispatch, transport
from ssu_jax.layers.moe.network import Network
from ssu_jax.layers.moe.router import Routing
from ssu_jax.models.ssuformer.text_decoder import KEPT
from ssu_jax.profiling import hlo, topology

TOKENS, EXPERTS, TOP_K, WIDTH, HIDDEN, FACTOR = 8 * 256, 16, 2, 256, 256, 1.25


def lowered(devices, way: str, dtype):
    """The program of loss and gradients for tokens, weights and experts, each in its parts as the layer has them."""
    mesh = Mesh(np.array(devices).reshape(2, 4), ("data", "expert"), axis_types=(AxisType.Auto,) * 2)
    way, _, remat = way.partition(":")
    placement = transport.Placement(mesh, ("data", "expert"), "expert")
    plan = transport.Plan(way, "ragged" if way == "ragged" else "gather", FACTOR)

    def loss(x, weights, network, ids):
        def layer(x, weights, network):
            routing = Routing(ids, weights, jnp.zeros((TOKENS, EXPERTS)), None)
            return transport.across(x, routing, network, plan, placement)[0]

        layer = jax.checkpoint(layer, policy=KEPT if remat == "kept" else None) if remat else layer
        return jnp.mean(layer(x, weights, network) ** 2)

    def shape(axes, *dims, dtype=dtype):
        return jax.ShapeDtypeStruct(dims, dtype, sharding=NamedSharding(mesh, PartitionSpec(axes)))

    rows = ("data", "expert")
    shapes = network_shapes(EXPERTS, WIDTH, HIDDEN)
    network = Network(**{name: shape("expert", *dims) for name, dims in shapes.items()})
    x, weights = shape(rows, TOKENS, WIDTH), shape(rows, TOKENS, TOP_K, dtype=jnp.float32)
    ids = shape(rows, TOKENS, TOP_K, dtype=jnp.int32)
    return jax.jit(jax.value_and_grad(loss, (0, 1, 2))).lower(x, weights, network, ids)


def main() -> None:
    wanted = topology.parse(sys.argv[1])
    devices = topology.devices(wanted)
    dtype = jnp.float32 if wanted.kind == "cpu" else jnp.bfloat16
    capacity = dispatch.capacity_of(TOKENS // 8, EXPERTS, TOP_K, FACTOR)
    least = EXPERTS * capacity * WIDTH * jnp.dtype(dtype).itemsize  # of one exchange: cf * k * tokens of a chip * width
    for way in sys.argv[2:]:
        program = lowered(devices, way, dtype)
        # As written, before the compiler may find that two of them are one.
        written = program.as_text().count("stablehlo.all_to_all")
        found = hlo.collectives(program.compile().as_text())
        print(json.dumps({"transport": way, "least": least, "written": written, "found": found}), flush=True)


if __name__ == "__main__":
    main()
