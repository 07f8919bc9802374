"""How a training step grows with the machine, told by compiling it ahead of time: no accelerator is needed.

    python benchmarks/scaling_aot.py --config configs/moe_64.py --topologies v5p:2x2x4 v5p:4x4x4 v5p:4x8x8 v5p:8x8x16

From slice to slice only the axis `data` of the mesh and, with it, the batch grow: a chip keeps its share of clips. Then
its memory and what it sends should stay what they are; each stands in the table as a ratio to the first slice. Exits
with 1 where one leaves 1 by more than `--tolerance`, where the compiler had to replicate an array to cut it anew, or
where a step does not fit. Wants the extra [tpu]. Further `--config.NAME=VALUE` go to every check.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

from ssu_jax.profiling import topology as topologies

COMPARED = ("peak", "temporaries", "sent", "expert_exchange", "flops")


def check(name: str, args: argparse.Namespace, rest: list[str]) -> dict:
    """What `ssu compile-check` finds for one slice, and the figures of a chip that are compared."""
    batch_size = topologies.parse(name, args.num_slices).num_chips * args.clips
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "check.json"
        command = [sys.executable, "-m", "ssu_jax.cli.main", "compile-check", "--config", args.config, "--topology",
                   name, "--num-slices", str(args.num_slices), "--effort", args.effort, "--json", str(path),
                   f"--config.train.batch_size={batch_size}", *rest]  # fmt: skip
        code = subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode
        if not path.exists():
            sys.exit(code)
        found = json.loads(path.read_text())
    sent = found.get("collectives", {})
    return found | {
        "compared": {
            "peak": found["peak"],
            "temporaries": found.get("temporaries", 0),
            "sent": sum(kind["bytes"] for kind in sent.values()),
            "expert_exchange": sent.get("all-to-all", {"bytes": 0})["bytes"],
            "flops": found["flops"]["chip"] if found["flops"] else 0,
        }
    }


def ratios(found: dict, first: dict) -> dict[str, float]:
    """Of the compared figures, to those of the first slice; 1 where both are 0."""
    now, then = found["compared"], first["compared"]
    return {name: now[name] / then[name] if then[name] else float(now[name] == 0) for name in COMPARED}


def problems(found: dict, first: dict, tolerance: float) -> list[str]:
    """What is not as it should be, in words; empty where all is."""
    away = [f"{name} {ratio:.3f}" for name, ratio in ratios(found, first).items() if abs(ratio - 1) > tolerance]
    wrong = [f"not constant: {', '.join(away)}"] if away else []
    if found.get("rematerializations"):
        wrong.append(f"{found['rematerializations']} involuntary rematerializations")
    return wrong if found["fits"] else [*wrong, "does not fit"]


def main() -> int:
    """Prints a row a slice as it comes; `--json` writes the checks to a file, a line each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True, help="its mesh must leave data at -1")
    parser.add_argument("--topologies", nargs="+", required=True, help="slices of one family, the smallest first")
    parser.add_argument("--num-slices", type=int, default=1, help="of every topology")
    parser.add_argument("--clips", type=int, default=1, help="clips of a chip")
    parser.add_argument("--effort", default="low", choices=("low", "full"), help="of the TPU compiler")
    parser.add_argument("--tolerance", type=float, default=0.05, help="that a ratio may be away from 1")
    parser.add_argument("--json", default="", help="file that receives the lines")
    args, rest = parser.parse_known_args()
    first, lines, wrong = None, [], False
    print("| slice | chips | " + " | ".join(COMPARED) + " | rematerializations | compile s | remarks |")
    print("| --- |" + " --- |" * (len(COMPARED) + 4))
    for name in args.topologies:
        found = check(name, args, rest)
        first = first or found
        remarks = problems(found, first, args.tolerance)
        wrong |= bool(remarks)
        shown = [f"{found['compared'][each] / 2**20:.1f} MiB ({ratio:.3f})" if each != "flops" else
                 f"{found['compared'][each] / 1e9:.1f} G ({ratio:.3f})"
                 for each, ratio in ratios(found, first).items()]  # fmt: skip
        print(f"| {name} | {found['chips']} | {' | '.join(shown)} | {found['rematerializations']} | "
              f"{found['seconds'].get('compile', 0):.0f} | {'; '.join(remarks)} |", flush=True)  # fmt: skip
        lines.append(json.dumps(found))
        if args.json:
            pathlib.Path(args.json).write_text("\n".join(lines) + "\n")
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
