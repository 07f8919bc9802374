"""What the expert layer costs beside a dense feed-forward block of equal active FLOPs: one JSON line.

    python benchmarks/moe_overhead.py --tokens 4000 --capacity-factor 1.0

Both are compiled, forward and backward, router losses included, and run in turns on the same input; the
ratio is between the fastest runs, in CPU time of the process (all threads) and in wall-clock time. With a
capacity factor of 1.0 the experts multiply exactly what the dense block multiplies, and what overflows is
dropped: the share of dropped tokens stands beside the ratio.
"""

import argparse
import json
import pathlib
import platform
import time

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp

from ssu_jax.config.model import MoEConfig
from ssu_jax.layers.moe.experts import MixtureOfExperts


class Dense(nn.Module):
    """The block that the experts replace: `hidden` is that of the experts a token visits, together."""

    hidden: int
    width: int
    dtype: str

    @nn.compact
    def __call__(self, x):
        hidden = nn.gelu(nn.Dense(self.hidden, dtype=self.dtype)(x))
        return nn.Dense(self.width, dtype=self.dtype)(hidden)


def measure(args: argparse.Namespace) -> dict:
    """Times both layers and returns the figures."""
    config = MoEConfig(
        num_experts=args.experts, top_k=args.top_k, hidden=args.hidden, capacity_factor=args.capacity_factor
    )
    keys = jax.random.split(jax.random.key(args.seed), 4)
    x = jax.random.normal(keys[0], (args.tokens, args.width))
    router_input = jax.random.normal(keys[1], (args.tokens, args.router_width or args.width))
    mask = jnp.ones(args.tokens, bool)
    experts = MixtureOfExperts(config, args.width, args.dtype)
    dense = Dense(args.hidden * args.top_k, args.width, args.dtype)

    def expert_loss(params, x, router_input):
        y, statistics = experts.apply(params, x, router_input, mask, train=True)
        loss = jnp.mean(jnp.square(y.astype(jnp.float32))) + statistics["balance"] + statistics["z"]
        return loss, statistics["dropped"]

    def dense_loss(params, x):
        return jnp.mean(jnp.square(dense.apply(params, x).astype(jnp.float32)))

    with_experts = jax.jit(jax.grad(expert_loss, (0, 1, 2), has_aux=True))
    with_dense = jax.jit(jax.grad(dense_loss, (0, 1)))
    expert_inputs = jax.jit(experts.init)(keys[2], x, router_input, mask), x, router_input
    dense_inputs = jax.jit(dense.init)(keys[3], x), x
    dropped = with_experts(*expert_inputs)[1]
    jax.block_until_ready(with_dense(*dense_inputs))

    seconds = {"dense": [], "experts": []}
    for _ in range(args.repeats):  # in turns, so that a busy machine slows both alike
        seconds["dense"].append(_seconds(with_dense, dense_inputs))
        seconds["experts"].append(_seconds(with_experts, expert_inputs))
    fastest = {name: [min(column) for column in zip(*rows, strict=True)] for name, rows in seconds.items()}
    return {
        "benchmark": "moe_overhead",
        **vars(args),
        "ratio_cpu_time": round(fastest["experts"][0] / fastest["dense"][0], 3),
        "ratio_wall_time": round(fastest["experts"][1] / fastest["dense"][1], 3),
        "dense_cpu_seconds": round(fastest["dense"][0], 6),
        "dense_wall_seconds": round(fastest["dense"][1], 6),
        "dropped_share": round(int(dropped) / (args.tokens * args.top_k), 4),
        "device": jax.devices()[0].device_kind,
        "versions": {"python": platform.python_version(), "jax": jax.__version__, "flax": flax.__version__},
    }


def _seconds(function, inputs) -> tuple[float, float]:
    """CPU and wall-clock seconds of one call."""
    cpu, wall = time.process_time(), time.perf_counter()
    jax.block_until_ready(function(*inputs))
    return time.process_time() - cpu, time.perf_counter() - wall


def main() -> None:
    """Prints the line; `--json` writes it to a file as well."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=4000, help="tokens of a step")
    parser.add_argument("--width", type=int, default=128, help="token width")
    parser.add_argument("--router-width", type=int, default=0, help="width of the router's input; 0: the token's")
    parser.add_argument("--hidden", type=int, default=256, help="hidden width of one expert")
    parser.add_argument("--experts", type=int, default=4, help="number of experts")
    parser.add_argument("--top-k", type=int, default=1, help="experts a token visits")
    parser.add_argument("--capacity-factor", type=float, default=1.0, help="slots over the even share")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"), help="of the computation")
    parser.add_argument("--repeats", type=int, default=40, help="timed calls of each layer")
    parser.add_argument("--seed", type=int, default=0, help="of inputs and parameters")
    parser.add_argument("--json", default="", help="file that receives the line")
    args = parser.parse_args()
    result = measure(args)
    result.pop("json")
    line = json.dumps(result)
    print(line)
    if args.json:
        pathlib.Path(args.json).write_text(line + "\n")


if __name__ == "__main__":
    main()
