"""Our expert layer beside others at the same sizes, in one run: one JSON line a figure.

    python benchmarks/moe_baselines.py --experts 8 32 --json baselines.jsonl
    python benchmarks/moe_baselines.py --experts 64 --layers gather dropless qwen3_grouped_mm --repeats 7

* gather            ours, slots at capacity 1.0
* dropless          ours, nothing dropped (by blocks of sorted rows on a CPU)
* einsum            dispatch by products with one-hot matrices, as GShard and V-MoE do, at the same capacity
* ragged_dot        sorted rows and `jax.lax.ragged_dot`
* qwen3_grouped_mm  transformers' Qwen3-MoE block in torch, on the CPU, with its grouped product: drops nothing
* qwen3_eager       the same, with the loop over experts that it runs by default

All run in turns, so that a busy machine slows all alike: CPU seconds of the process, all threads, medians. A pass is
`forward` or `train` (forward and all gradients). Every expert gets the same number of tokens; the routers compute all
the same. `ratio` is over the dense block of equal active FLOPs in the same framework. A Qwen3 expert has three
matrices: with two thirds of the width it multiplies what one of ours does (`--qwen-hidden` for another width).
Needs the extra [convert] for torch and transformers. Memory settings: see benchmarks/moe_overhead.py.
"""

import argparse
import copy
import json
import os
import pathlib
from collections.abc import Callable
from typing import Any

from moe_overhead import PASSES, config_of, dense_of, layer_of, machine, medians_of

OURS = {
    "gather": {"dispatch": "gather"},
    "dropless": {"dispatch": "gather", "dropless": True},
    "einsum": {"dispatch": "einsum"},
    "ragged_dot": {"dispatch": "ragged"},
}
QWEN = {"qwen3_grouped_mm": "grouped_mm", "qwen3_eager": "eager"}
LAYERS = (*OURS, *QWEN)


def measure(args: argparse.Namespace, experts: int) -> list[dict[str, Any]]:
    """A figure of every layer and pass."""
    calls = {"dense": dense_of(args)}
    for name in args.layers:
        if name in OURS:
            options = argparse.Namespace(**{**vars(args), "dropless": False, **OURS[name]})
            calls[name] = layer_of(options, config_of(options, experts, args.capacity, "uniform"))
    theirs = [name for name in args.layers if name in QWEN]
    if theirs:
        calls |= qwen_of(args, experts, theirs)
    figures = []
    for kind in PASSES:
        medians = medians_of({name: passes[kind] for name, passes in calls.items()}, args.repeats)
        for name in args.layers:
            dense = "dense_torch" if name in QWEN else "dense"
            cpu = medians[name]["cpu"]
            against = {f"times_{ours}": round(cpu / medians[ours]["cpu"], 3)
                       for ours in ("gather", "dropless") if ours in medians}  # fmt: skip
            figures.append({
                "benchmark": "moe_baselines", "layer": name, "experts": experts, "pass": kind,
                "capacity": args.capacity if name in ("gather", "einsum") else None,
                "ratio": round(cpu / medians[dense]["cpu"], 3), **against, "cpu_seconds": round(cpu, 6),
                "dense_cpu_seconds": round(medians[dense]["cpu"], 6),
                **{key: getattr(args, key) for key in ("tokens", "width", "hidden", "top_k", "repeats", "seed")},
                "qwen_hidden": qwen_width(args), **_machine(bool(theirs)),
            })  # fmt: skip
    return figures


def qwen_width(args: argparse.Namespace) -> int:
    """Width of a Qwen3 expert: three matrices of it are two of ours."""
    return args.qwen_hidden or args.hidden * 2 // 3


def qwen_of(args: argparse.Namespace, experts: int, names: list[str]) -> dict[str, dict[str, Callable]]:
    """Calls of the blocks by those names and of `dense_torch`, the gated block that is as wide as top_k experts."""
    torch, qwen = _torch(), _qwen()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    config = qwen.Qwen3MoeConfig(
        hidden_size=args.width, moe_intermediate_size=qwen_width(args), intermediate_size=qwen_width(args) * args.top_k,
        num_experts=experts, num_experts_per_tok=args.top_k, norm_topk_prob=True,
    )  # fmt: skip
    x = torch.randn(1, args.tokens, args.width, generator=torch.Generator().manual_seed(args.seed))
    blocks = {}
    for name in names:
        own = copy.deepcopy(config)
        own._experts_implementation = QWEN[name]
        blocks[name] = _uniform(torch, qwen.Qwen3MoeSparseMoeBlock(own), args.seed)
    blocks["dense_torch"] = qwen.Qwen3MoeMLP(config)
    for block in blocks.values():
        torch.manual_seed(args.seed)
        for weight in block.parameters():
            torch.nn.init.normal_(weight, std=weight.shape[-1] ** -0.5)
    return {name: _passes(torch, block, x) for name, block in blocks.items()}


def _uniform(torch, block, seed: int):
    """The block with its router's choice replaced by one that loads all experts alike; the router computes it still."""
    gate, ids = block.gate.forward, None

    def forward(tokens):
        nonlocal ids
        logits, weights, chosen = gate(tokens)
        if ids is None:
            count, top_k = chosen.shape
            even = (torch.arange(count)[:, None] * top_k + torch.arange(top_k)) % block.gate.num_experts
            ids = even[torch.randperm(count, generator=torch.Generator().manual_seed(seed))]
        return logits, weights, ids

    block.gate.forward = forward
    return block


def _passes(torch, block, x) -> dict[str, Callable]:
    def forward():
        with torch.no_grad():
            return float(block(x).square().mean())

    def train():
        own = x.detach().requires_grad_()
        weights = [*block.parameters(), own]
        loss = block(own).square().mean()
        torch.autograd.grad(loss, weights)
        return float(loss.detach())

    return {"forward": forward, "train": train}


def _torch():
    # Idle threads of torch would spin through the turns of the others and be counted there.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("KMP_BLOCKTIME", "0")
    try:
        import torch
    except ImportError:
        raise SystemExit("moe_baselines: qwen3 wants torch: pip install 'ssu-jax[convert]'") from None
    return torch


def _qwen():
    try:
        from transformers.models.qwen3_moe import modeling_qwen3_moe
    except ImportError:
        raise SystemExit("moe_baselines: qwen3 wants transformers >= 5: pip install 'ssu-jax[convert]'") from None
    return modeling_qwen3_moe


def _machine(with_torch: bool) -> dict[str, Any]:
    told = machine()
    if with_torch:
        import torch
        import transformers

        told["versions"] |= {"torch": torch.__version__, "transformers": transformers.__version__}
    return told


def main() -> None:
    """Prints the lines as they come; `--json` writes them to a file as well."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experts", type=int, nargs="+", default=[8, 32], help="numbers of experts")
    parser.add_argument("--layers", nargs="+", default=LAYERS, choices=LAYERS, help="what to run")
    parser.add_argument("--capacity", type=float, default=1.0, help="slots over the even share, of gather and einsum")
    parser.add_argument("--tokens", type=int, default=4096, help="tokens of a step")
    parser.add_argument("--width", type=int, default=768, help="token width")
    parser.add_argument("--hidden", type=int, default=1536, help="hidden width of one of top_k experts")
    parser.add_argument("--qwen-hidden", type=int, default=0, help="of a Qwen3 expert; 0: two thirds of --hidden")
    parser.add_argument("--top-k", type=int, default=2, help="experts a token visits")
    parser.add_argument("--repeats", type=int, default=5, help="timed calls of each layer")
    parser.add_argument("--seed", type=int, default=0, help="of inputs and parameters")
    parser.add_argument("--json", default="", help="file that receives the lines")
    args = parser.parse_args()
    args.dtype, args.router_width = "float32", 0
    lines = []
    for experts in args.experts:
        for figure in measure(args, experts):
            lines.append(json.dumps(figure))
            print(lines[-1], flush=True)
    if args.json:
        pathlib.Path(args.json).write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
