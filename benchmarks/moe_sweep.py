"""How a model changes with its number of experts, at constant active size: trains, writes lines, a table and a plot.

    python benchmarks/moe_sweep.py --experts 1 2 4 8 16 --granularity 1 2 4 --steps 200 --workdir runs/moe_sweep

Two rows of models of configs/moe_sweep.py, all alike but for their experts, trained on the same clips of the built-in
world in the same order: E experts of which a token visits two (`--experts`), and `--base` experts cut g times finer
(`--granularity`): g times as many, g times as many a token, each as narrow. Every model multiplies alike.

Each is a run of its own in WORKDIR/ExG, so the same command again goes on where it stopped; finished ones are not
trained again. WORKDIR then holds sweep.jsonl, a line a run, and sweep.png:

    loss, caption      mean over the last quarter of the steps, of all and of the words, which the experts serve
    tokens_per_second  rows of the text decoder, padding included, in the fastest stretch between two log lines: other
                       work on the machine only slows
    max_load           the busiest expert over the mean, the worst layer, mean over the last quarter; 1 is even
    entropy            of a token's probabilities over that of an even choice, mean over layers and the last quarter
"""

import argparse
import json
import math
import pathlib
import platform
import re
import statistics
import subprocess
import sys
from typing import Any

import jax

ROOT = pathlib.Path(__file__).resolve().parent.parent
COLUMNS = ("experts", "granularity", "top_k", "hidden", "loss", "caption", "tokens_per_second", "max_load", "entropy")


def names_of(args: argparse.Namespace) -> list[tuple[int, int]]:
    """(E, g) of every run, each once."""
    return list(dict.fromkeys([*((e, 1) for e in args.experts), *((args.base, g) for g in args.granularity)]))


def run(experts: int, granularity: int, args: argparse.Namespace) -> dict[str, Any]:
    """The line of one run: trained, or read where it has been."""
    workdir = args.workdir / f"{experts}x{granularity}"
    path = workdir / "sweep.json"
    if not path.exists():
        _ssu("train", "--config", f"{ROOT / 'configs/moe_sweep.py'}:{experts}x{granularity}", "--workdir", workdir,
             f"--config.data.dir={args.workdir / 'data'}", f"--config.train.num_steps={args.steps}",
             f"--config.train.seed={args.seed}")  # fmt: skip
        line = line_of(workdir, experts, granularity) | {"clips": args.clips}
        path.write_text(json.dumps(line) + "\n")
    line = json.loads(path.read_text())
    asked = {"steps": args.steps, "clips": args.clips, "seed": args.seed}
    if any(line[name] != value for name, value in asked.items()):
        made = {name: line[name] for name in asked}
        raise SystemExit(f"moe_sweep: {workdir} was trained with {made}, asked for {asked}: take another --workdir")
    return line


def line_of(workdir: pathlib.Path, experts: int, granularity: int) -> dict[str, Any]:
    """What a finished run tells of itself in config.json and metrics.jsonl."""
    config = json.loads((workdir / "config.json").read_text())
    told = [json.loads(row) for row in (workdir / "metrics.jsonl").read_text().splitlines()]
    rows = [row for row in told if row["kind"] == "train"]
    last = [row for row in rows if row["step"] > 0.75 * rows[-1]["step"]]
    moe, data, train = config["model"]["moe"], config["data"], config["train"]
    clips_per_second = max(row["clips_per_second"] for row in rows)
    tokens = data["train_seconds"] * (data["max_text_tokens"] - 1)
    return {
        "benchmark": "moe_sweep", "experts": moe["num_experts"], "granularity": granularity, "top_k": moe["top_k"],
        "hidden": moe["hidden"], "coarse_experts": experts,
        **{name: round(statistics.mean(row[name] for row in last), 4) for name in ("loss", "caption")},
        "tokens_per_second": round(clips_per_second * tokens), "clips_per_second": round(clips_per_second, 3),
        "max_load": round(statistics.mean(max(_layers(row, "max_load")) for row in last), 3),
        "entropy": round(_evenness(last, moe["num_experts"]), 3),
        "dropped": round(statistics.mean(max(_layers(row, "dropped_share")) for row in last), 4),
        "steps": train["num_steps"], "batch_size": train["batch_size"], "seed": train["seed"],
        "device": jax.devices()[0].device_kind,
        "versions": {"python": platform.python_version(), "jax": jax.__version__},
    }  # fmt: skip


def _layers(row: dict[str, Any], name: str) -> list[float]:
    return [value for key, value in row.items() if re.fullmatch(rf"router/block_\d+/{name}", key)]


def _evenness(rows: list[dict[str, Any]], num_experts: int) -> float:
    if num_experts == 1:
        return 1.0
    return statistics.mean(statistics.mean(_layers(row, "entropy")) for row in rows) / math.log(num_experts)


def _ssu(*arguments) -> None:
    subprocess.run([sys.executable, "-m", "ssu_jax.cli.main", *map(str, arguments)], check=True, cwd=ROOT)


def table(lines: list[dict[str, Any]]) -> str:
    """The lines in Markdown."""
    rows = [" | ".join(str(line[name]) for name in COLUMNS) for line in lines]
    return "\n".join(f"| {row} |" for row in (" | ".join(COLUMNS), " | ".join("---" for _ in COLUMNS), *rows))


def plot(lines: list[dict[str, Any]], args: argparse.Namespace) -> Any:
    """Loss of the words, speed and balance against the number of experts: a line for E, one for the granularity."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.6), dpi=120, layout="constrained")
    by_name = {(line["coarse_experts"], line["granularity"]): line for line in lines}
    series = {
        "more experts, two a token": [by_name[e, 1] for e in sorted(args.experts)],
        f"{args.base} experts cut finer": [by_name[args.base, g] for g in sorted(args.granularity)],
    }
    titles = {
        "caption": "loss of the words",
        "tokens_per_second": "tokens a second",
        "max_load": "busiest expert / mean",
    }
    for axis, (name, title) in zip(figure.subplots(1, 3), titles.items(), strict=True):
        for (label, each), style in zip(series.items(), ("o-", "s--"), strict=True):
            axis.plot([line["experts"] for line in each], [line[name] for line in each], style, label=label)
        axis.set_xscale("log", base=2)
        ticks = sorted({line["experts"] for line in lines})
        axis.set_xticks(ticks, labels=map(str, ticks))
        axis.set_xlabel("experts")
        axis.set_title(title, fontsize=10)
        if name != "caption":
            axis.set_ylim(bottom=0)
    figure.axes[0].legend(fontsize=8)
    return figure


def main() -> None:
    """Runs what is not there yet, prints the table and draws the plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experts", type=int, nargs="+", default=[1, 2, 4, 8, 16], help="numbers of experts")
    parser.add_argument("--granularity", type=int, nargs="+", default=[1, 2, 4], help="how many times finer")
    parser.add_argument("--base", type=int, default=8, help="experts that the granularity cuts")
    parser.add_argument("--steps", type=int, default=200, help="training steps of every run")
    parser.add_argument("--clips", type=int, default=2000, help="training clips, made in WORKDIR/data")
    parser.add_argument("--seed", type=int, default=0, help="of weights, data and order")
    parser.add_argument("--workdir", required=True, type=pathlib.Path, help="where runs, lines and plot go")
    parser.add_argument("--json", type=pathlib.Path, help="write the lines here (default: WORKDIR/sweep.jsonl)")
    args = parser.parse_args()
    args.workdir = args.workdir.resolve()
    if not (args.workdir / "data").exists():
        _ssu("prepare", "synthetic", "--out", args.workdir / "data", "--split", "train", "--num-clips", args.clips,
             "--num-shards", 4, "--seed", args.seed)  # fmt: skip
    lines = []
    for experts, granularity in names_of(args):
        lines.append(run(experts, granularity, args))
        print(json.dumps(lines[-1]), flush=True)
    (args.json or args.workdir / "sweep.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    print(table(lines))
    plot(lines, args).savefig(args.workdir / "sweep.png")


if __name__ == "__main__":
    main()
