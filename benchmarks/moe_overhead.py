"""What the expert layer costs beside a dense feed-forward block of equal active FLOPs: one JSON line a figure.

    python benchmarks/moe_overhead.py --experts 1 8 32 64 --capacity 1.0 1.25 --json overhead.jsonl
    python benchmarks/moe_overhead.py --experts 8 32 --dropless --routing zipf learned
    python benchmarks/moe_overhead.py --experts 8 --hidden 1568 --granularity 1 7     # 8 of which 2, 56 of which 14

Both are compiled, router and its losses included, and run in turns on the same input, so that a busy machine slows
both alike; the ratio is between the medians, in CPU time of the process (all threads) and in wall-clock time. A pass
is `forward` or `train` (forward and all gradients). With a capacity of 1.0 the experts multiply exactly what the
dense block multiplies; what overflows is dropped, and the share of dropped assignments stands beside the ratio.
Whatever the number of experts and their granularity, the dense block is the same, so that ratios compare to each other.

The C library gives large buffers back to the system after every call and gets them zeroed again, page by page: with
the gradients of many experts that is a cost of its own, which `system_seconds` shows. In the environment (glibc)
MALLOC_ARENA_MAX=1 MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=100000000000 let a process keep them.
"""

import argparse
import itertools
import json
import os
import pathlib
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

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


def measure(args: argparse.Namespace, experts: int, capacity: float, routing: str, granularity: int = 1) -> list[dict]:
    """Times both layers, forward and train, and returns two figures."""
    config = config_of(args, experts, capacity, routing, granularity)
    layer, dense = layer_of(args, config), dense_of(args)
    figures = []
    for name in PASSES:
        medians = medians_of({"dense": dense[name], "experts": layer[name]}, args.repeats)
        stats = layer["statistics"]()
        figures.append({
            "benchmark": "moe_overhead", "experts": config.num_experts, "capacity": capacity, "pass": name,
            "routing": routing, "granularity": granularity,
            "ratio": round(medians["experts"]["cpu"] / medians["dense"]["cpu"], 3),
            "dropped": round(float(stats["dropped_share"]), 4), "max_load": round(float(stats["max_load"]), 3),
            "ratio_wall_time": round(medians["experts"]["wall"] / medians["dense"]["wall"], 3),
            **{f"{layer}_{kind}_seconds": round(seconds, 6)
               for layer, kinds in medians.items() for kind, seconds in kinds.items()},
            **{key: getattr(args, key) for key in _SETTINGS}, "top_k": config.top_k, "hidden": config.hidden,
            **machine(),
        })  # fmt: skip
    return figures


def config_of(args: argparse.Namespace, experts: int, capacity: float, routing: str, granularity: int = 1) -> MoEConfig:
    """The layer's options: whatever the number of experts, those that a token visits are as wide as the dense block.

    `granularity` g: g times as many experts, of which a token visits g times as many, each as narrow.
    """
    top_k = min(args.top_k, experts) * granularity
    return MoEConfig(
        num_experts=experts * granularity, top_k=top_k, hidden=args.hidden * args.top_k // top_k,
        capacity_factor=capacity, dispatch=args.dispatch, dropless=args.dropless,
        forced_routing={"learned": "none"}.get(routing, routing),
    )  # fmt: skip


def layer_of(args: argparse.Namespace, config: MoEConfig) -> dict[str, Callable]:
    """A call without arguments for each pass, compiled, router and its losses included; and `statistics`."""
    keys = jax.random.split(jax.random.key(args.seed), 3)
    x = jax.random.normal(keys[0], (args.tokens, args.width))
    router_input = jax.random.normal(keys[1], (args.tokens, args.router_width or args.width))
    mask = jnp.ones(args.tokens, bool)
    layer = MixtureOfExperts(config, args.width, args.dtype)
    inputs = jax.jit(layer.init)(keys[2], x, router_input, mask), x, router_input

    def loss(params, x, router_input):
        y, stats = layer.apply(params, x, router_input, mask, train=True)
        loss = jnp.mean(jnp.square(y.astype(jnp.float32))) + stats["balance"] + stats["z"]
        return loss, {name: stats[name] for name in ("dropped_share", "max_load")}

    forward, train = jax.jit(loss), jax.jit(jax.grad(loss, (0, 1, 2), has_aux=True))
    return {
        "forward": lambda: forward(*inputs),
        "train": lambda: train(*inputs),
        "statistics": lambda: forward(*inputs)[1],
    }


def dense_of(args: argparse.Namespace) -> dict[str, Callable]:
    """The same of the dense block."""
    keys = jax.random.split(jax.random.key(args.seed), 4)
    x = jax.random.normal(keys[0], (args.tokens, args.width))
    dense = Dense(args.hidden * args.top_k, args.width, args.dtype)
    inputs = jax.jit(dense.init)(keys[3], x), x

    def loss(params, x):
        return jnp.mean(jnp.square(dense.apply(params, x).astype(jnp.float32)))

    forward, train = jax.jit(loss), jax.jit(jax.grad(loss, (0, 1)))
    return {"forward": lambda: forward(*inputs), "train": lambda: train(*inputs)}


def medians_of(calls: dict[str, Callable], repeats: int) -> dict[str, dict[str, float]]:
    """Median CPU, wall-clock and (of the CPU) system seconds of each call, run in turns after one that compiles."""
    for call in calls.values():
        jax.block_until_ready(call())
    rows = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            cpu, wall, system = time.process_time(), time.perf_counter(), os.times().system
            jax.block_until_ready(call())
            rows[name].append((time.process_time() - cpu, time.perf_counter() - wall, os.times().system - system))
    columns = {name: zip(*runs, strict=True) for name, runs in rows.items()}
    return {name: dict(zip(("cpu", "wall", "system"), map(statistics.median, each), strict=True))
            for name, each in columns.items()}  # fmt: skip


def machine() -> dict[str, Any]:
    """What a figure depends on besides its settings."""
    return {
        "keeps_buffers": os.environ.get("MALLOC_MMAP_MAX_") == "0", "device": jax.devices()[0].device_kind,
        "versions": {"python": platform.python_version(), "jax": jax.__version__, "flax": flax.__version__},
    }  # fmt: skip


PASSES = ("forward", "train")
_SETTINGS = ("tokens", "width", "router_width", "dispatch", "dropless", "dtype", "repeats", "seed")


def main() -> None:
    """Prints the lines as they come; `--json` writes them to a file as well."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experts", type=int, nargs="+", default=[1, 8, 32, 64], help="numbers of experts")
    parser.add_argument("--capacity", type=float, nargs="+", default=[1.0], help="slots over the even share")
    parser.add_argument("--routing", nargs="+", default=["uniform"], choices=("uniform", "zipf", "learned"),
                        help="forced loads, or the router's as it is initialised")  # fmt: skip
    parser.add_argument("--dispatch", default="gather", choices=("gather", "einsum", "blocks", "ragged"))
    parser.add_argument("--dropless", action="store_true", help="drop nothing, whatever the capacity")
    parser.add_argument("--tokens", type=int, default=4096, help="tokens of a step")
    parser.add_argument("--width", type=int, default=768, help="token width")
    parser.add_argument("--router-width", type=int, default=0, help="width of the router's input; 0: the token's")
    parser.add_argument("--hidden", type=int, default=1536, help="hidden width of one of top_k experts")
    parser.add_argument("--top-k", type=int, default=2, help="experts a token visits")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"), help="of the computation")
    parser.add_argument("--granularity", type=int, nargs="+", default=[1],
                        help="times as many experts, and of them to a token, each as narrow")  # fmt: skip
    parser.add_argument("--repeats", type=int, default=7, help="timed calls of each layer")
    parser.add_argument("--seed", type=int, default=0, help="of inputs and parameters")
    parser.add_argument("--json", default="", help="file that receives the lines")
    args = parser.parse_args()
    if any(args.hidden * args.top_k % (min(args.top_k, e) * g) for e in args.experts for g in args.granularity):
        parser.error(f"--hidden {args.hidden} does not divide by the granularities {args.granularity}")
    lines = []
    for experts, capacity, routing, granularity in itertools.product(
        args.experts, args.capacity, args.routing, args.granularity
    ):
        for figure in measure(args, experts, capacity, routing, granularity):
            lines.append(json.dumps(figure))
            print(lines[-1], flush=True)
    if args.json:
        pathlib.Path(args.json).write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
