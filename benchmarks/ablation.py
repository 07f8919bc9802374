"""Trains the model with one part off at a time, equal steps and data, and writes the table.

    python benchmarks/ablation.py --data data --workdir runs/ablation --steps 800 --table docs/ablation.md

`--data` holds the splits train, val and test (`ssu prepare synthetic`). Each row is a training run of its own in
WORKDIR/ROW, so the same command again goes on where it stopped. Intervals are bootstrap 95 % over test clips.
"""

import argparse
import json
import pathlib
import subprocess
import sys

ROWS = {
    "full": [],
    "no MCM": ["--config.model.mcm=False"],
    "no MoHE": ["--config.model.mohe=False"],
}
SCORES = (
    "miou",
    "f_score",
    "exact_match",
    "bleu_4",
    "rouge_l",
    "meteor",
    "cider",
    "silent_accuracy",
    "offscreen_accuracy",
)
ROOT = pathlib.Path(__file__).resolve().parent.parent


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="records with the splits train, val and test")
    parser.add_argument("--workdir", required=True, type=pathlib.Path, help="where the runs go")
    parser.add_argument("--steps", type=int, default=800, help="training steps of every row")
    parser.add_argument("--batch-size", type=int, default=16, help="clips a step")
    parser.add_argument("--seed", type=int, default=0, help="seed of every row")
    parser.add_argument("--num-clips", type=int, default=0, help="test clips to score (0: all)")
    parser.add_argument("--json", type=pathlib.Path, help="write the scores here")
    parser.add_argument("--table", type=pathlib.Path, help="write the table here")
    args = parser.parse_args()
    scores = {row: _run(row, switches, args) for row, switches in ROWS.items()}
    table = _table(scores, args)
    print(table)
    if args.json:
        args.json.write_text(json.dumps(scores, indent=1) + "\n")
    if args.table:
        args.table.parent.mkdir(parents=True, exist_ok=True)
        args.table.write_text(table)


def _run(row: str, switches: list[str], args: argparse.Namespace) -> dict:
    workdir = args.workdir / row.replace(" ", "_")
    metrics = workdir / "ablation.json"
    _ssu("train", "--config", ROOT / "configs/nano.py", "--workdir", workdir, f"--config.data.dir={args.data}",
         f"--config.train.num_steps={args.steps}", f"--config.train.batch_size={args.batch_size}",
         f"--config.train.seed={args.seed}", "--config.eval.every_steps=0", "--config.train.picture_every_steps=0",
         *switches)  # fmt: skip
    _ssu("evaluate", "--checkpoint", workdir, "--records", args.data, "--split", "test", "--out", metrics,
         "--num-clips", args.num_clips)  # fmt: skip
    return json.loads(metrics.read_text())


def _ssu(*arguments):
    subprocess.run([sys.executable, "-m", "ssu_jax.cli.main", *map(str, arguments)], check=True, cwd=ROOT)


def _table(scores: dict[str, dict], args: argparse.Namespace) -> str:
    clips = next(iter(scores.values()))["num_clips"]
    lines = [
        "# Ablation on the built-in world",
        "",
        f"One part off at a time; every row is trained for {args.steps} steps of {args.batch_size} clips from seed "
        f"{args.seed} and scored on {clips} test clips. In brackets: bootstrap 95 % intervals over the clips; they say "
        "nothing of other seeds. Made by",
        "",
        f"    python benchmarks/ablation.py --data data --workdir runs/ablation --steps {args.steps} "
        f"--batch-size {args.batch_size} --table docs/ablation.md",
        "",
        "| score | " + " | ".join(scores) + " |",
        "| --- |" + " --- |" * len(scores),
    ]
    for name in SCORES:
        cells = [_cell(metrics, name) for metrics in scores.values()]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _cell(metrics: dict, name: str) -> str:
    if metrics.get(name) is None:
        return "-"
    low, high = metrics.get(f"{name}_low"), metrics.get(f"{name}_high")
    return f"{metrics[name]:.3f}" + (f" [{low:.3f}, {high:.3f}]" if low is not None else "")


if __name__ == "__main__":
    main()
